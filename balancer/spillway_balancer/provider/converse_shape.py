"""Answers of Amazon Bedrock's Converse: whole, or as events of its binary stream (ConverseStreamOutput).

Input tokens leave out what was read from the cache and what was written to it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from . import eventstream, refusals
from .frames import Frame, Serving
from .refusals import Refusal
from .replies import Block, Call, Said, Thought, pieces, tokens
from .signatures import sign

_ENDS: Final = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "sequence": "stop_sequence"}
_EXCEPTIONS: Final = {
    "rate-limited": "throttlingException",
    "quota-exhausted": "throttlingException",
    "invalid": "validationException",
    "overloaded": "serviceUnavailableException",
    "unavailable": "serviceUnavailableException",
    "timeout": "modelStreamErrorException",
}


class ConverseShape:
    media = "application/vnd.amazon.eventstream"

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def stream(self) -> list[Frame]:
        reply = self._serving.reply
        frames = [Frame(_event("messageStart", {"role": "assistant"}))]
        for at, block in enumerate(reply.blocks):
            here = {"contentBlockIndex": at}
            if isinstance(block, Call):  # only calls have a start
                start = {"toolUse": {"toolUseId": f"tooluse_{block.id}", "name": block.name}}
                begun = _event("contentBlockStart", {"start": start} | here)
                frames.append(Frame(begun, tokens(block.name), content=True))
            frames.extend(
                Frame(_event("contentBlockDelta", {"delta": delta} | here), worth, content=True)
                for delta, worth in _deltas(block)
            )
            frames.append(Frame(_event("contentBlockStop", here)))
        frames.append(Frame(_event("messageStop", {"stopReason": _ENDS[reply.end]})))
        frames.append(Frame(_event("metadata", {"usage": self._usage(), "metrics": {"latencyMs": 1}}), told=True))
        return frames

    def whole(self) -> bytes:
        reply = self._serving.reply
        message = {"role": "assistant", "content": [_block(block) for block in reply.blocks]}
        answer = {"output": {"message": message}, "stopReason": _ENDS[reply.end]}
        return msgspec.json.encode(answer | {"usage": self._usage(), "metrics": {"latencyMs": 1}})

    def _usage(self) -> dict[str, Any]:
        counted = self._serving.counted
        written = counted.written + counted.written_1h
        usage: dict[str, Any] = {
            "inputTokens": counted.fresh,
            "outputTokens": counted.output,
            "totalTokens": counted.prompt + counted.output,
            "cacheReadInputTokens": counted.cached,
            "cacheWriteInputTokens": written,
        }
        details = [("5m", counted.written), ("1h", counted.written_1h)]
        if written:
            usage["cacheDetails"] = [{"ttl": ttl, "inputTokens": many} for ttl, many in details if many]
        return usage

    def error(self, refusal: Refusal) -> bytes:
        body = refusals.amazon(refusal, self._serving.id).body
        return eventstream.exception(_EXCEPTIONS.get(refusal.kind, "internalServerException"), body)

    def ping(self) -> bytes:
        """Nothing: Bedrock has no signs of life."""
        return b""

    def broken(self, frame: bytes) -> bytes:
        return eventstream.spoiled(frame)


def _event(type: str, payload: dict[str, Any]) -> bytes:
    """With the padding that hides how long the tokens are."""
    return eventstream.event(type, msgspec.json.encode(payload | {"p": "abcdefghij"}))


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Said):
        return {"text": block.text}
    if isinstance(block, Thought):
        return {"reasoningContent": {"reasoningText": {"text": block.text, "signature": sign(block.text)}}}
    called = {"toolUseId": f"tooluse_{block.id}", "name": block.name, "input": msgspec.json.decode(block.arguments)}
    return {"toolUse": called}


def _deltas(block: Block) -> list[tuple[dict[str, Any], int]]:
    if isinstance(block, Said):
        return [({"text": each}, tokens(each)) for each in pieces(block.text)]
    if isinstance(block, Thought):
        said = [({"reasoningContent": {"text": each}}, tokens(each)) for each in pieces(block.text)]
        signed: list[tuple[dict[str, Any], int]] = [({"reasoningContent": {"signature": sign(block.text)}}, 0)]
        return [*said, *signed]
    return [({"toolUse": {"input": each}}, tokens(each)) for each in pieces(block.arguments)]
