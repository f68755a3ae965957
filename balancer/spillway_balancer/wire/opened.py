"""An answer that is no event stream, said as events: for a client whose answer was begun by comments, as a stream.

The status of such an answer is sent long since, so whatever comes of the request has to be an event.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..core.errors import SpillwayError
from .anthropic import as_stream, error_type
from .paths import Path
from .replies import error_event

_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class NoStream(SpillwayError):
    """The endpoint's answer cannot be put into an event stream."""

    status = 502
    code = "no_event_stream"
    blame = "endpoint"


def as_events(status: int, body: bytes, path: Path) -> bytes:
    """The events that say what a whole answer says: an endpoint's own error, or a completion that was not streamed.

    A body that is no JSON object becomes an error of ours.
    """
    try:
        value = _any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return error_event(NoStream("the endpoint's answer is no event stream"), path)
    if status >= 400:
        return _error(value, path, status)
    if path.messages:
        return as_stream(value)
    if path.stream_end == "responses-event":
        return _typed("response.completed", {"sequence_number": 0, "response": value})
    done = b"data: [DONE]\n\n" if path.stream_end == "done-sentinel" else b""
    return b"data: %b\n\n" % _encode(value) + done


def _error(value: dict[str, Any], path: Path, status: int) -> bytes:
    error = value.get("error", value)
    if path.messages:
        known = error if isinstance(error, dict) else {"type": error_type(status), "message": error}
        return _typed("error", {"error": known})
    if path.stream_end != "responses-event":
        return b"data: %b\n\n" % _encode({"error": error})
    flat = error if isinstance(error, dict) else {"message": error}
    told = {name: flat.get(name) for name in ("code", "message", "param")}
    return _typed("error", {**told, "sequence_number": 0, "error": error})


def _typed(kind: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **value}))
