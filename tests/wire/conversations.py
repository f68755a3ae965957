"""Conversations of every shape, for the laws that hold for whatever is said between two APIs."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

from spillway_balancer.wire.translation.conversation import (
    Conversation,
    Media,
    Reasoning,
    Shape,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
names = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4).map(lambda value: json.dumps(value).encode())

texts = words.map(Text)
_base64 = st.binary(min_size=1, max_size=30).map(lambda data: base64.b64encode(data).decode())
_kinds = st.sampled_from(["image/png", "image/jpeg", "image/webp", "image/gif"])
pictures = st.tuples(_base64, _kinds).map(lambda drawn: Media(drawn[0], kind=drawn[1]))
linked = st.just(Media(url="https://example.com/picture.png"))

tools = st.tuples(names, objects, st.none() | words, st.sampled_from([None, True])).map(lambda drawn: Tool(*drawn))


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """What every API can say: turns that alternate and end with the user's, each call of a tool answered."""
    offered = tuple(draw(st.lists(tools, max_size=3, unique_by=lambda tool: tool.name)))
    turns: list[Turn] = []
    calls: list[ToolUse] = []
    for n in range(draw(st.integers(1, 4))):
        parts: list[Any] = [ToolResult(call.id, tuple(draw(st.lists(texts, max_size=2)))) for call in calls]
        parts += draw(st.lists(texts | pictures | linked, min_size=0 if calls else 1, max_size=3))
        turns.append(Turn("user", tuple(parts)))
        calls = [
            ToolUse(f"call_{n}_{m}", draw(st.sampled_from(offered)).name, draw(objects))
            for m in range(draw(st.integers(0, 2)) if offered else 0)
        ]
        said = draw(st.lists(texts, min_size=0 if calls else 1, max_size=2))
        turns.append(Turn("assistant", (*said, *calls)))
    turns.append(Turn("user", (*(ToolResult(call.id, (Text("done"),)) for call in calls), Text("Go on."))))
    choice = None
    if offered:
        mode = draw(st.sampled_from(["auto", "any", "none", "named"]))
        named = offered[0].name if mode == "named" else None
        choice = ToolChoice(mode, named, draw(st.none() | st.booleans()) if mode != "none" else None)  # type: ignore[arg-type]
    return Conversation(
        turns=tuple(turns),
        system=tuple(draw(st.lists(texts, max_size=2))),
        tools=offered,
        choice=draw(st.sampled_from([None, choice])),
        max_tokens=draw(st.none() | st.integers(1, 64_000)),
        temperature=draw(st.none() | st.floats(0, 1).map(lambda value: round(value, 3))),
        stop=tuple(draw(st.lists(words, max_size=2))),
        stream=draw(st.booleans()),
        reasoning=draw(st.sampled_from([None, *map(Reasoning, ("none", "low", "medium", "high"))])),
        shape=draw(st.none() | objects.map(Shape)),
        user=draw(st.none() | names),
    )
