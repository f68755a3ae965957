"""The start of a conversation as text: equal for equal conversations, however their JSON is spaced and ordered.

The engines' prefix caches work on what the chat template makes of a request, so that is what is imitated: a system
prompt and tools first, then the messages in order. Used to keep requests with a common beginning on one endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_hexdigest

DEFAULT_PROMPT_CHARS: Final = 1024
"""How much of a prompt without messages counts as its beginning when nobody says: about 256 tokens."""

_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode
_sorted = msgspec.json.Encoder(order="sorted").encode

_HEAD: Final = ("system", "instructions")
_PROMPTS: Final = ("prompt", "input", "query", "text_1")
_EMPTY: Final = (b"null", b"[]", b'""')


def prefix(values: Mapping[str, msgspec.Raw], turns: str, chars: int | None) -> bytes | None:
    """Canonical text of a JSON body's top level, at most `chars` characters of it, as UTF-8; None without any text.

    `turns` is the field that holds the conversation: its system prompt, then role and content of each message up to
    and including the user's first take part; a plain string is a user's message. Text parts count by their text, all
    other parts (images by URL or data, audio, files) and tool calls by a hash of theirs. Tools stand in front as a
    hash that `chars` does not count: requests with other tools share no cache, and a list of them would otherwise be
    all that a short prefix sees. Without a conversation: the first prompt, by default 1,024 characters of it.
    """
    if turns in values:
        text = _take(_conversation(values, values[turns]), chars)
    else:
        text = _take(_prompt(values), chars or DEFAULT_PROMPT_CHARS)
    if not text:
        return None
    tools = values.get("tools")
    if tools is not None and bytes(tools) not in _EMPTY:
        text = f"tools:{_digest(_any(tools))}\n{text}"
    return text.encode()


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


def _conversation(values: Mapping[str, msgspec.Raw], turns: msgspec.Raw) -> Iterator[str]:
    for name in _HEAD:
        head = values.get(name)
        if head is not None and bytes(head) not in _EMPTY:
            yield "system\n"
            yield from _content(_any(head))
            yield "\n"
    try:
        items = _items(turns)
    except msgspec.ValidationError:  # not a list
        if bytes(turns) not in _EMPTY:
            yield "user\n"
            yield from _content(_any(turns))
        return
    for item in items:
        turn = _any(item)
        if not isinstance(turn, dict):
            yield from _content(turn)
            continue
        role = turn.get("role") or turn.get("type")
        yield f"{role}\n"
        if "content" in turn:
            yield from _content(turn["content"])
        elif "role" not in turn:  # an item of /v1/responses that is no message: a function's output, a reference
            yield _digest(turn)
        if turn.get("tool_calls"):
            yield _digest(turn["tool_calls"])
        yield "\n"
        if role == "user":
            return


def _content(content: Any) -> Iterator[str]:
    """A message's content, or a system prompt: a string, or a list of parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            yield text if isinstance(text, str) else _digest(part)
    elif content is not None:
        yield _digest(content)


def _prompt(values: Mapping[str, msgspec.Raw]) -> Iterator[str]:
    """The first prompt: a string, the first of a list of strings, or token numbers as JSON."""
    for name in _PROMPTS:
        prompt = values.get(name)
        if prompt is None or bytes(prompt) in _EMPTY:
            continue
        text = _any(prompt)
        if isinstance(text, list) and isinstance(text[0], str | list):
            text = text[0]
        yield text if isinstance(text, str) else _sorted(text).decode()
        return


def _digest(value: Any) -> str:
    """16 hexadecimal digits of a JSON value, whatever the order of its keys."""
    return xxh3_64_hexdigest(_sorted(value))
