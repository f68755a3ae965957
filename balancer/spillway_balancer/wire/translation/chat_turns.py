"""The messages of a chat completion, read as turns of a conversation.

Formats: https://platform.openai.com/docs/api-reference/chat/create, as the types of OpenAI's SDK have it. Beyond it,
what engines and other providers take beside: reasoning of earlier answers as `reasoning_content` (DeepSeek, vLLM,
SGLang), `reasoning` (vLLM, Ollama), `reasoning_details` with signatures (OpenRouter) or parts of the type `thinking`
(Mistral); `cache_control` on parts (OpenRouter, Anthropic's own chat endpoint).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from . import checked, media
from .conversation import Media, Part, Role, Text, Thought, ToolResult, ToolUse, Turn

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
GOOGLE: Final = "google:"
"""Stands before a signature of Gemini's, whose place is a call of a tool: a thought with it goes before the call."""

_TYPE = re.compile(r"[a-z0-9_]{1,64}").fullmatch
_PDF: Final = "JVBERi0"
"""What base64 makes of `%PDF-`."""


class Turns(NamedTuple):
    """`extras`: what has no place in a turn, by where it stands."""

    system: tuple[Text, ...]
    turns: tuple[Turn, ...]
    extras: dict[str, msgspec.Raw]


def read(messages: Any) -> Turns:
    """Raises a BadRequest for messages that are none."""
    given = checked.sequence(messages, "messages")
    if not given:
        checked.refuse("messages", "must have at least one message")
    reading = _Reading()
    for index, message in enumerate(given):
        at = f"messages[{index}]"
        reading.take(checked.mapping(message, at), at)
    return reading.end()


class _Reading:
    def __init__(self) -> None:
        self._system: list[Text] = []
        self._turns: list[Turn] = []
        self._results: list[Part] = []
        """Of tools, which stand in messages of their own here, and in the user's turn elsewhere."""
        self._extras: dict[str, msgspec.Raw] = {}
        self._called: dict[str, str] = {}
        """Ids of functions that were called without one, by their names."""
        self._names: list[tuple[str, str | None, str]] = []

    def take(self, message: dict[str, Any], at: str) -> None:
        role = checked.one_of(message.get("role"), _ROLES, f"{at}.role")
        content = message.get("content")
        if role == "tool":
            found = checked.text(message.get("tool_call_id"), f"{at}.tool_call_id")
            self._results.append(self._result(found, content, at))
            return
        if role == "function":
            name = checked.text(message.get("name"), f"{at}.name")
            if name not in self._called:
                checked.refuse(f"{at}.name", "names a function that no message before has called")
            self._results.append(self._result(self._called[name], content, at))
            return
        self._names.append((role, checked.text_or_none(message.get("name"), f"{at}.name"), f"{at}.name"))
        if role == "user":
            self._put("user", (*self._results, *self._parts(content, f"{at}.content")))
            self._results = []
        elif role == "assistant":
            self._put("assistant", self._said(message, at))
        else:
            words = tuple(self._parts(content, f"{at}.content"))
            texts = tuple(part for part in words if isinstance(part, Text))
            if len(texts) != len(words):
                checked.refuse(f"{at}.content", "must be text")
            if self._turns or self._results:
                self._put("system", texts)
            else:
                self._system += texts

    def end(self) -> Turns:
        self._flush()
        for role in ("system", "developer", "user", "assistant"):
            # A name tells one participant from another; where there is no other, it says nothing.
            named = [(name, at) for each, name, at in self._names if each == role]
            if len({name for name, _ in named}) > 1:
                self._extras |= {at: checked.raw(name) for name, at in named if name is not None}
        return Turns(tuple(self._system), tuple(self._turns), self._extras)

    def _put(self, role: Role, parts: tuple[Part, ...]) -> None:
        if role != "user":
            self._flush()
        self._turns.append(Turn(role, parts))

    def _flush(self) -> None:
        if self._results:
            self._turns.append(Turn("user", tuple(self._results)))
            self._results = []

    def _result(self, call: str, content: Any, at: str) -> ToolResult:
        parts = tuple(self._parts(content, f"{at}.content"))
        return ToolResult(call, tuple(part for part in parts if isinstance(part, Text | Media)))

    def _said(self, message: dict[str, Any], at: str) -> tuple[Part, ...]:
        parts: list[Part] = list(_thoughts(message, at))
        parts += self._parts(message.get("content"), f"{at}.content")
        refusal = checked.text_or_none(message.get("refusal"), f"{at}.refusal")
        if refusal:
            parts.append(Text(refusal))
        for name in ("audio", "prefix"):
            if message.get(name):
                self._extras[f"{at}.{name}"] = checked.raw(message[name])
        call = message.get("function_call")
        if call is not None:
            use = self._use(call, f"call_{len(self._turns)}", f"{at}.function_call")
            self._called[use.name] = use.id
            parts.append(use)
        for index, each in enumerate(checked.sequence(message.get("tool_calls") or [], f"{at}.tool_calls")):
            there = f"{at}.tool_calls[{index}]"
            call = checked.mapping(each, there)
            if call.get("type", "function") != "function":  # a custom tool's input is no JSON
                self._extras[f"{there}.type"] = checked.raw(call["type"])
                continue
            if (thought := signed_call(call)) is not None:
                parts.append(thought)
            parts.append(
                self._use(call.get("function"), checked.text(call.get("id"), f"{there}.id"), f"{there}.function")
            )
        return tuple(parts)

    def _use(self, call: Any, id_of: str, at: str) -> ToolUse:
        call = checked.mapping(call, at)
        name = checked.text(call.get("name"), f"{at}.name")
        arguments = call.get("arguments") or "{}"
        if isinstance(arguments, dict):  # Ollama hands out objects, and clients hand them back
            return ToolUse(id_of, name, bytes(checked.raw(arguments)))
        data = checked.text(arguments, f"{at}.arguments").strip().encode() or b"{}"
        if not checked.is_object(data):  # a model's mistake: chat completions carry any text here, others do not
            self._extras[f"{at}.arguments"] = checked.raw(arguments)
        return ToolUse(id_of, name, data)

    def _parts(self, content: Any, at: str) -> Iterator[Part]:
        if content is None:
            return
        if isinstance(content, str):
            if content:
                yield Text(content)
            return
        for index, each in enumerate(checked.sequence(content, at)):
            there = f"{at}[{index}]"
            part = self._part(checked.mapping(each, there), there)
            if part is not None:
                yield part

    def _part(self, part: dict[str, Any], at: str) -> Part | None:
        kind = checked.text(part.get("type"), f"{at}.type")
        cached, ttl = _cached(part, at)
        if kind == "text":
            words = checked.text(part.get("text"), f"{at}.text")
            return Text(words, cached, ttl) if words else None
        if kind == "refusal":
            return Text(checked.text(part.get("refusal"), f"{at}.refusal"), cached, ttl)
        if kind == "image_url":
            said = part.get("image_url")
            image = {"url": said} if isinstance(said, str) else checked.mapping(said, f"{at}.image_url")  # Mistral's
            url = checked.text(image.get("url"), f"{at}.image_url.url")
            detail = checked.text_or_none(image.get("detail"), f"{at}.image_url.detail")
            found = media.of_url(url)
            if found is None:
                checked.refuse(f"{at}.image_url.url", "must be an http, https or base64 data: URL")
            return found._replace(detail=detail, cached=cached, ttl=ttl)
        if kind == "file":
            found = self._file(checked.mapping(part.get("file"), f"{at}.file"), f"{at}.file")
            return found and found._replace(cached=cached, ttl=ttl)
        if kind == "thinking":
            return Thought(_joined(part.get("thinking")))
        # A type is a word of the API's; anything else might be somebody's text, and stays out of messages.
        name = kind if _TYPE(kind) else "type"
        self._extras[f"{at}.{name}"] = checked.raw(part.get(name))
        return None

    def _file(self, file: dict[str, Any], at: str) -> Media | None:
        name = checked.text_or_none(file.get("filename"), f"{at}.filename")
        data = checked.text_or_none(file.get("file_data"), f"{at}.file_data")
        if data is None:  # what was uploaded to one provider is not at another
            self._extras[f"{at}.file_id"] = checked.raw(file.get("file_id"))
            return None
        found = Media(data=data, kind="application/pdf") if data.startswith(_PDF) else media.of_url(data)
        if found is None:
            checked.refuse(f"{at}.file_data", "must be a base64 data: URL")
        return found._replace(name=name)


def _cached(part: dict[str, Any], at: str) -> tuple[bool, str | None]:
    """Whether the prompt up to here is to be cached. OpenAI's lives are 30 minutes and 12 hours, and the hour is what
    others have that is nearest."""
    control = part.get("cache_control")
    if control is not None:
        return True, checked.text_or_none(
            checked.mapping(control, f"{at}.cache_control").get("ttl"), f"{at}.cache_control.ttl"
        )
    mark = part.get("prompt_cache_breakpoint")
    if mark is None:
        return False, None
    return True, "1h" if checked.mapping(mark, f"{at}.prompt_cache_breakpoint").get("ttl") else None


def _thoughts(message: dict[str, Any], at: str) -> Iterator[Thought]:
    """Reasoning of an earlier answer: with its signatures where they were kept, else as text alone."""
    details = message.get("reasoning_details")
    if isinstance(details, list) and details:
        for detail in details:
            if isinstance(detail, dict) and (thought := thought_of(detail)) is not None:
                yield thought
        return
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            yield Thought(checked.text(message[name], f"{at}.{name}"))
            return


def thought_of(detail: dict[str, Any]) -> Thought | None:
    """One of OpenRouter's `reasoning_details`; None for what says nothing. Signatures and what is sealed have the name
    of their format before them where it is not Anthropic's, whose models take no other.

    https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
    """
    kind, data, signature = detail.get("type"), detail.get("data"), detail.get("signature")
    made = detail.get("format")
    of = f"{made}:" if isinstance(made, str) and made and not made.startswith("anthropic") else ""
    if kind == "reasoning.encrypted":
        return Thought(sealed=of + data) if isinstance(data, str) and data else None
    words = detail.get("summary" if kind == "reasoning.summary" else "text")
    words = words if isinstance(words, str) else ""
    signature = of + signature if isinstance(signature, str) and signature else None
    return Thought(words, signature) if words or signature else None


def signed_call(call: dict[str, Any]) -> Thought | None:
    """What Gemini has thought before a call, and wants to see again with it.

    https://ai.google.dev/gemini-api/docs/thought-signatures
    """
    for name in ("extra_content", "google"):
        inner = call.get(name)
        if not isinstance(inner, dict):
            return None
        call = inner
    signature = call.get("thought_signature")
    return Thought(signature=GOOGLE + signature) if isinstance(signature, str) and signature else None


def _joined(pieces: Any) -> str:
    """The words of Mistral's `thinking`: text, or parts of it."""
    if isinstance(pieces, str):
        return pieces
    texts = [piece.get("text") for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []
    return "".join(text for text in texts if isinstance(text, str))
