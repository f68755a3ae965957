"""Anthropic's wire format, as far as this balancer speaks it itself: its own errors, which models there are, and an
answer that was not streamed as the stream that it would have been.

https://docs.claude.com/en/api/errors, …/api/models-list and …/docs/build-with-claude/streaming. Beside their fields an
error has OpenAI's `code` and `param` and the list of attempts: SDKs hand out the body as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from ..core.errors import SpillwayError

VERSION: Final = "anthropic-version"
"""The header by which clients of this API are known where a path alone does not tell."""

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_encode = msgspec.json.encode


def error_type(status: int) -> str:
    """What this API calls an error of this status."""
    return _TYPES.get(status) or ("invalid_request_error" if 400 <= status < 500 else "api_error")


def error_body(error: SpillwayError) -> bytes:
    return _encode({"type": "error", "error": _error(error)})


def error_event(error: SpillwayError) -> bytes:
    """An error as the last event of a stream that has begun; a Retry-After stands beside the message, in seconds."""
    body = _error(error)
    if error.retry_after is not None:
        body["retry_after"] = round(error.retry_after, 3)
    return b"event: error\ndata: %b\n\n" % _encode({"type": "error", "error": body})


def models_list(names: Iterable[str], created: int) -> bytes:
    """Body of `GET /v1/models`: all of them on one page. `created` is Unix time in seconds."""
    models = [_model(name, created) for name in names]
    first, last = (models[0]["id"], models[-1]["id"]) if models else (None, None)
    return _encode({"data": models, "has_more": False, "first_id": first, "last_id": last})


def model_object(name: str, created: int) -> bytes:
    """Body of `GET /v1/models/{name}`."""
    return _encode(_model(name, created))


def _model(name: str, created: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": at}


def as_stream(message: dict[str, Any]) -> bytes:
    """A whole message as events. Nothing is lost of it: what has no deltas stands in the event that begins it."""
    content = message.get("content")
    events = [_event("message_start", message={**message, "content": [], "stop_reason": None})]
    for index, block in enumerate(content if isinstance(content, list) else ()):
        begun, deltas = _divided(block) if isinstance(block, dict) else (block, [])
        events.append(_event("content_block_start", index=index, content_block=begun))
        events += (_event("content_block_delta", index=index, delta=delta) for delta in deltas)
        events.append(_event("content_block_stop", index=index))
    delta = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    events.append(_event("message_delta", delta=delta, usage=message.get("usage") or {}))
    return b"".join((*events, _event("message_stop")))


def _divided(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block begins in a stream, and what follows of it."""
    match block.get("type"):
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": block.get("text", "")}]
        case "thinking":
            begun = {**block, "thinking": "", "signature": ""}
            thought: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": block.get("thinking", "")}]
            return begun, [*thought, {"type": "signature_delta", "signature": block.get("signature", "")}]
        case "tool_use":
            arguments = _encode(block.get("input", {})).decode()
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
        case _:
            return block, []


def _event(kind: str, **said: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **said}))


def _error(error: SpillwayError) -> dict[str, Any]:
    body: dict[str, Any] = {"type": error_type(error.status), "message": error.message, "code": error.code}
    if error.param is not None:
        body["param"] = error.param
    if error.attempts:
        body["attempts"] = error.attempts
    return body
