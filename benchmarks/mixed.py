"""Requests of every kind, for every family: what `benchmarks.providers` sends, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

Lot = Literal["whole", "cut", "left"]
"""Answers that end as they should, or never began; those that faults cut; those whose clients leave."""
LOTS: Final[tuple[Lot, ...]] = ("whole", "cut", "left")
SHARES: Final = (80, 10, 10)
KINDS: Final = ("plain", "tools", "result", "picture", "json", "reasoning", "cached")

WORDS: Final = ["we", "walk", "to", "the", "far", "end", "of", "the", "bay", "and", "ask", "for", "the", "way", "home"]
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
PICTURE: Final = "aGVsbG8gdGhlcmU="
SYSTEM: Final = "You help people who plan journeys, and you are patient with them. " * 90  # 1500 tokens


class Mixed(NamedTuple):
    """One request. `leaves`: after how many bytes of the answer its client does."""

    family: str
    lot: Lot
    kind: str
    path: str
    body: dict[str, Any]
    leaves: int | None

    @property
    def stream(self) -> bool:
        return bool(self.body["stream"])


def mixed(count: int, seed: int, families: tuple[str, ...]) -> Iterator[Mixed]:
    """The families in turn; half of the requests come through each client API."""
    dice = random.Random(seed)
    for number in range(count):
        family = families[number % len(families)]
        lot = dice.choices(LOTS, SHARES)[0]
        kind = dice.choice(KINDS)
        words = " ".join(dice.choices(WORDS, k=dice.randint(4, 40)))
        stream = lot == "left" or dice.random() < 0.6
        said = {"model": f"{family}-{lot}", "stream": stream}
        if dice.random() < 0.5:
            body, path = _chat(kind, words, dice), "/v1/chat/completions"
        else:
            body, path = _messages(kind, words, dice), "/v1/messages"
        leaves = dice.randint(0, 1200) if lot == "left" else None
        yield Mixed(family, lot, kind, path, said | body, leaves)


def _chat(kind: str, words: str, dice: random.Random) -> dict[str, Any]:
    user: dict[str, Any] = {"role": "user", "content": words}
    tool = {"type": "function", "function": {"name": "look_up", "description": "Finds trains.", "parameters": SCHEMA}}
    body: dict[str, Any] = {"max_tokens": dice.randint(8, 60), "messages": [user]}
    match kind:
        case "tools":
            user["content"] = f"{words}, please use look_up"
            body |= {"tools": [tool], "max_tokens": 200}
        case "result":
            call = {
                "id": "call12345",
                "type": "function",
                "function": {"name": "look_up", "arguments": '{"city":"Rome"}'},
            }
            asked = {"role": "assistant", "content": None, "tool_calls": [call]}
            result = {"role": "tool", "tool_call_id": "call12345", "content": "three of them"}
            body |= {"tools": [tool], "messages": [user, asked, result]}
        case "picture":
            url = {"url": f"data:image/png;base64,{PICTURE}"}
            user["content"] = [{"type": "text", "text": words}, {"type": "image_url", "image_url": url}]
        case "json":
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
            body["max_tokens"] = 200
        case "reasoning":
            body |= {"reasoning_effort": dice.choice(("low", "medium", "high")), "max_tokens": 30_000}
        case "cached":
            body["messages"] = [{"role": "system", "content": f"{dice.randint(1, 5)} {SYSTEM}"}, user]
    if dice.random() < 0.3:
        body["temperature"] = 1
    return body


def _messages(kind: str, words: str, dice: random.Random) -> dict[str, Any]:
    user: dict[str, Any] = {"role": "user", "content": words}
    tool = {"name": "look_up", "description": "Finds trains.", "input_schema": SCHEMA}
    body: dict[str, Any] = {"max_tokens": dice.randint(8, 60), "messages": [user]}
    match kind:
        case "tools":
            user["content"] = f"{words}, please use look_up"
            body |= {"tools": [tool], "max_tokens": 200}
        case "result":
            use = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"city": "Rome"}}
            result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "three of them"}
            turns = [user, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
            body |= {"tools": [tool], "messages": turns}
        case "picture":
            source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
            user["content"] = [{"type": "text", "text": words}, {"type": "image", "source": source}]
        case "json":
            body["output_config"] = {
                "format": {"type": "json_schema", "schema": SCHEMA | {"additionalProperties": False}}
            }
            body["max_tokens"] = 200
        case "reasoning":
            body |= {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 30_000}
        case "cached":
            mark = {"type": "ephemeral"} | ({"ttl": "1h"} if dice.random() < 0.3 else {})
            text = f"{dice.randint(1, 5)} {SYSTEM}"
            body["system"] = [{"type": "text", "text": text, "cache_control": mark}]
    return body
