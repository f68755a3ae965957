"""Requests to Amazon Bedrock's Converse, and what it refuses.

Sources: the Amazon Bedrock API reference (Converse, ContentBlock, ToolConfiguration, ...), which is what AWS's SDKs are
made of, and the wording of errors in public bug reports. Fields that the reference does not have are refused, which is
stricter than the real one where it passes over them: a field that nobody reads is a mistake of the sender's.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any, Final, Literal

from .asked import Asked, Part, Tool, Turn, json_of, words
from .messages_asks import LEAST_BUDGET
from .refusals import Refusal
from .replies import raw
from .signatures import holds

_FIELDS: Final = words(
    "messages system inferenceConfig toolConfig guardrailConfig additionalModelRequestFields promptVariables "
    "additionalModelResponseFieldPaths requestMetadata performanceConfig serviceTier outputConfig"
)
_BLOCKS: Final = words(
    "text image document video audio toolUse toolResult guardContent cachePoint reasoningContent citationsContent "
    "searchResult"
)
_IMAGES: Final = words("png jpeg gif webp")
_DOCUMENTS: Final = words("pdf csv doc docx xls xlsx html txt md")


def read(body: bytes, model: str, stream: bool) -> Asked:
    """Raises a Refusal, in Bedrock's words, for what it refuses. The model stands in the path."""
    try:
        values = raw(body)
    except ValueError:
        raise Refusal("invalid", "The request body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise Refusal("invalid", "The request body is not a JSON object.")
    _only(values, _FIELDS, "")
    messages = values.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal("invalid", "The messages field is required and must not be empty.")
    config = values.get("toolConfig") or {}
    _only(config, frozenset(("tools", "toolChoice")), "toolConfig.")
    tools = _tools(config.get("tools"))
    if config and not tools:
        raise Refusal("invalid", "The toolConfig.tools field must have a value of at least 1.")
    choice, named = _choice(config.get("toolChoice"), tools)
    system = _parts(values.get("system") or [], "system", "system")
    turns = [Turn("system", system)] if system else []
    turns += _turns(messages, bool(tools))
    inference = values.get("inferenceConfig") or {}
    _only(inference, frozenset(("maxTokens", "temperature", "topP", "stopSequences")), "inferenceConfig.")
    limit = inference.get("maxTokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise Refusal("invalid", "inferenceConfig.maxTokens must be greater than or equal to 1.")
    thinking = _thinking(values.get("additionalModelRequestFields") or {}, inference)
    stop = tuple(inference.get("stopSequences") or ())
    schema = _schema(values.get("outputConfig"))
    return Asked(model, tuple(turns), tools, choice, named, True, limit, stream, True, schema, thinking, stop)


def _only(values: Any, known: frozenset[str], where: str) -> None:
    if not isinstance(values, dict):
        raise Refusal("invalid", f"{where.rstrip('.')} is not a structure.")
    for name in values:
        if name not in known:
            raise Refusal("unknown-field", f"extraneous key [{where}{name}] is not permitted")


def _turns(messages: list[Any], tools: bool) -> list[Turn]:
    turns: list[Turn] = []
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        _only(message, frozenset(("role", "content")), f"messages.{at}.")
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant"):
            raise Refusal("invalid", f"messages.{at}.role must be user or assistant.")
        if not turns and role != "user":
            said = "A conversation must start with a user message. Try again with a conversation that starts with one."
            raise Refusal("invalid", said)
        if turns and turns[-1].role == role:
            said = "A conversation must alternate between user and assistant roles. Make sure the conversation "
            raise Refusal("invalid", f"{said}alternates between user and assistant roles and try again.")
        if not isinstance(content, list) or not content:
            raise Refusal("invalid", f"The content field in the Message object at messages.{at} is empty.")
        results = [str(block["toolResult"].get("toolUseId")) for block in content if "toolResult" in block]
        calls = [str(block["toolUse"].get("toolUseId")) for block in content if "toolUse" in block]
        if (results or calls) and not tools:
            said = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
            raise Refusal("invalid", said)
        if missing := [id for id in open_calls if id not in results]:
            said = f"Expected toolResult blocks at messages.{at}.content for the following Ids: {', '.join(missing)}"
            raise Refusal("invalid", said)
        if len(results) > len(open_calls):
            said = f"The number of toolResult blocks at messages.{at}.content exceeds the number of toolUse blocks"
            raise Refusal("invalid", f"{said} of previous turn.")
        open_calls = calls
        turns.append(Turn(role, _parts(content, f"messages.{at}.content", role)))
    if open_calls:
        said = f"Expected toolResult blocks at messages.{len(messages)}.content for the following Ids: "
        raise Refusal("invalid", said + ", ".join(open_calls))
    return turns


def _parts(content: list[Any], where: str, role: str) -> tuple[Part, ...]:
    found: list[Part] = []
    for at, block in enumerate(content):
        here = f"{where}.{at}"
        if not isinstance(block, dict) or len(block) != 1:
            raise Refusal("invalid", f"The ContentBlock object at {here} must set one of the following keys: text, ...")
        _only(block, _BLOCKS, f"{here}.")
        kind, value = next(iter(block.items()))
        if kind == "cachePoint":
            if value.get("type") != "default" or value.get("ttl", "5m") not in ("5m", "1h") or not found:
                raise Refusal("invalid", f"The cachePoint at {here} is not valid.")
            found[-1] = found[-1]._replace(mark=value.get("ttl", "5m"))
        else:
            found.append(_part(kind, value, here, role))
    return tuple(found)


def _part(kind: str, value: Any, where: str, role: str) -> Part:
    if kind == "text":
        if not isinstance(value, str) or not value.strip():
            raise Refusal("invalid", f"The text field in the ContentBlock object at {where} is blank.")
        return Part("text", value)
    if kind == "toolUse":
        _only(value, frozenset(("toolUseId", "name", "input", "type")), f"{where}.toolUse.")
        if role != "assistant" or not isinstance(value.get("input"), dict):
            raise Refusal(
                "invalid", f"The format of the value at {where}.toolUse.input is invalid. Provide a json object"
            )
        if not re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", str(value.get("toolUseId", ""))):
            raise Refusal("invalid", f"Value at '{where}.toolUse.toolUseId' failed to satisfy constraint")
        return Part("call", json_of([value.get("name"), value["input"]]))
    if kind == "toolResult":
        return _result(value, where, role)
    if kind == "reasoningContent":
        return _reasoning(value, where, role)
    if kind == "image" or kind == "document":
        formats = _IMAGES if kind == "image" else _DOCUMENTS
        if value.get("format") not in formats:
            raise Refusal("invalid", f"The format at {where}.{kind} is not supported.")
        if kind == "document" and not re.fullmatch(r"[A-Za-z0-9\s\-()\[\]]{1,200}", str(value.get("name", ""))):
            raise Refusal(
                "invalid", f"The document file name at {where}.document can only contain alphanumeric characters"
            )
        source = value.get("source") or {}
        try:
            data = b64decode(str(source["bytes"]), validate=True) if "bytes" in source else json_of(source).encode()
        except ValueError:
            data = b""
        if not data:
            raise Refusal("invalid", f"Could not process {kind} at {where}.")
    return Part("media", json_of(value))


def _result(value: Any, where: str, role: str) -> Part:
    _only(value, frozenset(("toolUseId", "content", "status", "type")), f"{where}.toolResult.")
    content = value.get("content")
    if role != "user" or not isinstance(content, list):
        raise Refusal("invalid", f"toolResult blocks at {where} can only be in user messages.")
    if not content and value.get("status") == "error":
        raise Refusal("invalid", f"The content field at {where}.toolResult cannot be empty when status value is error.")
    said = []
    for at, each in enumerate(content):
        _only(each, frozenset(("text", "json", "image", "document", "video")), f"{where}.toolResult.content.{at}.")
        said.append(str(each["text"]) if "text" in each else json_of(each))
    return Part("result", " ".join(said))


def _reasoning(value: Any, where: str, role: str) -> Part:
    text = value.get("reasoningText") if isinstance(value, dict) else None
    if role != "assistant" or not isinstance(value, dict) or not ("redactedContent" in value or isinstance(text, dict)):
        raise Refusal("invalid", f"The reasoningContent at {where} is not valid.")
    if isinstance(text, dict):
        if not holds(str(text.get("text", "")), text.get("signature")):
            raise Refusal("invalid", f"{where}: Invalid `signature` in `thinking` block")
        return Part("thought", str(text.get("text", "")))
    return Part("thought", str(value["redactedContent"]))


def _tools(said: Any) -> tuple[Tool, ...]:
    found: list[Tool] = []
    for at, each in enumerate(said or []):
        _only(each, frozenset(("toolSpec", "cachePoint", "systemTool")), f"toolConfig.tools.{at}.")
        if "cachePoint" in each:
            if not found:
                raise Refusal("invalid", f"The cachePoint at toolConfig.tools.{at} is not valid.")
            found[-1] = found[-1]._replace(mark=each["cachePoint"].get("ttl", "5m"))
            continue
        spec = each.get("toolSpec") or {}
        _only(spec, frozenset(("name", "description", "inputSchema", "strict")), f"toolConfig.tools.{at}.toolSpec.")
        schema = (spec.get("inputSchema") or {}).get("json")
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", str(spec.get("name", ""))):
            raise Refusal(
                "invalid", f"Value at 'toolConfig.tools.{at}.member.toolSpec.name' failed to satisfy constraint"
            )
        if not isinstance(schema, dict) or schema.get("type") != "object":
            where = f"toolConfig.tools.{at}.toolSpec.inputSchema.json.type"
            raise Refusal("invalid", f"The value at {where} must be one of the following: object.")
        if spec.get("description") == "":
            raise Refusal("invalid", f"toolConfig.tools.{at}.toolSpec.description: Invalid length: 0, min length: 1")
        found.append(Tool(spec["name"], schema))
    return tuple(found)


def _choice(said: Any, tools: tuple[Tool, ...]) -> tuple[Literal["auto", "any", "named"], str]:
    if said is None:
        return "auto", ""
    if not isinstance(said, dict) or len(said) != 1:
        raise Refusal("invalid", "toolConfig.toolChoice must set one of the following keys: auto, any, tool.")
    kind, value = next(iter(said.items()))
    if kind in ("auto", "any"):
        return kind, ""
    if kind != "tool" or value.get("name") not in {tool.name for tool in tools}:
        raise Refusal("invalid", "toolConfig.toolChoice.tool.name is not one of the tools.")
    return "named", str(value["name"])


def _thinking(more: dict[str, Any], inference: dict[str, Any]) -> int:
    said = more.get("thinking") or more.get("reasoning_config")
    if not isinstance(said, dict) or said.get("type") == "disabled":
        return 0
    if inference.get("temperature") not in (None, 1):
        raise Refusal("invalid", "`temperature` may only be set to 1 when thinking is enabled.")
    if said.get("type") == "adaptive":
        return 64
    budget = said.get("budget_tokens")
    if not isinstance(budget, int) or budget < LEAST_BUDGET:
        raise Refusal("invalid", "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    limit = inference.get("maxTokens")
    if limit is not None and budget >= limit:
        raise Refusal("invalid", "`max_tokens` must be greater than `thinking.budget_tokens`.")
    return budget


def _schema(said: Any) -> Any:
    format = said.get("textFormat") if isinstance(said, dict) else None
    if format is None:
        return None
    try:
        return raw(format["structure"]["jsonSchema"]["schema"].encode())
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Refusal("invalid", "outputConfig.textFormat.structure.jsonSchema.schema is not valid JSON.") from None
