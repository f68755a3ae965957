"""What peers with a latency model predict: the simulated engine's own cost model, as if fitted without error."""

from __future__ import annotations

from ...engine.profiles import Profile
from .base import View


def prefill_seconds(profile: Profile, miss: float, prompt: float) -> float:
    """Computing the last `miss` tokens of a prompt of `prompt` tokens, alone on the engine."""
    return miss * (profile.token_s + profile.attention_s * (prompt - miss / 2.0))


def decode_seconds(view: View) -> float:
    """A decode step with the requests that the balancer knows of."""
    return view.profile.step_seconds(view.decoding, view.decoding, 0.0, view.context_tokens)
