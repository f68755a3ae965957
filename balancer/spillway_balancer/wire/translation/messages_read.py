"""A body of Anthropic's Messages API, as coding agents send it, read into a conversation.

Format: https://platform.claude.com/docs/en/api/messages, and the types of Anthropic's SDKs. Both versions of the API
are read (2023-06-01, and 2026-10-21 which takes no `temperature`, `top_p` and `top_k`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, get_args

import msgspec

from ...core.errors import BadRequest
from .conversation import (
    Conversation,
    Effort,
    Part,
    Reasoning,
    Shape,
    Text,
    Thought,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)
from .messages_media import Source, media

_NONE: Final = msgspec.Raw(b"")
_NULL: Final = (b"", b"null")
_THERE: Final = msgspec.Raw(b"true")
_TYPE = re.compile(r"[a-z0-9_]{1,64}").fullmatch
_PLACE = re.compile(r"^(.*) - at `\$(.*?)`$").match


class _Cache(msgspec.Struct):
    ttl: str | None = None


class _Block(msgspec.Struct):
    """Any block: what is of another type where a block of another type has it stays unread."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NONE
    tool_use_id: str | None = None
    content: msgspec.Raw = _NONE
    is_error: bool | None = None
    source: msgspec.Raw = _NONE
    title: str | None = None
    context: str | None = None
    citations: msgspec.Raw = _NONE
    cache_control: _Cache | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: str | None = None
    type: str | None = None
    input_schema: msgspec.Raw = _NONE
    description: str | None = None
    strict: bool | None = None
    cache_control: _Cache | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: str
    schema: msgspec.Raw = _NONE


class _User(msgspec.Struct):
    user_id: str | None = None


_T = TypeVar("_T")

_READ: Final = frozenset(
    {
        "model", "messages", "system", "tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k",
        "stop_sequences", "stream", "thinking", "output_config", "output_format", "metadata",
    }
)  # fmt: skip
_EFFORTS: Final = frozenset(get_args(Effort))


def read(values: Mapping[str, msgspec.Raw]) -> Conversation:
    """The conversation of a body's top-level fields. What it cannot hold is in `extras`: fields by their names, blocks
    and tools of other types by their places, such as `messages[2].content[0].web_search_tool_result`."""
    extras = {name: raw for name, raw in values.items() if name not in _READ and bytes(raw) != b"null"}
    turns = _turns(_field(values, "messages", list[_Message]), extras)
    system = _field(values, "system", str | list[_Block], "")
    limit = _field(values, "max_tokens", int)
    if limit == 0:  # Anthropic's way to fill the cache and generate nothing
        extras["max_tokens"] = values["max_tokens"]
    elif limit < 0:
        raise BadRequest("the field 'max_tokens' must not be negative", param="max_tokens")
    metadata = _field(values, "metadata", _User | None, None)
    reasoning, shape = _output(values, extras)
    return Conversation(
        turns=turns,
        system=_texts(system, "system"),
        tools=_tools(_field(values, "tools", list[_Tool] | None, None) or (), extras),
        choice=_choice(_field(values, "tool_choice", _Choice | None, None)),
        max_tokens=limit or None,
        temperature=_field(values, "temperature", float | None, None),
        top_p=_field(values, "top_p", float | None, None),
        top_k=_field(values, "top_k", int | None, None),
        stop=tuple(_field(values, "stop_sequences", list[str] | None, None) or ()),
        stream=bool(_field(values, "stream", bool | None, None)),
        reasoning=reasoning,
        shape=shape,
        user=metadata.user_id if metadata else None,
        extras=extras,
    )


def _field(values: Mapping[str, msgspec.Raw], name: str, kind: type[_T] | Any, default: Any = ...) -> Any:
    raw = values.get(name)
    if raw is None:
        if default is ...:
            raise BadRequest(f"the field '{name}' is missing", param=name)
        return default
    return _decoded(raw, name, kind)


def _decoded(raw: bytes | msgspec.Raw, at: str, kind: Any) -> Any:
    """Raises a BadRequest that names the place within a body, and tells types alone."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        found = _PLACE(str(error))
        what, where = (found[1], at + found[2]) if found else (str(error), at)
        raise BadRequest(f"the field '{where}' is not as it has to be: {what}", param=where) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest(f"the field '{at}' cannot be read", param=at) from None


def _turns(messages: Iterable[_Message], extras: dict[str, msgspec.Raw]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        content = message.content
        if message.role == "system":
            turns.append(Turn("system", _texts(content, f"{at}.content")))
            continue
        if message.role not in ("user", "assistant"):
            raise BadRequest(f"the field '{at}.role' must be user, assistant or system", param=f"{at}.role")
        parts: Sequence[Part]
        if isinstance(content, str):
            parts = (Text(content),)
        else:
            parts = _parts(content, f"{at}.content", extras)
            parts.sort(key=lambda part: not isinstance(part, ToolResult))
        turns.append(Turn("user" if message.role == "user" else "assistant", tuple(parts)))
    return tuple(turns)


def _parts(blocks: Iterable[_Block], at: str, extras: dict[str, msgspec.Raw]) -> list[Part]:
    parts: list[Part] = []
    for j, block in enumerate(blocks):
        part = _part(block, f"{at}[{j}]", extras)
        if part is not None:
            parts.append(part)
    return parts


def _part(block: _Block, at: str, extras: dict[str, msgspec.Raw]) -> Part | None:
    """None for what has no place in a conversation; it is in `extras` then. Citations of earlier answers are left
    out: they say where words come from that are there."""
    kind = block.type
    cached, ttl = _cache(block.cache_control)
    if kind == "text":
        return Text(_said(block.text, f"{at}.text"), cached, ttl)
    if kind == "tool_use":
        arguments = bytes(block.input) or b"{}"
        if not arguments.startswith(b"{"):
            raise BadRequest(f"the field '{at}.input' must be an object", param=f"{at}.input")
        return ToolUse(_said(block.id, f"{at}.id"), _said(block.name, f"{at}.name"), arguments, cached, ttl)
    if kind == "tool_result":
        results = _results(block.content, f"{at}.content", extras)
        return ToolResult(_said(block.tool_use_id, f"{at}.tool_use_id"), results, bool(block.is_error), cached, ttl)
    if kind == "thinking":
        return Thought(block.thinking or "", block.signature or None)
    if kind == "redacted_thinking":
        return Thought(sealed=_said(block.data, f"{at}.data"))
    if kind in ("image", "document"):
        source = _decoded(block.source or b"null", f"{at}.source", Source)
        found = media(kind, source, block.title, cached, ttl)
        if found is None:
            extras[f"{at}.source.{_name(source.type)}"] = block.source
        if block.context:
            extras[f"{at}.context"] = _THERE
        if bytes(block.citations).find(b"true") >= 0:
            extras[f"{at}.citations"] = block.citations
        return found
    extras[f"{at}.{_name(kind)}"] = _THERE
    return None


def _results(raw: msgspec.Raw, at: str, extras: dict[str, msgspec.Raw]) -> tuple[Any, ...]:
    if bytes(raw) in _NULL:
        return ()
    content = _decoded(raw, at, str | list[_Block])
    if isinstance(content, str):
        return (Text(content),)
    parts = _parts(content, at, extras)
    for part in parts:
        if isinstance(part, ToolUse | ToolResult | Thought):
            raise BadRequest(f"the field '{at}' holds what no tool answers", param=at)
    return tuple(parts)


def _texts(content: str | list[_Block], at: str) -> tuple[Text, ...]:
    if isinstance(content, str):
        return (Text(content),) if content else ()
    texts: list[Text] = []
    for j, block in enumerate(content):
        if block.type != "text":
            raise BadRequest(f"the field '{at}[{j}].type' must be text", param=f"{at}[{j}].type")
        texts.append(Text(_said(block.text, f"{at}[{j}].text"), *_cache(block.cache_control)))
    return tuple(texts)


def _tools(tools: Iterable[_Tool], extras: dict[str, msgspec.Raw]) -> tuple[Tool, ...]:
    """Tools of the client. Those that a server of Anthropic's runs or that its models were trained on have a type of
    their own and no schema: no other provider has them."""
    out: list[Tool] = []
    for i, tool in enumerate(tools):
        at = f"tools[{i}]"
        if tool.type not in (None, "custom"):
            extras[f"{at}.{_name(tool.type)}"] = _THERE
            continue
        schema = bytes(tool.input_schema)
        if not schema.startswith(b"{"):
            raise BadRequest(f"the field '{at}.input_schema' must be an object", param=f"{at}.input_schema")
        if tool.defer_loading:
            extras[f"{at}.defer_loading"] = _THERE
        if tool.allowed_callers is not None and tool.allowed_callers != ["direct"]:
            extras[f"{at}.allowed_callers"] = _THERE
        name = _said(tool.name, f"{at}.name")
        out.append(Tool(name, schema, tool.description, tool.strict, *_cache(tool.cache_control)))
    return tuple(out)


def _choice(choice: _Choice | None) -> ToolChoice | None:
    if choice is None:
        return None
    parallel = None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use
    if choice.type == "tool":
        return ToolChoice("named", _said(choice.name, "tool_choice.name"), parallel)
    if choice.type not in ("auto", "any", "none"):
        raise BadRequest("the field 'tool_choice.type' must be auto, any, tool or none", param="tool_choice.type")
    return ToolChoice(choice.type, None, parallel)  # type: ignore[arg-type]


def _output(values: Mapping[str, msgspec.Raw], extras: dict[str, msgspec.Raw]) -> tuple[Reasoning | None, Shape | None]:
    """`thinking`, and the effort and the format of `output_config`; `output_format` is what this was in its beta."""
    thinking: _Thinking | None = _field(values, "thinking", _Thinking | None, None)
    config = _field(values, "output_config", dict[str, msgspec.Raw] | None, None) or {}
    effort: Effort | None = _field(config, "effort", str | None, None)
    if effort is not None and effort not in _EFFORTS:
        raise BadRequest("the field 'output_config.effort' names no effort", param="output_config.effort")
    for name, raw in config.items():
        if name not in ("effort", "format") and bytes(raw) != b"null":
            extras[f"output_config.{name}"] = raw
    shape = None
    for at, raw_format in (
        ("output_config.format", config.get("format")),
        ("output_format", values.get("output_format")),
    ):
        if raw_format is None or raw_format == b"null":
            continue
        said: _Format = _decoded(raw_format, at, _Format)
        if said.type != "json_schema" or not bytes(said.schema).startswith(b"{"):
            raise BadRequest(f"the field '{at}' must have the type json_schema and a schema", param=at)
        shape = Shape(bytes(said.schema))
        break
    return _reasoning(thinking, effort), shape


def _reasoning(thinking: _Thinking | None, effort: Effort | None) -> Reasoning | None:
    if thinking is None:
        return None if effort is None else Reasoning(effort)
    shown = None if thinking.display is None else thinking.display != "omitted"
    if thinking.type == "enabled":
        if thinking.budget_tokens is None:
            raise BadRequest("the field 'thinking.budget_tokens' is missing", param="thinking.budget_tokens")
        return Reasoning(effort, thinking.budget_tokens, shown=shown)
    if thinking.type == "adaptive":
        return Reasoning(effort, adaptive=True, shown=shown)
    if thinking.type in ("disabled", "between_tools"):
        return Reasoning("none")
    raise BadRequest("the field 'thinking.type' must be enabled, adaptive or disabled", param="thinking.type")


def _cache(cache: _Cache | None) -> tuple[bool, str | None]:
    return (False, None) if cache is None else (True, cache.ttl)


def _said(value: str | None, at: str) -> str:
    if value is None:
        raise BadRequest(f"the field '{at}' is missing", param=at)
    return value


def _name(kind: object) -> str:
    """A type of the API, as part of a field's name; anything else might be somebody's text."""
    return kind if isinstance(kind, str) and _TYPE(kind) else "type"
