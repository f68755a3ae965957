"""Conversations and answers of which every API can say all: what the codecs are held to, each alone and across."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.translation.conversation import (
    Conversation,
    Media,
    Part,
    Reasoning,
    Shape,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)
from spillway_balancer.wire.translation.said import (
    Argument,
    Asked,
    Began,
    Done,
    End,
    Ended,
    Event,
    Said,
    Thought,
    Told,
)

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3).map(lambda value: compact(value))
"""JSON objects as bytes, spaced as writers here space them."""

IMAGES = st.one_of(
    st.binary(min_size=1, max_size=6).map(lambda data: Media(base64.b64encode(data).decode(), kind="image/png")),
    NAMES.map(lambda name: Media(url=f"https://example.com/{name}.png")),
)


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def schemas() -> st.SearchStrategy[bytes]:
    return st.dictionaries(NAMES, st.just({"type": "string"}), max_size=3).map(
        lambda properties: compact(
            {
                "type": "object",
                "properties": properties,
                "required": sorted(properties),
                "additionalProperties": False,
            }
        )
    )


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """That begin and end with the user, whose tools are all answered, and of which nothing depends on one API alone."""
    tools = tuple(
        Tool(name, draw(schemas()), draw(st.none() | WORDS)) for name in draw(st.lists(NAMES, max_size=3, unique=True))
    )
    turns: list[Turn] = []
    asked: list[ToolUse] = []
    ids = 0
    for _ in range(draw(st.integers(0, 3))):
        turns.append(Turn("user", draw(heard(tuple(asked)))))
        parts: list[Part] = [Text(draw(WORDS))] if draw(st.booleans()) or not tools else []
        asked = []
        for _ in range(draw(st.integers(0 if parts else 1, 2)) if tools else 0):
            asked.append(ToolUse(f"call_{ids}", draw(st.sampled_from(tools)).name, draw(OBJECTS)))
            ids += 1
        turns.append(Turn("assistant", (*parts, *asked)))
    turns.append(Turn("user", draw(heard(tuple(asked)))))
    choice = None
    if tools and draw(st.booleans()):
        mode = draw(st.sampled_from(("auto", "any", "none", "named")))
        name = draw(st.sampled_from(tools)).name if mode == "named" else None
        choice = ToolChoice(mode, name, None if mode == "none" else draw(st.none() | st.booleans()))
    return Conversation(
        turns=tuple(turns),
        system=(Text(draw(WORDS)),) if draw(st.booleans()) else (),
        tools=tools,
        choice=choice,
        max_tokens=draw(st.integers(1, 100_000)),
        temperature=draw(st.none() | st.sampled_from((0.0, 0.25, 1.0))),
        top_p=draw(st.none() | st.sampled_from((0.5, 1.0))),
        stop=tuple(draw(st.lists(WORDS, max_size=3))),
        stream=draw(st.booleans()),
        reasoning=draw(st.none() | st.sampled_from(("low", "medium", "high")).map(Reasoning)),
        shape=draw(st.none() | schemas().map(lambda schema: Shape(schema, "answer"))),
        user=draw(st.none() | NAMES),
    )


@st.composite
def heard(draw: st.DrawFn, asked: tuple[ToolUse, ...]) -> tuple[Part, ...]:
    """What the user says, behind the results of all the tools that were asked for."""
    results = [ToolResult(use.id, (Text(draw(WORDS)),) if draw(st.booleans()) else ()) for use in asked]
    if results and draw(st.booleans()):
        return tuple(results)
    says: list[Part] = [Text(draw(WORDS))]
    for image in draw(st.lists(IMAGES, max_size=2)):
        says += (image, Text(draw(WORDS)))
    return (*results, *says)


ENDS: tuple[End, ...] = ("stop", "length")


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """All numbers are told, and the parts are within the whole."""
    cached, written, fresh = (draw(st.integers(0, 10_000)) for _ in range(3))
    reasoning, said = (draw(st.integers(0, 10_000)) for _ in range(2))
    return Usage(cached + written + fresh, cached, said + reasoning, written)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """One whole answer: reasoning, then words, then tools that are asked for one after another."""
    events: list[Event] = [Began(draw(NAMES), "m")]
    events += [Thought(text) for text in draw(st.lists(WORDS, max_size=2))]
    events += [Said(text) for text in draw(st.lists(WORDS, max_size=3))]
    calls = draw(st.integers(0, 2))
    for at in range(calls):
        events.append(Asked(at, f"call_{at}", draw(NAMES)))
        arguments = draw(OBJECTS).decode()
        cut = draw(st.integers(1, len(arguments)))
        events += [Argument(at, piece) for piece in (arguments[:cut], arguments[cut:]) if piece]
    events.append(Told(draw(usages())))
    events.append(Ended("tools" if calls else draw(st.sampled_from(ENDS))))
    events.append(Done())
    return events


def merged(events: Iterable[Event]) -> list[Event]:
    """The same answer with what is said in pieces put together, and without what says nothing."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        match last, event:
            case Said(before), Said(text):
                out[-1] = Said(before + text)
            case Thought(before, None, None), Thought(text, signature, None):
                out[-1] = Thought(before + text, signature)
            case Argument(at, before), Argument(same, json) if at == same:
                out[-1] = Argument(at, before + json)
            case _:
                out.append(event)
    return out
