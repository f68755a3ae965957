"""A conversation that another provider has begun, as this one takes it over.

A session that spills in the middle of its tools brings ids, calls and reasoning of another model. Mistral takes ids of
nine letters and digits alone, and no message of the user's right behind a tool's. Gemini, from its third generation on,
takes no call without a signature of its own, or a word in its place
(https://ai.google.dev/gemini-api/docs/thought-signatures). DeepSeek wants `reasoning_content` in every message of the
assistant's, be it empty (https://api-docs.deepseek.com/guides/thinking_mode); OpenAI, Groq and Mistral want none.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_hexdigest

from spillway_api.providers import Preset

from ..peeked import Edit, Peeked

UNSIGNED: Final = "skip_thought_signature_validator"
"""Stands for the signature of a call that Gemini has not made."""

BRIDGE: Final = {"role": "assistant", "content": "OK."}
"""Stands between a tool's message and the user's."""

_ID: Final = 9
_SIGNS = re.compile(r"gemini-[3-9]").search
_REASONING: Final = frozenset({"reasoning_content", "reasoning_details", "reasoning"})

_OF_ANOTHER: Final = _REASONING | {"tool_calls", "tool_call_id", "refusal", "annotations", "audio", "function_call"}
"""Members without which a message is changed for nobody who does not need more of them."""
_NOTHING: Final = (b"null", b"[]")
_ITS_OWN: Final = ("role", "content")

_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_calls = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


def signs(preset_takes: frozenset[str], model: str) -> bool:
    """Whether this model refuses calls without a signature."""
    return "thought_signature" in preset_takes and _SIGNS(model) is not None


def strict_id(given: str) -> str:
    """An id as Mistral takes it: itself where it is one, else a hash, the same every time."""
    if len(given) == _ID and given.isascii() and given.isalnum():
        return given
    return xxh3_64_hexdigest(given.encode())[:_ID]


def signature(given: str = UNSIGNED) -> dict[str, Any]:
    """What stands in a call's `extra_content`."""
    return {"google": {"thought_signature": given}}


def taken_over(peeked: Peeked, preset: Preset, model: str) -> Edit | None:
    """The change to a body's messages; None where they may stay as they are, or are for the provider to refuse."""
    signed = signs(preset.takes, model)
    raw = peeked.values().get("messages") if preset.strict or preset.reasoning or signed else None
    if raw is None:
        return None
    try:
        given = _messages(raw)
        if preset.reasoning != "needed" and all(map(_OF_ANOTHER.isdisjoint, given)):
            return None
        taking = _Taking(preset, signed)
        messages = [each for message in given for each in taking.message(message)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not taking.changed:
        return None
    _, start, end = peeked.spans()["messages"]
    return start, end, _encode(messages)


class _Taking:
    def __init__(self, preset: Preset, signed: bool) -> None:
        self._strict = preset.strict
        self._reasoning = preset.reasoning
        self._refused = _REASONING - preset.takes if preset.reasoning == "refused" else frozenset()
        self._signed = signed
        self._role: object = None
        self.changed = False

    def message(self, message: dict[str, msgspec.Raw]) -> list[dict[str, Any]]:
        before, self._role = self._role, _any(message["role"]) if "role" in message else None
        found: dict[str, Any] = dict(message)
        if self._role == "assistant":
            self._thoughts(found)
            if self._strict:
                self._empty(found)
        if bytes(message.get("tool_calls", b"null")) != b"null":
            calls: list[dict[str, Any]] = [dict(call) for call in _calls(message["tool_calls"])]
            for call in calls:
                self._id(call, "id")
            if self._signed and calls and "extra_content" not in calls[0]:
                calls[0]["extra_content"] = signature()
                self.changed = True
            found["tool_calls"] = calls
        self._id(found, "tool_call_id")
        if self._strict and before == "tool" and self._role == "user":
            self.changed = True
            return [BRIDGE, found]
        return [found]

    def _thoughts(self, message: dict[str, Any]) -> None:
        for name in self._refused & message.keys():
            del message[name]
            self.changed = True
        if self._reasoning == "needed" and bytes(message.get("reasoning_content", b"null")) == b"null":
            given = message.get("reasoning", msgspec.Raw(b'""'))  # as other servers call it
            message["reasoning_content"] = given if bytes(given).startswith(b'"') else ""
            self.changed = True

    def _empty(self, message: dict[str, Any]) -> None:
        """What SDKs hand back of an answer though nothing is in it: `refusal`, `annotations`, `audio`."""
        for name in [name for name, raw in message.items() if bytes(raw) in _NOTHING and name not in _ITS_OWN]:
            del message[name]
            self.changed = True

    def _id(self, held: dict[str, Any], name: str) -> None:
        given = _any(held[name]) if self._strict and name in held else None
        if isinstance(given, str) and strict_id(given) != given:
            held[name] = strict_id(given)
            self.changed = True
