"""A conversation as text: equal for equal conversations, however their JSON is spaced, ordered and escaped.

Content as Anthropic's Messages have it comes to the same: what a model thought and said is text, a tool's use and its
result are theirs, and marks of where a cache may end (`cache_control`), which clients move from turn to turn, are none.

The engines' prefix caches work on what the chat template makes of a request, so that is what is imitated: tools first,
then a system prompt, then the messages in order. `prefix` is the start of it, the key that keeps the requests of one
session together; `whole` is all of it, for the cache mirror, and grows at its end alone when a conversation goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from xxhash import xxh3_64_hexdigest

DEFAULT_PROMPT_CHARS: Final = 1024
"""How much of a prompt without messages counts as its beginning when nobody says: about 256 tokens."""

MEDIA_BYTES: Final = 1024
"""What an image or a piece of audio counts for, in bytes of text: 256 tokens, the low end of what is usual."""

_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode
_sorted = msgspec.json.Encoder(order="sorted").encode

_FRONT: Final = ("tools", "functions", "documents")
_HEAD: Final = ("system", "instructions")
_PROMPTS: Final = ("prompt", "input", "query", "text_1")
_CALLS: Final = ("tool_calls", "function_call")
_HELD_ELSEWHERE: Final = ("previous_response_id", "conversation")
_ANSWER: Final = "assistant\n"
_EMPTY: Final = (b"null", b"[]", b'""')

_LARGE: Final = 64 * 1024
"""Bytes of tools beyond which their text is made anew each time, so that the memory for it stays small."""

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError)
"""JSON that is well-formed and cannot be held, such as 1e999: engines may, so the request goes on without its text."""


class Whole(NamedTuple):
    """All that a request asks to be completed."""

    text: str
    opening: str | None
    """What stands between this text and the answer in the text of the next turn; None where no turn can follow."""
    history: int
    """Characters at its beginning that the turn before was asked with; 0 for a first turn."""


def prefix(values: Mapping[str, msgspec.Raw], turns: str, chars: int | None) -> bytes | None:
    """The start of a JSON body's text, at most `chars` characters of it, as UTF-8; None without any text.

    `turns` is the field that holds the conversation: its system prompt, then role and content of each message up to
    and including the user's first take part; a plain string is a user's message. Text parts count by their text, all
    other parts (images by URL or data, audio, files) by a hash of theirs. Tools stand in front as a hash that `chars`
    does not count: requests with other tools share no cache, and a list of them would otherwise be all that a short
    prefix sees. Without a conversation: the first prompt, by default 1,024 characters of it.
    """
    try:
        if turns in values:
            text = _take(_conversation(values, values[turns], whole=False), chars)
        else:
            text = _take(_prompts(values)[:1], chars or DEFAULT_PROMPT_CHARS)
        if not text:
            return None
        tools = values.get("tools")
        if tools is not None and bytes(tools) not in _EMPTY:
            text = f"tools:{xxh3_64_hexdigest(_front(tools).encode())}\n{text}"
    except _UNREADABLE:
        return None
    return text.encode()


def whole(values: Mapping[str, msgspec.Raw], turns: str) -> Whole | None:
    """The whole text of a JSON body; None without any, or where a part of the conversation is held by the endpoint.

    As `prefix`, but all messages take part, tools and documents by their JSON, and what is no text by as many bytes as
    an image is taken to cost, so that the text is about as long as what the engine computes. Several prompts in one
    request are one text: only the first can be found in a cache, and all have to be computed.
    """
    if turns == "input" and any(bytes(values.get(name, b"null")) != b"null" for name in _HELD_ELSEWHERE):
        return None
    history = 0
    try:
        parts: list[str] = []
        for name in _FRONT:
            front = values.get(name)
            if front is not None and bytes(front) not in _EMPTY:
                parts += (_front(front), "\n")
        if turns in values:
            parts += _conversation(values, values[turns], whole=True)
            opening: str | None = _ANSWER
            history = _last_answer(parts)
        else:
            parts += _prompts(values)
            is_text = bytes(memoryview(values.get("prompt", b""))[:1]) == b'"'
            opening = "" if is_text else None
    except _UNREADABLE:
        return None
    text = "".join(parts)
    return Whole(text, opening, history) if text else None


def _last_answer(parts: Sequence[str]) -> int:
    """Characters before the last answer in it: what the turn before was asked with. 0 when there is none."""
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == _ANSWER:
            return sum(map(len, parts[:at]))
    return 0


def _take(parts: Iterable[str], chars: int | None) -> str:
    """The parts joined, cut to `chars`; parts behind the cut are never made."""
    taken: list[str] = []
    left = chars
    for part in parts:
        if left is not None:
            part = part[:left]
            left -= len(part)
        taken.append(part)
        if left == 0:
            break
    return "".join(taken)


def _conversation(values: Mapping[str, msgspec.Raw], turns: msgspec.Raw, whole: bool) -> Iterator[str]:
    """System prompt and messages; not `whole`: up to the user's first."""
    for name in _HEAD:
        head = values.get(name)
        if head is not None and bytes(head) not in _EMPTY:
            yield "system\n"
            yield from _content(_any(head), whole)
            yield "\n"
    if bytes(turns) in _EMPTY:
        return
    for turn in _turns(turns, whole):
        if not isinstance(turn, dict):
            yield from _content(turn, whole)
            continue
        role = turn.get("role") or turn.get("type")
        yield f"{role if isinstance(role, str) else _json(role)}\n"
        if "content" in turn:
            yield from _content(turn["content"], whole)
        elif "role" not in turn:  # an item of /v1/responses that is no message: a function's call or output
            yield _other(turn, whole)
        for name in _CALLS:
            if turn.get(name):
                yield _other(turn[name], whole)
        yield "\n"
        if role == "user" and not whole:
            return


def _turns(turns: msgspec.Raw, whole: bool) -> Iterable[Any]:
    if bytes(memoryview(turns)[:1]) != b"[":
        return ({"role": "user", "content": _any(turns)},)
    if whole:
        return _any(turns)  # type: ignore[no-any-return]
    return map(_any, _items(turns))  # each when it is asked for: most are not


def _content(content: Any, whole: bool) -> Iterator[str]:
    """A message's content, or a system prompt: a string, or a list of parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
            elif isinstance(part, dict):
                yield from _block(part, whole)
            else:
                yield _media(_sorted(part), whole)
    elif content is not None:
        yield _media(_sorted(content), whole)


def _block(part: dict[str, Any], whole: bool) -> Iterator[str]:
    """A part of content that is no text: Anthropic's blocks, images and whatever else there is."""
    kind = part.get("type")
    if kind == "thinking" and isinstance(part.get("thinking"), str):
        yield part["thinking"]
    elif kind == "document" and isinstance(text := _source(part).get("data"), str) and _source(part)["type"] == "text":
        yield text
    elif kind == "tool_result":
        yield f"\ntool_result {part.get('tool_use_id')}\n"
        for inner in _listed(part.get("content")):
            text = inner.get("text") if isinstance(inner, dict) else inner
            yield text if isinstance(text, str) else _media(_sorted(_unmarked(inner)), whole)
    elif kind == "tool_use":
        yield "\n" + _other(_unmarked(part), whole)
    else:
        yield _media(_sorted(_unmarked(part)), whole)


def _source(part: dict[str, Any]) -> dict[str, Any]:
    """Of a document."""
    source = part.get("source")
    return source if isinstance(source, dict) and "type" in source else {}


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [] if content is None else [content]


def _unmarked(part: Any) -> Any:
    """Without what says where a cache may end."""
    return {key: value for key, value in part.items() if key != "cache_control"} if isinstance(part, dict) else part


def _prompts(values: Mapping[str, msgspec.Raw]) -> list[str]:
    """The prompts of a request without a conversation: strings as they are, token numbers as JSON without brackets."""
    for name in _PROMPTS:
        prompt = values.get(name)
        if prompt is None or bytes(prompt) in _EMPTY:
            continue
        given = _any(prompt)
        several = isinstance(given, list) and isinstance(given[0], str | list)
        return [each if isinstance(each, str) else _json(each).strip("[]") for each in (given if several else (given,))]
    return []


def _other(value: Any, whole: bool) -> str:
    """What the model reads as JSON, unless it holds data of an image or a file."""
    data = _sorted(value)
    return _media(data, whole) if b";base64," in data else data.decode()


def _media(data: bytes, whole: bool) -> str:
    """What is no text, as 16 hexadecimal digits that depend on all of it; in the whole text as long as it counts."""
    digest = xxh3_64_hexdigest(data)
    return digest * (MEDIA_BYTES // len(digest)) if whole else digest


def _json(value: Any) -> str:
    """A JSON value as text, whatever the order of its keys."""
    return _sorted(value).decode()


def _front(raw: msgspec.Raw) -> str:
    """The text of a list of tools. An agent sends the same ones with every request, and they are long."""
    data = bytes(raw)
    return _remembered(data) if len(data) <= _LARGE else _json(_any(data))


@lru_cache(maxsize=128)
def _remembered(data: bytes) -> str:
    return _json(_any(data))
