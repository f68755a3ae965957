"""The bytes of an answer as OpenAI's chat and completions APIs want them, whole or as server-sent events.

A shape makes the pieces of one answer; when they are sent is not its business. Streams follow vLLM: headers
go out at once, the role chunk comes with the first token, one event a token, a last event with the finish
reason, usage on request, `[DONE]`. Texts are ASCII words, so a piece is spliced into a template instead of
encoded.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from .timing import Sequence

encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """One answer in one API's form."""

    def greeting(self) -> bytes:
        """What a stream begins with, before there is a token."""

    def opening(self) -> bytes:
        """What precedes the first token."""

    def piece(self, text: str) -> bytes:
        """The event of one token."""

    def closing(self, sequence: Sequence) -> bytes:
        """What follows the last token."""

    def error(self, message: str, code: int) -> bytes:
        """An error inside the stream, and its end."""

    def whole(self, sequence: Sequence) -> bytes:
        """The answer to a request that does not stream."""


def usage(sequence: Sequence) -> dict[str, Any]:
    return {
        "prompt_tokens": sequence.prompt_tokens,
        "total_tokens": sequence.prompt_tokens + sequence.output_tokens,
        "completion_tokens": sequence.output_tokens,
        "prompt_tokens_details": {"cached_tokens": sequence.cached_tokens},
    }


def event(data: Any) -> bytes:
    return b"data: " + encode(data) + b"\n\n"


class _OpenAI:
    """What chat and completions have in common."""

    stream_object: str
    whole_object: str

    def __init__(self, id: str, created: int, model: str, text: str, reason: str, include_usage: bool) -> None:
        self._head = {"id": id, "object": self.stream_object, "created": created, "model": model}
        self._text = text
        self._reason = reason
        self._include_usage = include_usage
        before, after = event(self._head | {"choices": [self.choice("\0", None)]}).split(b"\\u0000")
        self._before, self._after = before, after

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        raise NotImplementedError

    def message(self) -> dict[str, Any]:
        raise NotImplementedError

    def greeting(self) -> bytes:
        return b""

    def opening(self) -> bytes:
        return b""

    def piece(self, text: str) -> bytes:
        return self._before + text.encode("ascii") + self._after

    def closing(self, sequence: Sequence) -> bytes:
        last = event(self._head | {"choices": [self.choice("", self._reason) | {"stop_reason": None}]})
        if self._include_usage:
            last += event(self._head | {"choices": [], "usage": usage(sequence)})
        return last + DONE

    def error(self, message: str, code: int) -> bytes:
        error = {"message": message, "type": "InternalServerError", "param": None, "code": code}
        return event({"error": error}) + DONE

    def whole(self, sequence: Sequence) -> bytes:
        choice = {"index": 0, "logprobs": None, "finish_reason": self._reason, "stop_reason": None}
        answer = self._head | {
            "object": self.whole_object,
            "choices": [choice | self.message()],
            "usage": usage(sequence),
        }
        return encode(answer)


class ChatShape(_OpenAI):
    stream_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}

    def opening(self) -> bytes:
        role = {"role": "assistant", "content": ""}
        return event(self._head | {"choices": [self.choice("", None) | {"delta": role}]})

    def message(self) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": self._text, "refusal": None, "tool_calls": []}}


class CompletionShape(_OpenAI):
    stream_object = whole_object = "text_completion"

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def message(self) -> dict[str, Any]:
        return {"text": self._text}
