"""The most that a request of Anthropic's Messages may have its model think: `thinking` and `output_config.effort`.

https://docs.claude.com/en/docs/build-with-claude/extended-thinking and …/effort. A budget is at least 1,024 tokens, and
less than `max_tokens`: where a clamp leaves no room for one, nothing is thought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from spillway_api.types import Clamp
from spillway_api.types.clamp import ReasoningEffort

from .translation.efforts import TOKENS

LEAST: Final = 1_024
"""Tokens of a budget."""

_WORDS: Final = ("low", "medium", "high", "xhigh", "max")
"""Of `output_config.effort`, rising; what is none of them may be more than all."""
_DEFAULT: Final = "high"
_OFF: Final = {"type": "disabled"}

_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


def lowered(values: Mapping[str, msgspec.Raw], clamp: Clamp) -> Iterator[tuple[str, bytes]]:
    """Fields with the values that they have to have instead; those that stay as they came are not among them."""
    thinking, config = _object(values, "thinking"), _object(values, "output_config")
    effort = clamp.reasoning_effort
    thinks = thinking is not None and thinking.get("type") not in (None, "disabled")
    if thinking is not None and thinks:
        new = _thinking(thinking, effort, clamp.max_output_tokens)
        thinks = new != _OFF
        if new != thinking:
            yield "thinking", _encode(new)
    word = None if config is None else config.get("effort")
    if effort is None or (word is None and not thinks):
        return
    most = effort if effort in _WORDS else "low"  # less than that has no word here
    if _rank(word or _DEFAULT) > _rank(most):
        yield "output_config", _encode({**(config or {}), "effort": most})


def _thinking(thinking: dict[str, Any], effort: ReasoningEffort | None, answer: int | None) -> dict[str, Any]:
    if effort == "none":
        return _OFF
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or isinstance(budget, bool):
        return thinking  # adaptive, which the effort limits, or nothing that an endpoint would take
    if effort is not None:
        budget = min(budget, TOKENS[effort])
    if answer is not None and budget >= answer:
        budget = answer - 1
    return {**thinking, "budget_tokens": budget} if budget >= LEAST else _OFF


def _rank(word: object) -> int:
    return _WORDS.index(word) if word in _WORDS else len(_WORDS)


def _object(values: Mapping[str, msgspec.Raw], name: str) -> dict[str, Any] | None:
    try:
        value = _any(values[name]) if name in values else None
    except msgspec.DecodeError:  # a number beyond all bounds
        return None
    return value if isinstance(value, dict) else None
