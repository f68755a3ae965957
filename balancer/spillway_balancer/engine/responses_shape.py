"""The bytes of an answer as OpenAI's Responses API wants them: one object, or the events that build it up.

As vLLM does it, the last event is `response.completed` also when the status inside is `incomplete` because
the answer has reached `max_output_tokens`; OpenAI says `response.incomplete` then.
"""

from __future__ import annotations

from typing import Any

from .requests import ResponsesBody
from .shapes import encode
from .timing import Sequence


class ResponsesShape:
    def __init__(self, id: str, created: int, asked: ResponsesBody, text: str, cut_short: bool) -> None:
        self._id = id
        self._item_id = "msg_" + id.removeprefix("resp_")
        self._created = created
        self._asked = asked
        self._text = text
        self._ending = "incomplete" if cut_short else "completed"
        self._number = -1

    def greeting(self) -> bytes:
        response = self._response("in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def opening(self) -> bytes:
        added = self._event("response.output_item.added", output_index=0, item=self._item("in_progress", None))
        return added + self._at("response.content_part.added", part=_part(""))

    def piece(self, text: str) -> bytes:
        return self._at("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, sequence: Sequence) -> bytes:
        item = self._item(self._ending, self._text)
        return b"".join(
            (
                self._at("response.output_text.done", text=self._text, logprobs=[]),
                self._at("response.content_part.done", part=_part(self._text)),
                self._event("response.output_item.done", output_index=0, item=item),
                self._event("response.completed", response=self._response(self._ending, sequence)),
            )
        )

    def error(self, message: str, code: int) -> bytes:
        return self._event("error", code=str(code), message=message, param=None)

    def whole(self, sequence: Sequence) -> bytes:
        return encode(self._response(self._ending, sequence))

    def _event(self, type: str, **fields: Any) -> bytes:
        self._number += 1
        data = encode({"type": type, "sequence_number": self._number} | fields)
        return b"event: %s\ndata: %s\n\n" % (type.encode(), data)

    def _at(self, type: str, **fields: Any) -> bytes:
        return self._event(type, item_id=self._item_id, output_index=0, content_index=0, **fields)

    def _item(self, status: str, text: str | None) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [] if text is None else [_part(text)],
        }

    def _response(self, status: str, sequence: Sequence | None) -> dict[str, Any]:
        asked = self._asked
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "output": [] if sequence is None else [self._item(status, self._text)],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": asked.tools or [],
            "top_p": 1.0,
            "usage": None if sequence is None else _usage(sequence),
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(sequence: Sequence) -> dict[str, Any]:
    return {
        "input_tokens": sequence.prompt_tokens,
        "input_tokens_details": {"cached_tokens": sequence.cached_tokens},
        "output_tokens": sequence.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sequence.prompt_tokens + sequence.output_tokens,
    }
