"""The paths that are served by pass-through on `model`, and what each needs: one table, so that grep finds them all."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

BodyKind = Literal["json", "multipart"]
StreamEnd = Literal["done-sentinel", "responses-event", "message-stop", "message-end"]

MESSAGES: Final = "/v1/messages"


class Path(NamedTuple):
    """A POST path: what body it takes, and how its event stream says that it is complete.

    `stream_end`: "done-sentinel" is the event `data: [DONE]`; "responses-event" is `response.completed`, `.failed` or
    `.incomplete`; "message-stop" is Anthropic's event of that name; "message-end" has no terminator of its own, the end
    of the HTTP message is the end.
    """

    path: str
    body: BodyKind
    stream_end: StreamEnd

    @property
    def generates(self) -> bool:
        """Whether text is generated from a prompt, whose prefix an engine may have cached."""
        return self.stream_end != "message-end"

    @property
    def messages(self) -> bool:
        """Whether this is Anthropic's API, whose errors and streams have shapes of their own."""
        return self.path.startswith(MESSAGES)

    @property
    def free(self) -> bool:
        """Whether nobody charges for it."""
        return self.path.endswith("/count_tokens")

    @property
    def repeatable(self) -> bool:
        """Whether a stream may be asked for twice: text is made, and nothing is kept."""
        return self.stream_end in ("done-sentinel", "message-stop")


PATHS: Final[dict[str, Path]] = {
    path.path: path
    for path in (
        Path("/v1/chat/completions", "json", "done-sentinel"),
        Path("/v1/completions", "json", "done-sentinel"),
        Path(MESSAGES, "json", "message-stop"),
        Path(f"{MESSAGES}/count_tokens", "json", "message-end"),
        Path("/v1/embeddings", "json", "message-end"),
        Path("/v1/responses", "json", "responses-event"),
        Path("/v1/rerank", "json", "message-end"),
        Path("/v1/score", "json", "message-end"),
        Path("/v1/moderations", "json", "message-end"),
        Path("/v1/audio/speech", "json", "message-end"),
        Path("/v1/audio/transcriptions", "multipart", "message-end"),
        Path("/v1/audio/translations", "multipart", "message-end"),
        Path("/v1/images/generations", "json", "message-end"),
        Path("/v1/images/edits", "multipart", "message-end"),
        Path("/v1/images/variations", "multipart", "message-end"),
    )
}
