"""A conversation written as a body of Anthropic's Messages API, and what of it that API cannot say.

Where the two differ and Anthropic has decided itself for chat clients (https://platform.claude.com/docs/en/api/openai-sdk),
this does the same: temperatures above 1 become 1, and instructions of the system's from the middle of a conversation go
to its beginning where a model does not take them in their place. What the docs of the API refuse is in `messages_read`
and `claude`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from . import claude, messages_media
from .calls import Ids, arguments
from .conversation import Conversation, Media, Part, Text, Thought, Tool, ToolResult, ToolUse, Turn
from .dialects import Asking, Body
from .messages_read import read

PATH: Final = "/v1/messages"

MAX_USER: Final = 256
"""Characters of `metadata.user_id`; a longer one is not sent."""

_encode = msgspec.json.encode

DROPPED: Final = frozenset(
    {
        # Labels of the client's account or of its user at OpenAI, and what is kept there.
        "metadata", "store", "safety_identifier", "user",
        # How fast, and whose cache: the answer is the same.
        "service_tier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "prediction", "seed",
        # How a stream tells its usage: Anthropic's always do.
        "stream_options",
        # A wish for shorter or longer prose.
        "verbosity",
    }
)  # fmt: skip
"""Fields of chats that can be left out: none of them changes what is asked for."""

_NEUTRAL: Final[dict[str, tuple[bytes, ...]]] = {
    "n": (b"1",),
    "logprobs": (b"false",),
    "top_logprobs": (b"0",),
    "frequency_penalty": (b"0", b"0.0"),
    "presence_penalty": (b"0", b"0.0"),
    "repetition_penalty": (b"1", b"1.0"),
    "min_p": (b"0", b"0.0"),
    "logit_bias": (b"{}",),
    "modalities": (b'["text"]',),
    "parallel_tool_calls": (b"true",),
}
"""Fields that say what is so anyway, by these values."""

_ID = re.compile(r"[a-zA-Z0-9_-]+").fullmatch
_NOT_ID = re.compile(r"[^a-zA-Z0-9_-]")


def tool_id(name: str) -> str:
    """An id of a tool's call as Anthropic takes it: itself where it fits, else one that is made of it."""
    if _ID(name):
        return name
    return f"{_NOT_ID.sub('_', name)[:40]}_{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


def uncarried(asked: Conversation, model: str = "") -> tuple[str, ...]:
    """Fields, as chats call them, that Anthropic cannot be asked for."""
    found = [
        name
        for name, raw in asked.extras.items()
        if name not in DROPPED and bytes(raw) != b"null" and bytes(raw) not in _NEUTRAL.get(name, ())
    ]
    if asked.shape is not None and asked.shape.schema is None:
        found.append("response_format")  # any object: a schema has to name all fields
    if any(not each.strip() for each in asked.stop):
        found.append("stop")
    if next((turn.role for turn in reversed(asked.turns) if turn.role != "system"), None) == "assistant":
        found.append("messages")  # Anthropic would go on with this answer, or refuse it, and a chat asks for a new one
    found += [
        f"messages[].content[].{'file' if each.document else 'image_url'}"
        for turn in asked.turns
        for part in turn.parts
        for each in (part.parts if isinstance(part, ToolResult) else (part,))
        if isinstance(each, Media) and messages_media.block(each) is None
    ]
    return tuple(dict.fromkeys(found))


def write(asked: Conversation, model: str) -> Body:
    """Only for what `uncarried` has nothing against."""
    facts = claude.model(model)
    system, messages = _messages(asked, facts)
    if not messages:  # who asks by instructions alone wants an answer to them
        system, messages = [], [{"role": "user", "content": [_text(each) for each in system]}]
    most = asked.max_tokens or facts.most_tokens
    body: dict[str, Any] = {"model": model, "max_tokens": most}
    if system:
        body["system"] = (
            system[0].text if len(system) == 1 and not system[0].cached else [_text(each) for each in system]
        )
    body["messages"] = messages
    tools = asked.tools or _remembered(asked.turns)
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        choice = _choice(asked)
        if choice:
            body["tool_choice"] = choice
    if asked.stop:
        body["stop_sequences"] = asked.stop
    thinks = _thinking(asked, facts, most, body)
    if facts.samples and not thinks:
        _sampling(asked, body)
    if asked.shape is not None and asked.shape.schema is not None:
        config = body.setdefault("output_config", {})
        config["format"] = {"type": "json_schema", "schema": msgspec.Raw(asked.shape.schema)}
    if asked.user and len(asked.user) <= MAX_USER:
        body["metadata"] = {"user_id": asked.user}
    if asked.stream:
        body["stream"] = True
    return Body(PATH, _encode(body))


def _messages(asked: Conversation, facts: claude.Model) -> tuple[list[Text], list[dict[str, Any]]]:
    """What the system says before all, and the turns: of the same role as one, and none of them empty."""
    system = [text for text in asked.system if text.text.strip()]
    ids = Ids(tool_id)
    merged: list[tuple[str, list[dict[str, Any]]]] = []
    for i, turn in enumerate(asked.turns):
        role = turn.role
        if role == "system":
            said = [part for part in turn.parts if isinstance(part, Text) and part.text.strip()]
            if not (facts.systems and merged and merged[-1][0] != "assistant" and _answered(asked.turns[i + 1 :])):
                system += said
                continue
            blocks = [_text(part) for part in said]
        else:
            blocks = [block for part in turn.parts if (block := _block(part, ids)) is not None]
        if not blocks:
            continue
        if not merged or merged[-1][0] != role:
            merged.append((role, blocks))
            continue
        blocks = merged[-1][1] + blocks
        blocks.sort(key=lambda block: block["type"] != "tool_result")
        merged[-1] = role, blocks
    return system, [{"role": role, "content": _plain(blocks)} for role, blocks in merged]


def _answered(rest: Sequence[Turn]) -> bool:
    """Whether what follows is the model's to say: only there a model takes instructions from the system."""
    following = next((turn.role for turn in rest if turn.role != "system"), "assistant")
    return following == "assistant"


def _plain(blocks: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return blocks


def _block(part: Part, ids: Ids) -> dict[str, Any] | None:
    """None for what Anthropic refuses and nobody misses: text of nothing, and thoughts that it did not sign."""
    if isinstance(part, Text):
        return _text(part) if part.text.strip() else None
    if isinstance(part, Thought):
        if not claude.own(part):
            return None
        if part.sealed is not None:
            return {"type": "redacted_thinking", "data": part.sealed}
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    if isinstance(part, ToolUse):
        block: dict[str, Any] = {"type": "tool_use", "id": ids.used(part.id), "name": part.name}
        block["input"] = arguments(part.arguments)
    elif isinstance(part, ToolResult):
        block = {"type": "tool_result", "tool_use_id": ids.answered(part.id)}
        content = [each for said in part.parts if (each := _block(said, ids)) is not None]
        if content:
            block["content"] = _plain(content)
        if part.failed:
            block["is_error"] = True
    else:
        made = messages_media.block(part)
        if made is None:
            return None
        block = made
    return _marked(block, part.cached, part.ttl)


def _text(text: Text) -> dict[str, Any]:
    return _marked({"type": "text", "text": text.text}, text.cached, text.ttl)


def _tool(tool: Tool) -> dict[str, Any]:
    block: dict[str, Any] = {"name": tool.name}
    if tool.description:
        block["description"] = tool.description
    block["input_schema"] = _schema(tool.schema)
    if tool.strict:
        block["strict"] = True
    return _marked(block, tool.cached, tool.ttl)


def _schema(schema: bytes) -> Any:
    """Anthropic wants to be told that arguments are an object, which for others goes without saying."""
    members = msgspec.json.decode(schema, type=dict[str, msgspec.Raw])
    return msgspec.Raw(schema) if "type" in members else {"type": "object", **members}


def _marked(block: dict[str, Any], cached: bool, ttl: str | None) -> dict[str, Any]:
    if cached:
        block["cache_control"] = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
    return block


def _remembered(turns: Iterable[Turn]) -> tuple[Tool, ...]:
    """Tools that were used in a conversation which offers none any more: without them Anthropic does not take it."""
    names = {part.name: None for turn in turns for part in turn.parts if isinstance(part, ToolUse)}
    return tuple(Tool(name, b'{"type":"object"}') for name in names)


def _choice(asked: Conversation) -> dict[str, Any] | None:
    choice = asked.choice
    if not asked.tools:
        return {"type": "none"}
    if choice is None:
        return None
    out: dict[str, Any] = {"type": "tool", "name": choice.name} if choice.mode == "named" else {"type": choice.mode}
    if choice.parallel is not None and choice.mode != "none":
        out["disable_parallel_tool_use"] = not choice.parallel
    return out


def _thinking(asked: Conversation, facts: claude.Model, most: int, body: dict[str, Any]) -> bool:
    """Whether the model is told to think."""
    thinking = claude.thinking(asked, facts, most)
    if thinking is None:
        return False
    body["thinking"] = thinking.field
    if thinking.effort is not None:
        body["output_config"] = {"effort": thinking.effort}
    return thinking.on


def _sampling(asked: Conversation, body: dict[str, Any]) -> None:
    """One of temperature and `top_p`: there are models that refuse both at once, and most clients mean the first."""
    if asked.temperature is not None:
        body["temperature"] = min(asked.temperature, 1.0)
    elif asked.top_p is not None:
        body["top_p"] = asked.top_p
    if asked.top_k is not None:
        body["top_k"] = asked.top_k


ASKING: Final = Asking(read, write, uncarried)
