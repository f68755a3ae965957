"""Requests for chat completions, and what the families that take them refuse.

Source: OpenAI's API reference "Create chat completion" and its error messages; Mistral's API is strict about fields it
does not know, as is OpenAI's about those of the top level.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from .asked import Asked, Part, Tool, Turn, json_of, words
from .families import ChatTraits
from .refusals import Refusal
from .replies import raw

THINKS: Final = re.compile(r"(?:o\d|gpt-5|grok-3-mini|grok-4|.*reasoner|.*thinking|magistral|.*-r1)")
"""Models that think unasked, by the beginning of their names or what stands in them."""
BUDGETS: Final = {"none": 0, "minimal": 8, "low": 16, "medium": 32, "high": 64, "xhigh": 96, "max": 128}
"""Of thought, in tokens: small, since nothing comes of it."""
_MESSAGE_FIELDS: Final = words("role content name tool_calls tool_call_id prefix")


def read(body: bytes, traits: ChatTraits) -> Asked:
    """Raises a Refusal for what the family refuses."""
    try:
        values = raw(body)
    except ValueError:
        raise Refusal("invalid", "We could not parse the JSON body of your request.") from None
    if not isinstance(values, dict):
        raise Refusal("invalid", "The body is not an object.")
    if traits.known is not None:
        for name in values:
            if name not in traits.known:
                strict = "Extra inputs are not permitted"
                said = strict if traits.nested else f"Unrecognized request argument supplied: {name}"
                raise Refusal("unknown-field", said, param=name)
    model, messages = values.get("model"), values.get("messages")
    if not isinstance(model, str) or not model:
        raise Refusal("invalid", "you must provide a model parameter")
    if not isinstance(messages, list) or not messages:
        raise Refusal("invalid", "Missing required parameter: 'messages'.", param="messages")
    if values.get("n") not in (None, 1):
        raise Refusal("invalid", "This fake gives one choice a request.", param="n")
    stream = values.get("stream") is True
    options = values.get("stream_options")
    if options is not None and not stream:
        raise Refusal("invalid", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    if traits.nested and options:  # it is known, and nothing in it
        raise Refusal("unknown-field", "Extra inputs are not permitted", param=f"stream_options.{min(options)}")
    tools = tuple(_tool(each, at) for at, each in enumerate(values.get("tools") or []))
    choice, named = _choice(values.get("tool_choice"), tools)
    return Asked(
        model,
        _turns(messages, traits),
        tools,
        choice,
        named,
        values.get("parallel_tool_calls") is not False,
        _limit(values, model, traits),
        stream,
        isinstance(options, dict) and options.get("include_usage") is True,
        _schema(values.get("response_format"), messages, traits),
        _thinking(values, model),
        _stop(values.get("stop")),
    )


def _turns(messages: list[Any], traits: ChatTraits) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant", "tool", "function"):
            raise Refusal("invalid", f"Invalid value for 'messages[{at}].role'.", param=f"messages[{at}].role")
        if traits.nested and (extra := set(message) - _MESSAGE_FIELDS):
            raise Refusal("unknown-field", "Extra inputs are not permitted", param=min(extra))
        parts = list(_parts(message.get("content"), f"messages[{at}].content"))
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                said = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise Refusal("invalid", f"Invalid parameter: {said}", param=f"messages.[{at}].role")
            open_calls.discard(message["tool_call_id"])
            parts = [part._replace(kind="result") if part.kind == "text" else part for part in parts]
        elif open_calls:
            raise _unanswered(at)
        elif traits.nested and role == "user" and turns and turns[-1].role == "tool":
            raise Refusal("invalid", "Unexpected role 'user' after role 'tool'", param="messages")
        for call in message.get("tool_calls") or []:
            if role != "assistant" or not isinstance(call, dict) or not isinstance(call.get("id"), str):
                raise Refusal("invalid", "Missing required parameter", param=f"messages[{at}].tool_calls")
            if traits.nested and not re.fullmatch(r"[a-zA-Z0-9]{9}", call["id"]):
                said = "Tool call id was given but must be a-z, A-Z, 0-9, with a length of 9."
                raise Refusal("invalid", said, param="tool_calls")
            open_calls.add(call["id"])
            parts.append(Part("call", json_of(call.get("function"))))
        if role != "assistant" and message.get("content") is None:
            said = f"Invalid value for 'content': expected a string, got null. (messages[{at}].content)"
            raise Refusal("invalid", said, param=f"messages.[{at}].content")
        turns.append(Turn(role, tuple(parts)))
    if open_calls:
        raise _unanswered(len(messages))
    return tuple(turns)


def _unanswered(at: int) -> Refusal:
    said = "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
    return Refusal("invalid", said, param=f"messages.[{at}].role")


def _parts(content: Any, where: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Part("text", content)]
    if not isinstance(content, list):
        raise Refusal("invalid", f"Invalid type for '{where}': expected a string or an array.", param=where)
    found = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            found.append(Part("text", str(part.get(kind, ""))))
        elif kind == "image_url":
            picture = part.get("image_url")
            url = picture.get("url") if isinstance(picture, dict) else picture
            if not isinstance(url, str) or not url.startswith(("http://", "https://", "data:image/")):
                raise Refusal("invalid", "Invalid image URL.", param=f"{where}[{at}].image_url")
            found.append(Part("media", url))
        elif kind in ("input_audio", "file", "document_url"):
            found.append(Part("media", json_of(part)))
        elif kind == "thinking":
            found.append(Part("thought", json_of(part)))
        else:
            raise Refusal("invalid", f"Invalid value for '{where}[{at}].type'.", param=f"{where}[{at}].type")
    return found


def _tool(tool: Any, at: int) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", str(function.get("name", ""))):
        raise Refusal("invalid", f"Invalid 'tools[{at}].function.name'.", param=f"tools[{at}].function.name")
    return Tool(function["name"], function.get("parameters"))


def _choice(said: Any, tools: tuple[Tool, ...]) -> tuple[Literal["auto", "any", "none", "named"], str]:
    if said is None:
        return "auto", ""
    if not tools:
        raise Refusal("invalid", "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if said in ("auto", "none"):
        return said, ""
    if said in ("required", "any"):
        return "any", ""
    function = said.get("function") if isinstance(said, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in {tool.name for tool in tools}:
        raise Refusal("invalid", "Tool choice names a tool that is not in 'tools'.", param="tool_choice")
    return "named", str(name)


def _limit(values: dict[str, Any], model: str, traits: ChatTraits) -> int | None:
    if traits.modern and values.get("max_tokens") is not None and THINKS.match(model):
        said = "Unsupported parameter: 'max_tokens' is not supported with this model. "
        raise Refusal("invalid", f"{said}Use 'max_completion_tokens' instead.", param="max_tokens")
    found = [values[name] for name in ("max_completion_tokens", "max_tokens") if values.get(name) is not None]
    for limit in found:
        if not isinstance(limit, int) or limit < 1:
            raise Refusal("invalid", "Invalid value: 'max_tokens' must be at least 1.", param="max_tokens")
    return min(found) if found else None


def _schema(said: Any, messages: list[Any], traits: ChatTraits) -> Any:
    kind = said.get("type") if isinstance(said, dict) else None
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        if traits.modern and "json" not in json_of(messages).lower():
            asked = "'messages' must contain the word 'json' in some form, to use 'response_format' of type"
            raise Refusal("invalid", f"{asked} 'json_object'.", param="messages")
        return {}
    inside = said.get("json_schema")
    if kind != "json_schema" or not isinstance(inside, dict) or not inside.get("name"):
        raise Refusal("invalid", "Missing required parameter: 'response_format.json_schema'.", param="response_format")
    return inside.get("schema") or {}


def _thinking(values: dict[str, Any], model: str) -> int:
    effort = values.get("reasoning_effort")
    reasoning = values.get("reasoning")  # OpenRouter's
    if isinstance(reasoning, dict):
        effort = reasoning.get("effort") or ("medium" if reasoning.get("enabled") else effort)
        if isinstance(reasoning.get("max_tokens"), int):
            return int(reasoning["max_tokens"])
    if effort is None:
        return BUDGETS["medium"] if THINKS.match(model) else 0
    if effort not in BUDGETS:
        raise Refusal("invalid", "Invalid value for 'reasoning_effort'.", param="reasoning_effort")
    return BUDGETS[effort]


def _stop(said: Any) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(str(each) for each in said or ())
