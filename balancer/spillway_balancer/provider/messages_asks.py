"""Requests to Anthropic's Messages API, and what it refuses.

Sources: the API reference "Create a Message", the guides on tool use, extended thinking and prompt caching, the types
of the official SDK, and the wording of errors in public bug reports.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from .asked import Asked, Part, Tool, Turn, json_of, words
from .refusals import Refusal
from .replies import raw
from .signatures import holds

_FIELDS: Final = words(
    "model messages max_tokens cache_control container context_management diagnostics inference_geo mcp_servers "
    "metadata output_config output_format service_tier speed stop_sequences stream system temperature thinking "
    "tool_choice tools top_k top_p user_profile_id workspace_id"
)
_BLOCKS: Final = {
    "text": "type text cache_control citations",
    "image": "type source cache_control",
    "document": "type source cache_control citations context title",
    "tool_use": "type id name input cache_control caller",
    "tool_result": "type tool_use_id content is_error cache_control",
    "thinking": "type thinking signature",
    "redacted_thinking": "type data",
    "search_result": "type source title content citations cache_control",
}
_EFFORTS: Final = {"low": 16, "medium": 32, "high": 64, "xhigh": 96, "max": 128}
LEAST_BUDGET: Final = 1024
_MOST_MARKS: Final = 4


def read(body: bytes) -> Asked:
    """Raises a Refusal, in Anthropic's words, for what it refuses."""
    return _read(_object(body), counting=False)


def read_for_count(body: bytes) -> Asked:
    """Of `count_tokens`, which takes no max_tokens and no stream."""
    return _read(_object(body), counting=True)


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = raw(body)
    except ValueError:
        raise Refusal("invalid", "The request body is not valid JSON") from None
    if not isinstance(values, dict):
        raise Refusal("invalid", "Input should be a valid dictionary")
    return values


def _read(values: dict[str, Any], counting: bool) -> Asked:
    for name in values:
        if name not in _FIELDS or (counting and name in ("max_tokens", "stream", "temperature", "metadata")):
            raise Refusal("unknown-field", f"{name}: Extra inputs are not permitted", param=name)
    for name, kind in (("model", str), ("messages", list)):
        if not isinstance(values.get(name), kind):
            raise Refusal("invalid", f"{name}: Field required", param=name)
    limit = values.get("max_tokens")
    if not counting and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise Refusal("invalid", "max_tokens: Field required", param="max_tokens")
    if isinstance(limit, int) and limit < 1:
        raise Refusal("invalid", "max_tokens: Input should be greater than or equal to 1", param="max_tokens")
    if not values["messages"]:
        raise Refusal("invalid", "messages: at least one message is required", param="messages")
    tools = tuple(_tool(each, at) for at, each in enumerate(values.get("tools") or []))
    choice, named, parallel = _choice(values.get("tool_choice"), tools)
    thinking, thinks = _thinking(values, choice)
    system = values.get("system")
    turns = [Turn("system", tuple(_content(system, "system", "system")))] if system else []
    turns += _turns(values["messages"], thinks)
    if sum(part.mark is not None for turn in turns for part in turn.parts) > _MOST_MARKS:
        raise Refusal("invalid", "A maximum of 4 blocks with cache_control may be provided.")
    schema = _format(values)
    stop = values.get("stop_sequences") or ()
    stream = values.get("stream") is True
    return Asked(
        values["model"],
        tuple(turns),
        tools,
        choice,
        named,
        parallel,
        limit,
        stream,
        True,
        schema,
        thinking,
        tuple(stop),
    )


def _turns(messages: list[Any], thinks: bool) -> list[Turn]:
    """Neighbours of one role are one turn, and calls are answered in the turn that follows."""
    turns: list[Turn] = []
    asked: list[str] = []  # ids of calls in the last turn of the assistant's
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise Refusal("invalid", f"messages.{at}.role: Input should be 'user' or 'assistant'")
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        parts = _content(content, f"messages.{at}.content", role)
        if not parts and not (role == "assistant" and at == len(messages) - 1):
            said = "all messages must have non-empty content except for the optional final assistant message"
            raise Refusal("invalid", f"messages.{at}: {said}")
        follows = bool(turns) and turns[-1].role == role
        if role == "user":
            asked = _answered(blocks, asked, at)
        else:
            if asked and not follows:
                raise _unanswered(at - 1, asked)
            asked += [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
        if follows:
            turns[-1] = Turn(role, turns[-1].parts + tuple(parts))
        else:
            turns.append(Turn(role, tuple(parts)))
    if asked:
        raise _unanswered(len(messages) - 1, asked)
    if turns[0].role != "user":
        raise Refusal("invalid", 'messages: first message must use the "user" role')
    if thinks:
        _begins_with_thought(messages)
    return turns


def _answered(blocks: list[Any], asked: list[str], at: int) -> list[str]:
    """What of the calls is still open after a message of the user's, of which nothing may be."""
    left = list(asked)
    for number, block in enumerate(blocks):
        if block.get("type") != "tool_result":
            continue
        id = block.get("tool_use_id")
        if id not in left:
            said = f"messages.{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each"
            said += " `tool_result` block must have a corresponding `tool_use` block in the previous message."
            raise Refusal("invalid", said)
        left.remove(id)
    if left:
        raise _unanswered(at - 1, left)
    return left


def _unanswered(at: int, ids: list[str]) -> Refusal:
    said = f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}."
    return Refusal(
        "invalid", f"{said} Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _begins_with_thought(messages: list[Any]) -> None:
    """With thinking on, the turn that asked for the tools whose results come last begins with a thought."""
    last = next((at for at in range(len(messages) - 1, -1, -1) if messages[at]["role"] == "assistant"), None)
    if last is None or not isinstance(messages[last]["content"], list):
        return
    blocks = messages[last]["content"]
    calls = any(block.get("type") == "tool_use" for block in blocks)
    first = blocks[0].get("type") if blocks else None
    if calls and first not in ("thinking", "redacted_thinking"):
        said = f"messages.{last}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When "
        said += "`thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the "
        raise Refusal("invalid", f"{said}lastmost set of `tool_use` and `tool_result` blocks).")


def _content(content: Any, where: str, role: str) -> list[Part]:
    if isinstance(content, str):
        return [Part("text", content)] if content else []
    if not isinstance(content, list):
        raise Refusal("invalid", f"{where}: Input should be a valid list")
    found = []
    for at, block in enumerate(content):
        found.append(_block(block, f"{where}.{at}", role))
    return found


def _block(block: Any, where: str, role: str) -> Part:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCKS:
        raise Refusal(
            "invalid", f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        )
    for name in block:
        if name not in _BLOCKS[kind].split():
            raise Refusal("unknown-field", f"{where}.{kind}.{name}: Extra inputs are not permitted")
    mark = _mark(block.get("cache_control"), where)
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise Refusal("invalid", f"{where}.text.text: Field required")
        if not block["text"].strip():
            raise Refusal("invalid", f"{where.partition('.content')[0]}: text content blocks must be non-empty")
        return Part("text", block["text"], mark)
    if kind in ("image", "document", "search_result"):
        return Part("media", _source(block.get("source"), kind, where), mark)
    if kind == "tool_use":
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", str(block.get("id", ""))):
            raise Refusal("invalid", f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if role != "assistant" or not isinstance(block.get("input"), dict) or not isinstance(block.get("name"), str):
            raise Refusal("invalid", f"{where}.tool_use.input: Input should be a valid dictionary")
        return Part("call", json_of([block["name"], block["input"]]), mark)
    if kind == "tool_result":
        if role != "user":
            raise Refusal("invalid", f"{where}: `tool_result` blocks can only be in `user` messages")
        inside = _content(block.get("content") or "", f"{where}.content", role)
        return Part("result", " ".join(part.text for part in inside), mark)
    if role != "assistant":
        raise Refusal("invalid", f"{where}: `{kind}` blocks can only be in `assistant` messages")
    if kind == "thinking" and not holds(str(block.get("thinking", "")), block.get("signature")):
        raise Refusal("invalid", f"{where}: Invalid `signature` in `thinking` block")
    return Part("thought", str(block.get("thinking") or block.get("data") or ""))


def _source(source: Any, kind: str, where: str) -> str:
    if kind == "search_result":
        return json_of(source)
    types = ("base64", "url", "file") if kind == "image" else ("base64", "url", "file", "text", "content")
    if not isinstance(source, dict) or source.get("type") not in types:
        raise Refusal("invalid", f"{where}.{kind}.source: Field required")
    if source["type"] == "base64":
        if kind == "image" and source.get("media_type") not in ("image/jpeg", "image/png", "image/gif", "image/webp"):
            raise Refusal("invalid", f"{where}.image.source.base64.media_type: Input should be an image type")
        if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", str(source.get("data", ""))):
            raise Refusal("invalid", f"{where}.{kind}.source.base64: invalid base64 data")
    return json_of(source)


def _mark(said: Any, where: str) -> str | None:
    if said is None:
        return None
    ttl = said.get("ttl", "5m") if isinstance(said, dict) and said.get("type") == "ephemeral" else None
    if ttl not in ("5m", "1h"):
        raise Refusal("invalid", f"{where}.cache_control.type: Input should be 'ephemeral'")
    return str(ttl)


def _tool(tool: Any, at: int) -> Tool:
    name = tool.get("name") if isinstance(tool, dict) else None
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", str(name or "")):
        said = "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"
        raise Refusal("invalid", f"tools.{at}.custom.name: {said}")
    schema = tool.get("input_schema")
    if tool.get("type", "custom") == "custom":
        if not isinstance(schema, dict):
            raise Refusal("invalid", f"tools.{at}.custom.input_schema: Field required")
        if schema.get("type") != "object":
            raise Refusal("invalid", f"tools.{at}.custom.input_schema.type: Field required")
    return Tool(str(name), schema, _mark(tool.get("cache_control"), f"tools.{at}"))


def _choice(said: Any, tools: tuple[Tool, ...]) -> tuple[Literal["auto", "any", "none", "named"], str, bool]:
    if said is None:
        return "auto", "", True
    kind = said.get("type") if isinstance(said, dict) else None
    parallel = not (isinstance(said, dict) and said.get("disable_parallel_tool_use"))
    if kind not in ("auto", "any", "tool", "none"):
        raise Refusal("invalid", "tool_choice: Input tag found using 'type' does not match any of the expected tags")
    if not tools and kind != "none":
        raise Refusal("invalid", "tool_choice: may only be specified while providing `tools`.")
    if kind != "tool":
        return kind, "", parallel
    if said.get("name") not in {tool.name for tool in tools}:
        raise Refusal("invalid", "Tool in tool_choice not found in provided tools")
    return "named", str(said["name"]), parallel


def _thinking(values: dict[str, Any], choice: str) -> tuple[int, bool]:
    """How many tokens, and whether turns with tools must begin with a thought: adaptive thinking leaves that open."""
    said = values.get("thinking")
    config = values.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is not None and effort not in _EFFORTS:
        raise Refusal("invalid", "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    if not isinstance(said, dict) or said.get("type") == "disabled":
        return 0, False
    kind = said.get("type")
    if kind not in ("enabled", "adaptive"):
        raise Refusal("invalid", "thinking: Input tag found using 'type' does not match any of the expected tags")
    if choice in ("any", "named"):
        raise Refusal("invalid", "Thinking may not be enabled when tool_choice forces tool use.")
    if values.get("temperature") not in (None, 1):
        raise Refusal("invalid", "`temperature` may only be set to 1 when thinking is enabled.")
    if values.get("top_k") is not None:
        raise Refusal("invalid", "`top_k` must be unset when thinking is enabled.")
    if kind == "adaptive":
        return _EFFORTS[effort or "high"], False
    budget = said.get("budget_tokens")
    if not isinstance(budget, int) or budget < LEAST_BUDGET:
        least = "Input should be greater than or equal to 1024"
        raise Refusal("invalid", f"thinking.enabled.budget_tokens: {least}", param="thinking")
    limit = values.get("max_tokens")
    if isinstance(limit, int) and budget >= limit:
        raise Refusal("invalid", "`max_tokens` must be greater than `thinking.budget_tokens`.", param="max_tokens")
    return budget, True


def _format(values: dict[str, Any]) -> Any:
    config = values.get("output_config")
    format = values.get("output_format") or (config.get("format") if isinstance(config, dict) else None)
    if format is None:
        return None
    if (
        not isinstance(format, dict)
        or format.get("type") != "json_schema"
        or not isinstance(format.get("schema"), dict)
    ):
        raise Refusal("invalid", "output_config.format.schema: Field required")
    return format["schema"]


def hides(body: bytes) -> bool:
    """Whether thoughts are to be left out, and their signatures alone be told."""
    thinking = raw(body).get("thinking")
    return isinstance(thinking, dict) and thinking.get("display") == "omitted"
