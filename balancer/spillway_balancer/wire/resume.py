"""A stream that was cut, and goes on from another engine: what the client has of it, what to ask for, how to join it.

Engines go on where a message ends when the last one is the assistant's and `continue_final_message` is set (vLLM, which
wants `add_generation_prompt` false beside it, and SGLang). The result is exact in form, and nothing is claimed of its
words: a model that samples might have gone on otherwise on the first engine, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .paths import Path

MAX_TEXT: Final = 1 << 20
"""Characters of an answer that is kept to be gone on with."""

MAX_EVENT: Final = 1 << 20
"""Bytes of an event that is looked into. A stream with a longer one is not gone on with."""

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")

_PLAIN: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "stop_token_ids",
        "logit_bias",
        "ignore_eos",
        "skip_special_tokens",
        "cache_salt",
        "priority",
        "chat_template_kwargs",
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "response_format",
    }
)
"""Fields that mean the same for the rest of an answer as for all of it. With any other none is gone on with."""

_HEAD: Final = ("id", "created", "model", "system_fingerprint", "service_tier")

_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def may_go_on(path: Path, values: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the answer to such a request can be gone on with: one choice of plain text, and nothing beside."""
    if path.path != "/v1/chat/completions":
        return False
    try:
        for name, raw in values.items():
            if name in ("messages", "model", "stream"):
                continue
            value = _any(raw)
            if value is None or value is False:
                continue
            if name not in _PLAIN:
                return False
            if name == "n" and value != 1:
                return False
            if name == "stream_options" and set(value) - {"include_usage"}:
                return False
            if name == "response_format" and value != {"type": "text"}:
                return False
        messages = _list(values["messages"])
        last = _any(messages[-1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError):
        return False
    return isinstance(last, dict) and last.get("role") not in (None, "assistant")


def body_to_go_on(body: bytes, said: str, tokens: int) -> bytes | None:
    """The request that asks for the rest of an answer of which this was said; None where nothing may follow.

    `tokens` is how many of them that took; the limits of the answer are lowered by it. White space at the end of what
    was said is left out: many templates strip it, and the engine then says it again (`Splice` takes it out).
    """
    values = _object(body)
    sent = said.rstrip()
    if sent:
        message = _encode({"role": "assistant", "content": sent})
        values["messages"] = msgspec.Raw(_encode([*_list(values["messages"]), msgspec.Raw(message)]))
        values["continue_final_message"] = msgspec.Raw(b"true")
        values["add_generation_prompt"] = msgspec.Raw(b"false")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = _any(values[name]) if name in values else None
        if isinstance(limit, int):
            if limit <= tokens:
                return None
            values[name] = msgspec.Raw(_encode(limit - tokens))
    return _encode(values)


class _Events:
    """Cuts bytes into whole events, however reads divide them."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def cut(self, data: bytes) -> list[bytes]:
        data = self._tail + data
        events = []
        begin = 0
        for found in _EVENT_END.finditer(data):
            events.append(data[begin : found.end()])
            begin = found.end()
        self._tail = data[begin:]
        return events

    @property
    def held(self) -> int:
        return len(self._tail)


class Transcript:
    """What a client has been sent of one chat completion. `feed` it all that is."""

    __slots__ = ("_events", "_left", "_text", "head", "sound", "tokens")

    def __init__(self) -> None:
        self._events = _Events()
        self._text: list[str] = []
        self._left = MAX_TEXT
        self.head: dict[str, Any] = {}
        """What every chunk of it carries."""
        self.tokens = 0
        """That were said, at least: engines send one or more with each chunk."""
        self.sound = True
        """Whether it is plain text of one choice, and has not ended."""

    @property
    def text(self) -> str:
        return "".join(self._text)

    def feed(self, data: bytes) -> None:
        if not self.sound:
            return
        for event in self._events.cut(data):
            self.note(_chunk(event))
        if self._events.held > MAX_EVENT:
            self.sound = False

    def note(self, chunk: dict[str, Any] | str | None) -> None:
        """One event, parsed."""
        if chunk is None or not self.sound:
            return
        text = _plain(chunk)
        if text is None:
            self.sound = False
            return
        assert isinstance(chunk, dict)
        self.head = self.head or {name: chunk[name] for name in _HEAD if name in chunk}
        if text:
            self.tokens += 1
            self._left -= len(text)
            self._text.append(text)
            self.sound = self._left >= 0


class Splice:
    """The rest of a stream, as the client is to have it: under the head of the first part, with nothing twice.

    What an engine says of its usage is left out, for it counts the first part as a prompt. The result depends on the
    bytes alone, not on how reads divide them.
    """

    __slots__ = ("_events", "_said_already", "_transcript")

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._events = _Events()
        text = transcript.text
        self._said_already = text[len(text.rstrip()) :]

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; returns what may be sent on, perhaps nothing."""
        return b"".join(map(self._join, self._events.cut(data)))

    def _join(self, event: bytes) -> bytes:
        chunk = _chunk(event)
        if not isinstance(chunk, dict) or "choices" not in chunk:  # a comment, an error, or the end
            self._transcript.note(chunk)
            return event
        chunk.pop("usage", None)
        choices = chunk["choices"]
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return b""
        delta = choice.get("delta")
        if isinstance(delta, dict):
            delta.pop("role", None)
            if isinstance(delta.get("content"), str):
                delta["content"] = self._fresh(delta["content"])
        if not choice.get("finish_reason") and not (isinstance(delta, dict) and any(delta.values())):
            return b""
        self._transcript.note(chunk)
        chunk.update(self._transcript.head)
        return b"data: %b\n\n" % _encode(chunk)

    def _fresh(self, text: str) -> str:
        """Without the white space that was said already, and that the engine was not told of."""
        already = self._said_already
        if not already or not text:
            return text
        if already.startswith(text):
            self._said_already = already[len(text) :]
            return ""
        self._said_already = ""
        return text.removeprefix(already)


def _chunk(event: bytes) -> dict[str, Any] | str | None:
    """The data of an event: an object, or a text for what is none; None for an event without data."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    if not lines:
        return None
    try:
        value = _any(b"\n".join(lines))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "no object"
    return value if isinstance(value, dict) else "no object"


def _plain(chunk: dict[str, Any] | str) -> str | None:
    """The text of a chunk that has nothing but text of one choice, which goes on; else None."""
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(chunk, dict) or chunk.get("usage"):
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("index", 0) != 0:
        return None
    if choice.get("finish_reason") or choice.get("logprobs"):
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict) or any(value for name, value in delta.items() if name not in ("role", "content")):
        return None
    content = delta.get("content")
    if content is None:
        return ""
    return content if isinstance(content, str) else None
