"""Answers of Anthropic's Messages API, whole or as its named events ("Streaming Messages").

Input tokens leave out what was read from the cache and what was written to it; `message_start` tells them, and
`message_delta` the output so far, which at the end is all of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from . import refusals
from .frames import Frame, Serving, event
from .refusals import Refusal
from .replies import Block, Call, Said, Thought, pieces, size, tokens
from .signatures import sign

_ENDS: Final = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "sequence": "stop_sequence"}


class MessagesShape:
    media = "text/event-stream; charset=utf-8"

    def __init__(self, serving: Serving, hidden: bool = False) -> None:
        self._serving = serving
        self._hidden = hidden
        self._id = "msg_" + serving.id.removeprefix("req_")

    def stream(self) -> list[Frame]:
        serving = self._serving
        message = self._message([], None, None, self._usage(min(1, serving.counted.output)))
        frames = [Frame(_event("message_start", message=message))]
        for at, block in enumerate(serving.reply.blocks):
            opening = self._block(block, empty=True)
            begun = _event("content_block_start", index=at, content_block=opening)
            named = isinstance(block, Call)  # a call is content as soon as it has its name
            frames.append(Frame(begun, tokens(block.name) if isinstance(block, Call) else 0, content=named))
            if at == 0:
                frames.append(Frame(self.ping()))
            frames.extend(
                Frame(_event("content_block_delta", index=at, delta=delta), worth, content=True)
                for delta, worth in self._deltas(block)
            )
            frames.append(Frame(_event("content_block_stop", index=at)))
        end = {"stop_reason": _ENDS[serving.reply.end], "stop_sequence": serving.reply.sequence}
        usage = self._usage(serving.counted.output)
        frames.append(Frame(_event("message_delta", delta=end, usage=usage), told=True))
        frames.append(Frame(_event("message_stop")))
        return frames

    def whole(self) -> bytes:
        reply = self._serving.reply
        content = [self._block(block, empty=False) for block in reply.blocks]
        usage = self._usage(self._serving.counted.output)
        return msgspec.json.encode(self._message(content, _ENDS[reply.end], reply.sequence, usage))

    def _message(self, content: list[Any], end: str | None, sequence: str | None, usage: Any) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._serving.model,
            "content": content,
            "stop_reason": end,
            "stop_sequence": sequence,
            "usage": usage,
        }

    def _block(self, block: Block, empty: bool) -> dict[str, Any]:
        if isinstance(block, Said):
            return {"type": "text", "text": "" if empty else block.text}
        if isinstance(block, Thought):
            shown = "" if empty or self._hidden else block.text
            return {"type": "thinking", "thinking": shown, "signature": "" if empty else sign(block.text)}
        arguments = {} if empty else msgspec.json.decode(block.arguments)
        return {"type": "tool_use", "id": f"toolu_{block.id}", "name": block.name, "input": arguments}

    def _deltas(self, block: Block) -> list[tuple[dict[str, Any], int]]:
        if isinstance(block, Said):
            return [({"type": "text_delta", "text": each}, tokens(each)) for each in pieces(block.text)]
        if isinstance(block, Thought):
            signed = {"type": "signature_delta", "signature": sign(block.text)}
            if self._hidden:
                return [(signed, size(block))]
            said = [({"type": "thinking_delta", "thinking": each}, tokens(each)) for each in pieces(block.text)]
            return [*said, (signed, 0)]
        return _arguments(block)

    def _usage(self, output: int) -> dict[str, Any]:
        counted = self._serving.counted
        return {
            "input_tokens": counted.fresh,
            "cache_creation_input_tokens": counted.written + counted.written_1h,
            "cache_read_input_tokens": counted.cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": counted.written,
                "ephemeral_1h_input_tokens": counted.written_1h,
            },
            "output_tokens": output,
            "service_tier": "standard",
        }

    def error(self, refusal: Refusal) -> bytes:
        return b"event: error\ndata: " + refusals.anthropic(refusal, self._serving.id).body + b"\n\n"

    def ping(self) -> bytes:
        return _event("ping")

    def broken(self, frame: bytes) -> bytes:
        return frame[: len(frame) * 2 // 3] + b"\n\n"


def _arguments(block: Call) -> list[tuple[dict[str, Any], int]]:
    """Their JSON in pieces, after an empty one."""
    found: list[tuple[dict[str, Any], int]] = [({"type": "input_json_delta", "partial_json": ""}, 0)]
    found.extend(({"type": "input_json_delta", "partial_json": each}, tokens(each)) for each in pieces(block.arguments))
    return found


def _event(type: str, **fields: Any) -> bytes:
    return event({"type": type} | fields, type)
