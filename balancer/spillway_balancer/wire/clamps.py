"""A rule's clamps in the bytes of a body: limits are lowered where they stand, and everything else stays as it came.

Engines read one field in several ways: `max_tokens: 0` or `-1` is no limit to some, `"100"` is 100 to others, and what
is of no use is passed over. A clamp holds for the most lenient of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

import msgspec

from spillway_api.types import Clamp
from spillway_api.types.clamp import ReasoningEffort

from . import json_body, thinking
from .asks import OUTPUT_LIMITS
from .paths import MESSAGES
from .peeked import Edit, Peeked
from .providers import ADAPTERS, OWN

LIMITS: Final = (*OUTPUT_LIMITS, "n_predict")
"""Fields that limit an answer; the last is llama.cpp's own, and goes there before the others."""

_READ: Final = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
    MESSAGES: ("max_tokens",),
}
"""Limits that are read on each path that generates text; one that is there and is a number is enough."""

_NAMES: Final = get_args(ReasoningEffort)
_RANK: Final = {name: rank for rank, name in enumerate(_NAMES)}
_DEFAULT: Final = _RANK["medium"]
"""Of a request that names no effort."""

_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class Clamped:
    """What is to be changed of one body. Raises AmbiguousKey where it could be read in two ways."""

    __slots__ = ("_edits", "_limit", "_peeked")

    def __init__(self, peeked: Peeked, clamp: Clamp) -> None:
        self._peeked = peeked
        self._limit: int | None = None
        """To be added, as the body has none."""
        read = _READ.get(peeked.path.path, ())
        edits: list[Edit] = []
        if read and clamp.max_output_tokens is not None:
            limited = False
            for name in LIMITS:
                if (value := self._value(name)) is None:
                    continue
                limited = limited or name in read
                lower = _lowered(value, clamp.max_output_tokens)
                if lower is not None:
                    edits.append((*self._place(name), b"%d" % lower))
            self._limit = None if limited else clamp.max_output_tokens
        if peeked.path.path == MESSAGES:
            edits += (self._put(name, value) for name, value in thinking.lowered(peeked.values(), clamp))
        elif read and clamp.reasoning_effort is not None:
            edits += self._effort(clamp.reasoning_effort)
        self._edits = edits

    def edits(self, provider: str | None) -> list[Edit]:
        """The changes for an endpoint of this type of provider; None is a self-hosted one.

        OpenAI's newer models refuse `max_tokens`, and many an engine knows nothing else.
        """
        if self._limit is None:
            return self._edits
        path = self._peeked.path.path
        name: str = ADAPTERS.get(provider or "", OWN).preset.limit
        name = name if name in _READ[path] else _READ[path][0]
        return [*self._edits, self._put(name, b"%d" % self._limit)]

    def values(self) -> Mapping[str, msgspec.Raw]:
        """The fields of the body as they are with the changes."""
        return json_body.read(b"".join(self._peeked.forward(self._peeked.model, self.edits(None)))).values

    def _effort(self, most: ReasoningEffort) -> Iterator[Edit]:
        """`reasoning_effort` of chats and `reasoning.effort` of responses; some read one in the place of the other."""
        flat, nested = self._value("reasoning_effort"), self._value("reasoning")
        inner = nested.get("effort") if isinstance(nested, dict) else None
        rank, new = _RANK[most], _encode(most)
        if flat is not None and _rank(flat) > rank:
            yield *self._place("reasoning_effort"), new
        if inner is not None and _rank(inner) > rank:
            yield *self._inner("effort"), new
        if rank >= _DEFAULT:
            return
        # What names no effort where it is read would get the default of its model.
        path = self._peeked.path.path
        least = _encode(_NAMES[min(rank, *(_rank(each) for each in (flat, inner, most) if each is not None))])
        if path == "/v1/chat/completions" and flat is None:
            yield self._put("reasoning_effort", least)
        elif path == "/v1/responses" and inner is None:
            yield self._nested(nested, least)

    def _nested(self, nested: Any, effort: bytes) -> Edit:
        """The effort put into `reasoning`, whatever else is in there."""
        if not isinstance(nested, dict) or not nested:
            return self._put("reasoning", b'{"effort":%b}' % effort)
        if "effort" in nested:
            return *self._inner("effort"), effort
        start, _ = self._place("reasoning")
        first = start + min(opening for opening, _, _ in self._reasoning().spans.values())
        return first, first, b'"effort":%b,' % effort

    def _value(self, name: str) -> Any:
        """None where the field is not there, or null, which is the same to all readers."""
        raw = self._peeked.values().get(name)
        if raw is None:
            return None
        try:
            return _any(raw)
        except msgspec.DecodeError:  # a number beyond all bounds
            return math.inf

    def _place(self, name: str) -> tuple[int, int]:
        return self._peeked.spans()[name][1:]

    def _put(self, name: str, value: bytes) -> Edit:
        """The field with this value: in the place of what it has, or added behind the model's name."""
        if name in self._peeked.spans():
            return *self._place(name), value
        end = self._place("model")[1]
        return end, end, b',"%b":%b' % (name.encode(), value)

    def _reasoning(self) -> json_body.TopLevel:
        return json_body.read(bytes(self._peeked.values()["reasoning"]))

    def _inner(self, name: str) -> tuple[int, int]:
        start, _ = self._place("reasoning")
        _, first, last = self._reasoning().spans[name]
        return start + first, start + last


def _rank(effort: Any) -> int:
    """An effort that is none of ours may be a greater one, and counts so."""
    return _RANK.get(effort, len(_RANK)) if isinstance(effort, str) else len(_RANK)


def _lowered(value: Any, most: int) -> int | None:
    """What a limit of the client becomes; None where it may stay as it is."""
    number = _number(value)
    if number is None or number < 0 or number > most:
        return most
    return None if number >= 1 else 1


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return value
