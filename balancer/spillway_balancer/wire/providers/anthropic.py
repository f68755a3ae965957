"""Anthropic, where a session comes that was somewhere else before: thoughts that it did not have are left out.

A session of /v1/messages goes on where it is cheapest, and what other servers thought in it stands in it as Anthropic's
own thoughts do. Its models take a thought with their own signature alone, and those that think within a budget refuse
to think on in a loop of tools that began without a thought. Everything else goes as it came.

https://platform.claude.com/docs/en/build-with-claude/extended-thinking
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..peeked import Edit, Peeked
from ..translation.claude import called, sealed, signed

_OFF: Final = b'{"type":"disabled"}'


class _Typed(msgspec.Struct):
    type: str | None = None


class _Block(msgspec.Struct):
    type: str | None = None
    id: str | None = None
    signature: str | None = None
    data: str | None = None

    @property
    def foreign(self) -> bool:
        if self.type == "redacted_thinking":
            return not sealed(self.data)
        return self.type == "thinking" and not signed(self.signature)


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[_Block] | None = None

    @property
    def blocks(self) -> list[_Block]:
        return self.content if isinstance(self.content, list) else []


class _Written(msgspec.Struct):
    content: msgspec.Raw


_messages = msgspec.json.Decoder(list[_Message]).decode
_written = msgspec.json.Decoder(_Written).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_typed = msgspec.json.Decoder(_Typed).decode


def own_thoughts(peeked: Peeked) -> tuple[Edit, ...]:
    """What to change in a body so that Anthropic goes on with the session; nothing in one that was always there. A body
    that is not as it has to be is left to Anthropic to refuse."""
    values = peeked.values()
    raw, thinking = values.get("messages"), values.get("thinking")
    if raw is None:
        return ()
    try:
        budgeted = thinking is not None and _typed(thinking).type == "enabled"
        if not budgeted and bytes(raw).find(b'thinking"') < 0:
            return ()
        messages = _messages(raw)
    except msgspec.DecodeError:
        return ()
    edits: list[Edit] = []
    if any(block.foreign for message in messages for block in message.blocks):
        _, start, end = peeked.spans()["messages"]
        edits.append((start, end, _without_foreign(messages, _raws(raw))))
    if budgeted and _thoughtless(messages):
        _, start, end = peeked.spans()["thinking"]
        edits.append((start, end, _OFF))
    return tuple(edits)


def _without_foreign(messages: Sequence[_Message], written: Sequence[msgspec.Raw]) -> bytes:
    """A message of nothing else is left out with its thoughts: the turns around it are read as one."""
    kept: list[bytes] = []
    for message, raw in zip(messages, written, strict=True):
        blocks = message.blocks
        if not any(block.foreign for block in blocks):
            kept.append(bytes(raw))
            continue
        content = _written(raw).content
        own = [bytes(one) for one, block in zip(_raws(content), blocks, strict=True) if not block.foreign]
        if own:
            kept.append(bytes(raw).replace(bytes(content), b"[%b]" % b",".join(own), 1))
    return b"[%b]" % b",".join(kept)


def _thoughtless(messages: Sequence[_Message]) -> bool:
    """Whether the loop of tools that the conversation ends with began without a thought of Anthropic's, or was gone on
    with elsewhere: its last call is another model's, or has lost its thought."""
    first: list[_Block] | None = None
    for message in reversed(messages):
        types = {block.type for block in message.blocks}
        if message.role == "assistant" and "tool_use" in types:
            own = [block for block in message.blocks if not block.foreign]
            made = all(called(block.id or "") for block in own if block.type == "tool_use")
            if first is None and not (made and len(own) == len(message.blocks)) and not _thinks(own):
                return True
            first = own
        elif message.role != "user" or "tool_result" not in types:
            break
    return first is not None and not _thinks(first)


def _thinks(blocks: Sequence[_Block]) -> bool:
    return bool(blocks) and blocks[0].type in ("thinking", "redacted_thinking")
