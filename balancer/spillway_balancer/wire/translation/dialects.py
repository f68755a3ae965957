"""What an API has to offer to be translated: a reader and a writer of requests, and the same of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from spillway_api.providers import Api

from .conversation import Conversation
from .said import Event

__all__ = ["AnswerReader", "AnswerWriter", "Answering", "Api", "AskReader", "AskWriter", "Asking", "Body"]


class Body(NamedTuple):
    """A request as a provider takes it. `path` is that of its API, such as /v1/messages or /model/NAME/converse."""

    path: str
    body: bytes


class AnswerReader(Protocol):
    """One answer's bytes to events. What comes out does not depend on how reads divide the bytes. Bytes that are no
    answer come out as a `Fault`; nothing is raised, and nothing comes after a `Fault`."""

    def feed(self, data: bytes) -> list[Event]: ...
    def end(self) -> list[Event]:
        """The message has ended as HTTP has it."""
        ...


class AnswerWriter(Protocol):
    """Events to one answer's bytes, in whole events of the client's API. A terminator is written for `Done` alone."""

    def write(self, events: Iterable[Event]) -> bytes: ...
    def end(self) -> bytes:
        """The rest, where an answer is written at once."""
        ...


class AskReader(Protocol):
    def __call__(self, values: Mapping[str, msgspec.Raw]) -> Conversation:
        """The top-level fields of a body. Raises a BadRequest that names the field for what the API does not allow."""
        ...


class AskWriter(Protocol):
    def __call__(self, asked: Conversation, model: str) -> Body:
        """Only for what `uncarried` has nothing against. `model` is the provider's name of it."""
        ...


class Uncarried(Protocol):
    def __call__(self, asked: Conversation, model: str = "") -> tuple[str, ...]:
        """What of a request this API cannot say without changing what it means: names of fields, as `n` or
        `messages[2].content[0].input_audio`, without values. What only some models can be told is carried to those;
        `model` is the provider's name of it."""
        ...


class Asking(NamedTuple):
    """How an API is asked."""

    read: AskReader | None
    """None where no client speaks it to us."""
    write: AskWriter
    uncarried: Uncarried


class Answering(NamedTuple):
    """How an API answers. Readers take the media type (`text/event-stream`, …); writers of streams and of whole
    answers are handed the model's public name and whether the client asked for usage."""

    reader: Callable[[str], AnswerReader]
    stream: Callable[[str, bool], AnswerWriter] | None
    whole: Callable[[str], AnswerWriter] | None
    error: Callable[[int, str, str | None, str | None], bytes] | None
    """An error answer in this API: status, message, OpenAI's type and code."""
