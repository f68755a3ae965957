"""What one balancer tells another of its visits: numbers and hashes, no text. core/exchange.py says what for."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Begun(msgspec.Struct, frozen=True, tag="begun", array_like=True):
    """A request has been sent to an endpoint. Tokens are the sender's estimates."""

    visit: int
    """The sender's number for it."""
    endpoint: str
    prompt_tokens: float
    cached_tokens: float
    output_tokens: int
    streams: bool
    blocks: tuple[int, ...]
    """Hashes of the prompt's blocks; with equal prompts, equal for all balancers."""


class FirstToken(msgspec.Struct, frozen=True, tag="first", array_like=True):
    """Its first token has been seen."""

    visit: int


class Ended(msgspec.Struct, frozen=True, tag="ended", array_like=True):
    """It has ended, well or not; `answer` are the blocks that its answer added."""

    visit: int
    ok: bool
    answer: tuple[int, ...] = ()


Note: TypeAlias = Begun | FirstToken | Ended
