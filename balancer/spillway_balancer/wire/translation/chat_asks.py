"""OpenAI's chat completions as they are asked: a body read as a conversation, and `ASKING`, how it is written.

Format: https://platform.openai.com/docs/api-reference/chat/create. What is there beyond it and read all the same:
`top_k` of the engines, `reasoning` of OpenRouter, `thinking` of Anthropic's own chat endpoint.

`functions` and `function_call`, which `tools` have replaced, are not read: who asks by them waits for an answer in a
form that no answer here has. They are extras, and so are refused wherever a translation would be needed; what earlier
answers have in this form is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, get_args

import msgspec

from spillway_api.providers import PRESETS, Preset

from . import chat_body, chat_turns, checked
from .conversation import Conversation, Effort, Reasoning, Shape, Tool, ToolChoice
from .dialects import Asking

_EFFORTS: Final = get_args(Effort)
_NO_ARGUMENTS: Final = b'{"type":"object","properties":{}}'

_READ: Final = frozenset(
    {
        "messages",
        "model",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "reasoning_effort",
        "reasoning",
        "thinking",
        "include_reasoning",
        "response_format",
        "user",
    }
)
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "modalities": (["text"],),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "functions": ([],),
}
"""What says no more than the field's absence; null is so everywhere."""


def read(values: Mapping[str, msgspec.Raw]) -> Conversation:
    """The conversation that a body's fields hold. Raises a BadRequest that names the field that is wrong."""
    extras = {name: raw for name, raw in values.items() if name not in _READ and not _says_nothing(name, raw)}
    if "messages" not in values:
        checked.refuse("messages", "is missing")
    said = chat_turns.read(checked.read(values["messages"], "messages"))
    tools = _tools(values, extras)
    tools, choice = _choice(values, tools, extras)
    top_k = checked.count(checked.given(values, "top_k"), "top_k", least=-1)
    return Conversation(
        said.turns,
        said.system,
        tools,
        choice,
        _limit(values),
        checked.number(checked.given(values, "temperature"), "temperature"),
        checked.number(checked.given(values, "top_p"), "top_p"),
        top_k if top_k is not None and top_k > 0 else None,  # engines write 0 or -1 for all of them
        _stop(checked.given(values, "stop")),
        bool(checked.flag(checked.given(values, "stream"), "stream")),
        _reasoning(values),
        _shape(values, extras),
        checked.text_or_none(checked.given(values, "user"), "user"),
        extras | said.extras,
    )


def _says_nothing(name: str, raw: msgspec.Raw) -> bool:
    if bytes(memoryview(raw)[:4]) == b"null":
        return True
    return name in _NEUTRAL and checked.read(raw, name) in _NEUTRAL[name]


def _limit(values: Mapping[str, msgspec.Raw]) -> int | None:
    """By the newer name where there are both, as engines read it."""
    new, old = (checked.count(checked.given(values, name), name) for name in ("max_completion_tokens", "max_tokens"))
    return new if new is not None else old


def _stop(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    if isinstance(stop, str):
        return (stop,) if stop else ()
    return tuple(checked.text(each, f"stop[{index}]") for index, each in enumerate(checked.sequence(stop, "stop")))


def _tools(values: Mapping[str, msgspec.Raw], extras: dict[str, msgspec.Raw]) -> tuple[Tool, ...]:
    if "tools" not in values or bytes(values["tools"]) == b"null":
        return ()
    tools: list[Tool] = []
    for index, raw in enumerate(checked.items(values["tools"], "tools")):
        at = f"tools[{index}]"
        tool = checked.members(raw, at)
        kind = checked.read(tool["type"], f"{at}.type") if "type" in tool else "function"
        if kind != "function":  # a custom tool, or one that runs at a provider
            extras[f"{at}.type"] = checked.raw(kind)
            continue
        tools.append(_tool(tool, at))
    return tuple(tools)


def _tool(tool: dict[str, msgspec.Raw], at: str) -> Tool:
    there = f"{at}.function"
    function = checked.members(tool.get("function", msgspec.Raw(b"null")), there)

    def member(name: str) -> Any:
        return checked.read(function[name], f"{there}.{name}") if name in function else None

    schema = bytes(function.get("parameters", b"null"))
    if schema == b"null":
        schema = _NO_ARGUMENTS
    elif not checked.is_object(schema):
        checked.refuse(f"{there}.parameters", "must be an object")
    control = checked.read(tool["cache_control"], f"{at}.cache_control") if "cache_control" in tool else None
    ttl = None if control is None else checked.mapping(control, f"{at}.cache_control").get("ttl")
    return Tool(
        checked.text(member("name"), f"{there}.name"),
        schema,
        checked.text_or_none(member("description"), f"{there}.description"),
        checked.flag(member("strict"), f"{there}.strict"),
        control is not None,
        checked.text_or_none(ttl, f"{at}.cache_control.ttl"),
    )


def _choice(
    values: Mapping[str, msgspec.Raw], tools: tuple[Tool, ...], extras: dict[str, msgspec.Raw]
) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """The tools that may be asked for, and how. `allowed_tools` leaves the others out."""
    parallel = checked.flag(checked.given(values, "parallel_tool_calls"), "parallel_tool_calls")
    said = checked.given(values, "tool_choice")
    if said is None:
        return tools, None if parallel is None else ToolChoice(parallel=parallel)
    if not isinstance(said, dict):
        word = checked.one_of(said, ("none", "auto", "required", "any"), "tool_choice")  # the last is Mistral's
        return tools, ToolChoice({"none": "none", "auto": "auto"}.get(word, "any"), None, parallel)  # type: ignore[arg-type]
    if said.get("type") == "allowed_tools":
        at = "tool_choice.allowed_tools"
        allowed = checked.mapping(said.get("allowed_tools"), at)
        mode = checked.one_of(allowed.get("mode"), ("auto", "required"), f"{at}.mode")
        names = {
            _named(each, f"{at}.tools[{index}]")
            for index, each in enumerate(checked.sequence(allowed.get("tools"), f"{at}.tools"))
        }
        kept = tuple(tool for tool in tools if tool.name in names)
        return kept, ToolChoice("auto" if mode == "auto" else "any", None, parallel)
    if said.get("type", "function") != "function":
        extras["tool_choice"] = values["tool_choice"]
        return tools, None
    return tools, ToolChoice("named", _named(said, "tool_choice"), parallel)


def _named(tool: Any, at: str) -> str:
    function = checked.mapping(checked.mapping(tool, at).get("function"), f"{at}.function")
    return checked.text(function.get("name"), f"{at}.function.name")


def _reasoning(values: Mapping[str, msgspec.Raw]) -> Reasoning | None:
    effort = checked.given(values, "reasoning_effort")
    tokens: int | None = None
    adaptive = False
    shown = checked.flag(checked.given(values, "include_reasoning"), "include_reasoning")
    said = checked.given(values, "reasoning")
    at = "reasoning_effort"
    if said is not None:
        said = checked.mapping(said, "reasoning")
        if effort is None and said.get("effort") is not None:
            effort, at = said["effort"], "reasoning.effort"
        tokens = checked.count(said.get("max_tokens"), "reasoning.max_tokens")
        enabled = checked.flag(said.get("enabled"), "reasoning.enabled")
        if effort is None and tokens is None and enabled is not None:
            effort = "medium" if enabled else "none"
        if (exclude := checked.flag(said.get("exclude"), "reasoning.exclude")) is not None:
            shown = not exclude
    thinking = checked.given(values, "thinking")
    if thinking is not None:
        thinking = checked.mapping(thinking, "thinking")
        kind = checked.one_of(thinking.get("type"), ("enabled", "disabled", "adaptive"), "thinking.type")
        adaptive = kind == "adaptive"
        if tokens is None:
            tokens = checked.count(thinking.get("budget_tokens"), "thinking.budget_tokens")
        if effort is None and tokens is None and not adaptive:  # DeepSeek and GLM say no more than this
            effort = "none" if kind == "disabled" else "medium"
    if effort is None and tokens is None and not adaptive and shown is None:
        return None
    word = None if effort is None else checked.one_of(effort, _EFFORTS, at)
    return Reasoning(word, tokens, adaptive, shown)  # type: ignore[arg-type]


def _shape(values: Mapping[str, msgspec.Raw], extras: dict[str, msgspec.Raw]) -> Shape | None:
    raw = values.get("response_format")
    if raw is None or bytes(raw) == b"null":
        return None
    form = checked.members(raw, "response_format")
    kind = checked.text(
        checked.read(form["type"], "response_format.type") if "type" in form else None, "response_format.type"
    )
    if kind == "text":
        return None
    if kind == "json_object":
        return Shape()
    if kind != "json_schema":
        extras["response_format"] = raw
        return None
    at = "response_format.json_schema"
    inner = checked.members(form.get("json_schema", msgspec.Raw(b"null")), at)
    schema = bytes(inner.get("schema", b"null"))
    if schema != b"null" and not checked.is_object(schema):
        checked.refuse(f"{at}.schema", "must be an object")

    def member(name: str) -> Any:
        return checked.read(inner[name], f"{at}.{name}") if name in inner else None

    return Shape(
        None if schema == b"null" else schema,
        checked.text(member("name"), f"{at}.name"),
        checked.flag(member("strict"), f"{at}.strict"),
        checked.text_or_none(member("description"), f"{at}.description"),
    )


@lru_cache(maxsize=64)
def asking_of(preset: Preset) -> Asking:
    """How a provider is asked: by the field that it limits answers by, and with no field that it refuses."""
    manner = chat_body.manner_of(preset)
    return Asking(read, manner.write, manner.uncarried)


ASKING: Final = asking_of(PRESETS["OpenAICompatible"])
"""Of a server that takes what engines take: vLLM, SGLang and their like."""
