"""What a request asks of a provider's model, whichever of the three APIs it came through, and the prompt it makes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from ..engine import text

_encode = msgspec.json.Encoder(order="sorted").encode


class Part(NamedTuple):
    """A piece of a turn. `text` is what it adds to the prompt; pictures add what their bytes hash to.

    `mark`: how long the prompt up to here is to be kept in the cache ("5m", "1h"); None where nobody said so.
    """

    kind: Literal["text", "media", "thought", "call", "result"]
    text: str
    mark: str | None = None


class Turn(NamedTuple):
    role: str
    parts: tuple[Part, ...]


class Tool(NamedTuple):
    name: str
    schema: Any
    mark: str | None = None


class Asked(NamedTuple):
    """A request. `thinking` is how many tokens the model may think, 0 for not at all; `schema` what the answer has to
    look like, with {} for any JSON object; `named` the tool that has to be called."""

    model: str
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    choice: Literal["auto", "any", "none", "named"] = "auto"
    named: str = ""
    parallel: bool = True
    limit: int | None = None
    stream: bool = False
    tell_usage: bool = True
    schema: Any = None
    thinking: int = 0
    stop: tuple[str, ...] = ()


class Prompt(NamedTuple):
    """The bytes a request stands for. `edges` are the offsets at which its pieces end, `marks` those of them, with how
    long, that the cache is asked to keep."""

    data: bytes
    edges: tuple[int, ...]
    marks: tuple[tuple[int, str], ...]

    @property
    def tokens(self) -> int:
        return text.tokens_in(self.data)


def prompt(asked: Asked) -> Prompt:
    """Tools first, then the turns, each between its markers: a later turn of a conversation begins with the former."""
    data = bytearray()
    edges: list[int] = []
    marks: list[tuple[int, str]] = []

    def piece(data_of_it: bytes, mark: str | None) -> None:
        data.extend(data_of_it)
        edges.append(len(data))
        if mark is not None:
            marks.append((len(data), mark))

    for tool in asked.tools:
        piece(b"<|tool|>\n" + _encode([tool.name, tool.schema]) + b"<|end|>\n", tool.mark)
    for turn in asked.turns:
        data.extend(f"<|{turn.role}|>\n".encode())
        for part in turn.parts:
            raw = part.text.encode("utf-8", "replace")
            piece(text.media(raw) if part.kind == "media" else raw, part.mark)
        data.extend(b"<|end|>\n")
    data.extend(b"<|assistant|>\n")
    return Prompt(bytes(data), tuple(edges), tuple(marks))


def last_words(asked: Asked) -> str:
    """What was said last, to the model: by the user, or by the tools."""
    if not asked.turns or asked.turns[-1].role == "assistant":
        return ""
    return " ".join(part.text for part in asked.turns[-1].parts if part.kind in ("text", "result"))


def json_of(value: Any) -> str:
    return _encode(value).decode()


def words(said: str) -> frozenset[str]:
    """A table of names, written as one text."""
    return frozenset(said.split())
