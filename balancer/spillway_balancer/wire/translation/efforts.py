"""How much a model is to think, by a word and by tokens: the one scale on which writers go from one to the other.

The steps up to `high` are those by which Google translates OpenAI's `reasoning_effort` into thinking budgets for Gemini
(https://ai.google.dev/gemini-api/docs/openai#thinking); 1,024 is also the least that Anthropic takes. The two above
them have no public numbers and go on by a third and by doubling.
"""

from __future__ import annotations

from typing import Final

from .conversation import Effort, Reasoning

TOKENS: Final[dict[Effort, int]] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 32_768,
    "max": 65_536,
}

_STEPS: Final[tuple[tuple[int, Effort], ...]] = ((4_096, "low"), (16_384, "medium"))
"""Budgets below these. All others are `high`: it is the most that every model with an effort understands."""


def tokens(reasoning: Reasoning) -> int | None:
    """The budget that was asked for, in either way; 0 is no thinking, None is for the model to decide."""
    if reasoning.effort == "none":
        return 0
    if reasoning.tokens is not None:
        return reasoning.tokens
    return None if reasoning.effort is None else TOKENS[reasoning.effort]


def effort(reasoning: Reasoning) -> Effort | None:
    """The word for what was asked for, in either way; None is for the model to decide."""
    if reasoning.effort is not None:
        return reasoning.effort
    if reasoning.tokens is None:
        return None
    if reasoning.tokens <= 0:
        return "none"
    return next((word for below, word in _STEPS if reasoning.tokens < below), "high")
