"""What an answer says, whichever API says it: the events that readers make of its bytes and writers make bytes of.

An answer that is no stream is the same events, all at once. Their order is that of the answer: `Began` first, then
what is said, then `Told` and `Ended` in either order, and `Done` for the provider's own terminator. A stream whose
bytes end without `Done` was cut. `Fault` may stand anywhere, and nothing comes after it.

Structs and no tuples: `Done()` is not `Alive()`, and there is one for each token, made in a fifth of the time.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ...core.learning import Usage
from ..faults import ErrorFacts

End = Literal["stop", "length", "tools", "sequence", "filter", "refusal", "pause", "context"]
"""Why an answer is over: said all; `max_tokens`; asks for tools; a stop sequence; cut by a content filter; declined by
the model; stopped for a while and to be gone on with; the context window is full."""


class Began(Struct, frozen=True, gc=False):
    """`id` and `model` as the provider says them; empty where it does not. `usage` is what it knows of the prompt;
    `created` is Unix time in seconds."""

    id: str = ""
    model: str = ""
    usage: Usage | None = None
    created: int | None = None


class Said(Struct, frozen=True, gc=False):
    """A piece of text for the reader."""

    text: str


class Thought(Struct, frozen=True, gc=False):
    """A piece of reasoning. A `signature` closes it; `sealed` is a whole block that only the provider can read."""

    text: str = ""
    signature: str | None = None
    sealed: str | None = None


class Asked(Struct, frozen=True, gc=False):
    """The model asks for a tool; what it hands it follows in `Argument`s. `at` counts the tools of an answer from 0."""

    at: int
    id: str
    name: str


class Argument(Struct, frozen=True, gc=False):
    """A piece of the JSON of a tool's arguments."""

    at: int
    json: str


class Alive(Struct, frozen=True, gc=False):
    """Nothing is said, and somebody is there: a ping, a comment."""


class Told(Struct, frozen=True, gc=False):
    """Tokens so far; numbers replace those of before, and None is not told. As everywhere here, prompts include what
    was read from and written to a cache, whatever the provider's own way to count is."""

    usage: Usage


class Ended(Struct, frozen=True, gc=False):
    """The model has ended. `sequence` is the stop sequence that it met."""

    end: End
    sequence: str | None = None


class Fault(Struct, frozen=True, gc=False):
    """An error within an answer. `message` is the provider's and may go to the client; it is never logged."""

    facts: ErrorFacts
    message: str


class Done(Struct, frozen=True, gc=False):
    """The provider's own terminator: the answer is whole."""


Event = Began | Said | Thought | Asked | Argument | Alive | Told | Ended | Fault | Done
