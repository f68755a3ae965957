"""What the model says: a function of the request alone, so that the same request gets the same answer everywhere.

A tool is called when the request insists on one, or when what was said last names one: "please use get_weather". What
a tool answers counts as said, so a script of many calls is written into the results. Thoughts come before, as many
tokens as the budget allows and the prompt deserves. A token is four bytes, as in the simulated engine.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

import msgspec
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from ..engine import text
from .asked import Asked, Prompt, json_of, last_words

End = Literal["stop", "length", "tools", "sequence"]
_DEEP: Final = 8
"""How far into a schema its samples go."""


class Said(NamedTuple):
    text: str


class Thought(NamedTuple):
    text: str


class Call(NamedTuple):
    """`id` has no prefix: each API has its own."""

    id: str
    name: str
    arguments: str


Block = Said | Thought | Call


class Reply(NamedTuple):
    """A whole answer. `output` counts all of it in tokens, `reasoning` the thoughts in it. `sequence` is the stop
    sequence that ended it."""

    blocks: tuple[Block, ...]
    end: End
    output: int
    reasoning: int
    sequence: str | None = None


def tokens(said: str) -> int:
    return -(-len(said) // text.TOKEN_BYTES)


def pieces(said: str) -> list[str]:
    """A text, token by token."""
    return [said[at : at + text.TOKEN_BYTES] for at in range(0, len(said), text.TOKEN_BYTES)]


def size(block: Block) -> int:
    """In tokens; the name of a tool is part of what is generated."""
    return tokens(block.name) + tokens(block.arguments) if isinstance(block, Call) else tokens(block.text)


def reply(asked: Asked, prompt: Prompt) -> Reply:
    """The answer, within `asked.limit` tokens; whatever does not fit is cut off, and a call that is cut is dropped."""
    seed = xxh3_64_intdigest(prompt.data)
    wanted: list[Block] = []
    if asked.thinking:
        wanted.append(Thought(text.Answer(prompt.data + b"?", min(asked.thinking, 8 + seed % 57)).text))
    called = _called(asked)
    sequence = None
    if called:
        wanted.extend(
            Call(xxh3_64_hexdigest(prompt.data + bytes([at])), name, json_of(_of(asked, name, seed + at)))
            for at, name in enumerate(called)
        )
    elif asked.schema is not None:
        wanted.append(Said(json_of(sample(asked.schema or {"type": "object"}, seed))))
    else:
        said = text.Answer(prompt.data, text.drawn_length(prompt.data)).text
        said, sequence = _stopped(said, asked.stop)
        wanted.append(Said(said))
    room = asked.limit if asked.limit is not None else 1 << 30
    kept: list[Block] = []
    for block in wanted:
        needs = size(block)
        if needs <= room:
            kept.append(block)
            room -= needs
            continue
        if not isinstance(block, Call) and room:
            kept.append(block._replace(text=block.text[: room * text.TOKEN_BYTES]))
        return _whole(kept, "length", None)
    return _whole(kept, "tools" if called else "sequence" if sequence else "stop", sequence)


def _whole(blocks: list[Block], end: End, sequence: str | None) -> Reply:
    reasoning = sum(size(block) for block in blocks if isinstance(block, Thought))
    return Reply(tuple(blocks), end, sum(size(block) for block in blocks), reasoning, sequence)


def _called(asked: Asked) -> tuple[str, ...]:
    names = [tool.name for tool in asked.tools]
    if not names or asked.choice == "none":
        return ()
    if asked.choice == "named":
        return (asked.named,)
    words = last_words(asked)
    found = [name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words)]
    if asked.choice == "any" and not found:
        found = names[:1]
    return tuple(found if asked.parallel else found[:1])


def _of(asked: Asked, name: str, seed: int) -> Any:
    schema = next((tool.schema for tool in asked.tools if tool.name == name), None)
    return sample(schema or {"type": "object"}, seed)


def _stopped(said: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    found = [(at, each) for each in stop if each and (at := said.find(each)) >= 0]
    if not found:
        return said, None
    at, sequence = min(found)
    return said[:at], sequence


def sample(schema: Any, seed: int, depth: int = 0) -> Any:
    """Something that fits a JSON Schema, roughly: types, properties, items, enumerations, the first of alternatives."""
    if not isinstance(schema, dict) or depth > _DEEP:
        return {} if depth == 0 else None
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[seed % len(choices)]
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return sample(schema[key][0], seed, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties")
        inside = properties if isinstance(properties, dict) else {}
        return {name: sample(each, seed + at, depth + 1) for at, (name, each) in enumerate(inside.items())}
    if kind == "array":
        return [sample(schema.get("items"), seed, depth + 1)] * max(1, int(schema.get("minItems", 1)))
    if kind == "integer":
        return int(schema.get("minimum", 1)) + seed % 9
    if kind == "number":
        return float(schema.get("minimum", 0)) + (seed % 90 + 1) / 10
    if kind == "boolean":
        return seed % 2 == 0
    return None if kind == "null" else text.Answer(seed.to_bytes(9, "little"), 2 + seed % 4).text


def raw(data: bytes) -> Any:
    """JSON of any kind; ValueError for what is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
