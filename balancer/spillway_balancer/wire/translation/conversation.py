"""What is asked of a model, whichever API it is asked through: what readers make of a body and writers make one of.

Every API that is translated has a reader into these values and a writer out of them, so that n APIs need n of each and
not n times n. Values that are JSON in all of them (schemas, arguments of tools) stay the bytes they came as.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

Role = Literal["system", "user", "assistant"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Text(NamedTuple):
    """Words. `cached`: the prompt up to here is to be kept in the provider's cache; `ttl` is how long, as it was said
    ("5m", "1h")."""

    text: str
    cached: bool = False
    ttl: str | None = None


class Media(NamedTuple):
    """A picture or a document, as base64 `data` or by `url`. `kind` is a media type such as image/png, and None where
    a URL does not tell it; `name` is that of a document, `detail` OpenAI's."""

    data: str | None = None
    url: str | None = None
    kind: str | None = None
    name: str | None = None
    detail: str | None = None
    cached: bool = False
    ttl: str | None = None

    @property
    def document(self) -> bool:
        return self.kind is not None and not self.kind.startswith("image/")


class Thought(NamedTuple):
    """Reasoning of an earlier turn. `signature` proves to its provider that it is unchanged; `sealed` is reasoning that
    only the provider can read."""

    text: str = ""
    signature: str | None = None
    sealed: str | None = None


class ToolUse(NamedTuple):
    """The model asks for a tool. `arguments` is a JSON object."""

    id: str
    name: str
    arguments: bytes = b"{}"
    cached: bool = False
    ttl: str | None = None


class ToolResult(NamedTuple):
    """What a tool has answered. `failed`: it could not do what it was asked."""

    id: str
    parts: tuple[Text | Media, ...]
    failed: bool = False
    cached: bool = False
    ttl: str | None = None


Part = Text | Media | Thought | ToolUse | ToolResult


class Turn(NamedTuple):
    """One turn. Results of tools stand in a turn of the user's, before what the user says in it. `system` stands in the
    middle of a conversation only: what comes before it all is `Conversation.system`."""

    role: Role
    parts: tuple[Part, ...]


class Tool(NamedTuple):
    """A function that the model may ask for. `schema` is the JSON Schema of its arguments."""

    name: str
    schema: bytes
    description: str | None = None
    strict: bool | None = None
    cached: bool = False
    ttl: str | None = None


class ToolChoice(NamedTuple):
    """`auto`: the model decides; `any`: some tool; `none`: no tool; `named`: that one. `parallel` is None where nothing
    is said of several at once."""

    mode: Literal["auto", "any", "none", "named"] = "auto"
    name: str | None = None
    parallel: bool | None = None


class Reasoning(NamedTuple):
    """How much the model is to think: by `effort`, or by `tokens`; whichever was said. `adaptive`: the model decides
    itself (Anthropic). `shown`: whether the client wants to read it; None where it does not say."""

    effort: Effort | None = None
    tokens: int | None = None
    adaptive: bool = False
    shown: bool | None = None


class Shape(NamedTuple):
    """What an answer has to look like: JSON of this schema, or any JSON object where there is none."""

    schema: bytes | None = None
    name: str | None = None
    strict: bool | None = None
    description: str | None = None


class Conversation(NamedTuple):
    """A request. None is what it does not say. `extras` are fields that have no place here, by the names that the
    client gave them: a writer knows which of them it can do without, and the others cannot be carried."""

    turns: tuple[Turn, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    reasoning: Reasoning | None = None
    shape: Shape | None = None
    user: str | None = None
    extras: Mapping[str, msgspec.Raw] = {}
