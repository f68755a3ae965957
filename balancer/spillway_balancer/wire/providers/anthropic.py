"""Anthropic, where a session comes that was somewhere else before: thoughts that it did not have are left out.

A session of /v1/messages goes on where it is cheapest, and what other servers thought in it stands in it as Anthropic's
own thoughts do. Its models take a thought with their own signature alone, and those that think within a budget refuse
to think on in a loop of tools that began without a thought. Everything else goes as it came.

https://platform.claude.com/docs/en/build-with-claude/extended-thinking
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ..peeked import Edit, Peeked
from ..translation.claude import signed

_OFF: Final = b'{"type":"disabled"}'


class _Typed(msgspec.Struct):
    type: str | None = None


class _Block(msgspec.Struct):
    type: str | None = None
    signature: str | None = None

    @property
    def foreign(self) -> bool:
        return self.type == "thinking" and not signed(self.signature)


class _Message(msgspec.Struct):
    role: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"null")


_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode
_message = msgspec.json.Decoder(_Message).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_blocks = msgspec.json.Decoder(list[_Block]).decode
_typed = msgspec.json.Decoder(_Typed).decode


def own_thoughts(peeked: Peeked) -> tuple[Edit, ...]:
    """What to change in a body so that Anthropic goes on with the session; nothing in one that was always there. A body
    that is not as it has to be is left to Anthropic to refuse."""
    values = peeked.values()
    raw, thinking = values.get("messages"), values.get("thinking")
    if raw is None:
        return ()
    try:
        messages = _messages(raw)
        edits = tuple(_without_foreign(peeked, messages) if b'"thinking"' in bytes(raw) else ())
        if thinking is not None and _typed(thinking).type == "enabled" and _thoughtless(messages):
            _, start, end = peeked.spans()["thinking"]
            edits += ((start, end, _OFF),)
    except msgspec.DecodeError:
        return ()
    return edits


def _without_foreign(peeked: Peeked, messages: Sequence[msgspec.Raw]) -> Iterator[Edit]:
    """A message of nothing else is left out with its thoughts: the turns around it are read as one."""
    kept: list[bytes] = []
    changed = False
    for each in messages:
        raw = bytes(each)
        content = _message(raw).content if b'"thinking"' in raw else msgspec.Raw(b"")
        if not bytes(content).startswith(b"["):
            kept.append(raw)
            continue
        blocks = _raws(content)
        own = [bytes(one) for one, block in zip(blocks, _blocks(content), strict=True) if not block.foreign]
        if len(own) == len(blocks):
            kept.append(raw)
            continue
        changed = True
        if own:
            kept.append(raw.replace(bytes(content), b"[%b]" % b",".join(own), 1))
    if changed:
        _, start, end = peeked.spans()["messages"]
        yield start, end, b"[%b]" % b",".join(kept)


def _thoughtless(messages: Sequence[msgspec.Raw]) -> bool:
    """Whether the loop of tools that the conversation ends with began without a thought of Anthropic's, or was gone on
    with elsewhere: its last call of a tool has lost its thought."""
    first: list[_Block] | None = None
    for raw in reversed(messages):
        message = _message(raw)
        if not bytes(message.content).startswith(b"["):
            break
        blocks = _blocks(message.content)
        types = {block.type for block in blocks}
        if message.role == "assistant" and "tool_use" in types:
            own = [block for block in blocks if not block.foreign]
            if first is None and len(own) < len(blocks) and not _thinks(own):
                return True
            first = own
        elif message.role != "user" or "tool_result" not in types:
            break
    return first is not None and not _thinks(first)


def _thinks(blocks: Sequence[_Block]) -> bool:
    return bool(blocks) and blocks[0].type in ("thinking", "redacted_thinking")
