"""What is asked of a model as Amazon Bedrock's Converse takes it. Nobody asks us through it: there is no reader.

Shapes, names and limits are those of the public service model (bedrock-runtime 2023-09-30, ConverseRequest), with what
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html adds in words. What the API refuses
though it means nothing is mended on the way: blank texts are left out, turns of one role after another become one.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final
from urllib.parse import quote

import msgspec

from . import claude
from .calls import Ids, arguments
from .conversation import Conversation, Media, Part, Shape, Text, Thought, Tool, ToolResult, ToolUse, Turn
from .converse_families import Extra, Family, extra, family_of
from .dialects import Asking, Body

IMAGES: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}

LEFT_OUT: Final = frozenset(
    {
        # Who asks, and how it is to be kept, billed and hurried, is between the account's owner and AWS.
        "metadata", "store", "safety_identifier", "user", "service_tier", "speed",
        # How the same answer is computed, or sent.
        "prediction", "seed", "stream_options",
        # Where to look for a cached prompt: cache points say that.
        "cache_control", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
        # What may be left out of a prompt that has grown long: nothing is.
        "context_management",
        # A wish for shorter or longer prose.
        "verbosity",
    }
)  # fmt: skip
"""Fields that do not change what is asked for."""

NO_RESULT: Final = "(no output)"
"""Stands for the result of a tool that has said nothing: a blank text is refused."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,60}").fullmatch  # of 64: one that is used twice becomes two
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9\-()\[\]]+")
_NO_ARGUMENTS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_PAST: Final = "Was used earlier in this conversation. It cannot be used any more."

Json = dict[str, Any]


def write(asked: Conversation, model: str) -> Body:
    family = family_of(model)
    more = extra(asked, family)
    messages, system = _messages(asked, family), _system(asked, family)
    if not messages:  # who asks by instructions alone wants an answer to them
        messages, system = [{"role": "user", "content": system}], []
    body: Json = {"messages": messages}
    if system:
        body["system"] = system
    if inference := _inference(asked, more):
        body["inferenceConfig"] = inference
    if tools := _tools(asked, family):
        body["toolConfig"] = tools
    if _one_by_one(asked) and asked.choice is not None:
        kind = {"type": "auto"} if asked.choice.mode == "auto" else {}  # else it stands in the tools' own choice
        more.fields["tool_choice"] = {**kind, "disable_parallel_tool_use": True}
    if more.fields:
        body["additionalModelRequestFields"] = more.fields
    if asked.stop:
        body["additionalModelResponseFieldPaths"] = ["/stop_sequence"]  # a model that has none is not asked for it
    output: Json = {} if more.effort is None else {"effort": more.effort}
    if asked.shape is not None and asked.shape.schema is not None:
        output["textFormat"] = _shape(asked.shape, asked.shape.schema)
    if output:
        body["outputConfig"] = output
    how = "converse-stream" if asked.stream else "converse"
    return Body(f"/model/{quote(model, safe='-._~')}/{how}", msgspec.json.encode(body))


def uncarried(asked: Conversation, model: str = "") -> tuple[str, ...]:
    found: list[str] = []
    for number, turn in enumerate(asked.turns):
        for place, part in enumerate(turn.parts):
            if not _carried(part, turn):
                found.append(f"messages[{number}].content[{place}]")
    if (first := next((turn for turn in asked.turns if turn.role != "system"), None)) and first.role == "assistant":
        found.append("messages[0].role")
    if asked.turns and asked.turns[-1].role == "assistant":
        found.append(f"messages[{len(asked.turns) - 1}].role")  # some would go on with it, and others refuse it
    if not all(_TOOL_NAME(tool.name) for tool in asked.tools):
        found.append("tools")
    if _one_by_one(asked) and not family_of(model).one_by_one:
        found.append("parallel_tool_calls")
    if family_of(model).name == "claude" and any(not each.strip() for each in asked.stop):
        found.append("stop")
    if asked.shape is not None and asked.shape.schema is None:
        found.append("response_format")
    found += [name for name in asked.extras if name not in LEFT_OUT]
    return tuple(found)


def _one_by_one(asked: Conversation) -> bool:
    choice = asked.choice
    return choice is not None and choice.parallel is False and choice.mode != "none" and bool(asked.tools)


def _carried(part: Part, turn: Turn) -> bool:
    """Pictures and documents stand in the user's turns only, with their bytes."""
    match part:
        case Media():
            return turn.role == "user" and part.data is not None and (part.kind in IMAGES or part.kind in DOCUMENTS)
        case ToolResult():
            return all(_carried(each, turn) for each in part.parts)
        case ToolUse():
            return _TOOL_NAME(part.name) is not None
    return True


def _messages(asked: Conversation, family: Family) -> list[Json]:
    """Turns of the same role are one, in which results of tools come first; none is empty."""
    turns: list[tuple[str, list[Part]]] = []
    for turn in asked.turns:
        parts = [part for part in turn.parts if _says_something(part, family)]
        if turn.role == "system" or not parts:
            continue
        if turns and turns[-1][0] == turn.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((turn.role, parts))
    made = _Made(family)
    return [{"role": role, "content": made.content(parts)} for role, parts in turns]


def _says_something(part: Part, family: Family) -> bool:
    """Blank texts are refused, and so are thoughts that no model there can have had."""
    if isinstance(part, Text):
        return bool(part.text.strip())
    return not isinstance(part, Thought) or (family.keeps_thoughts and claude.own(part))


class _Made:
    """Makes blocks of parts; knows the ids and names that the request has by now."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._ids = Ids(_tool_id)
        self._names: set[str] = set()

    def content(self, parts: list[Part]) -> list[Json]:
        blocks: list[Json] = []
        for part in sorted(parts, key=lambda part: not isinstance(part, ToolResult)):
            blocks.append(self._block(part))
            if not isinstance(part, Thought) and part.cached and self._family.caches:
                blocks.append(_cache_point(part.ttl, self._family))
        named = [block["document"]["name"] for block in blocks if "document" in block]
        if named and not any("text" in block for block in blocks):
            blocks.append({"text": ", ".join(named)})  # beside a document there has to be a text
        return blocks

    def _block(self, part: Part) -> Json:
        match part:
            case Text():
                return {"text": part.text}
            case Media():
                return self._media(part)
            case Thought():
                if part.sealed is not None:
                    return {"reasoningContent": {"redactedContent": part.sealed}}
                return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
            case ToolUse():
                used = {"toolUseId": self._ids.used(part.id), "name": part.name, "input": arguments(part.arguments)}
                return {"toolUse": used}
        return {"toolResult": self._result(part)}

    def _result(self, result: ToolResult) -> Json:
        content = [self._block(part) for part in result.parts if not (isinstance(part, Text) and not part.text.strip())]
        said: Json = {"toolUseId": self._ids.answered(result.id), "content": content or [{"text": NO_RESULT}]}
        if result.failed and self._family.takes_failures:
            said["status"] = "error"
        elif result.failed and not any("error" in part.get("text", "")[:64].lower() for part in content):
            said["content"] = [{"text": "Error"}, *content]
        return said

    def _media(self, media: Media) -> Json:
        assert media.kind is not None
        source = {"bytes": media.data}
        if not media.document:
            return {"image": {"format": IMAGES[media.kind], "source": source}}
        return {"document": {"format": DOCUMENTS[media.kind], "name": self._name(media.name), "source": source}}

    def _name(self, said: str | None) -> str:
        """A name in the letters that are allowed; no two documents of a request may have the same."""
        name = plain = _NOT_IN_NAMES.sub(" ", said or "").strip()[:180].strip() or "document"
        number = 1
        while name in self._names:
            number += 1
            name = f"{plain} ({number})"
        self._names.add(name)
        return name


def _cache_point(ttl: str | None, family: Family) -> Json:
    """Five minutes is what everybody has who says nothing, and what models without a choice refuse to be told."""
    long = {"ttl": "1h"} if ttl == "1h" and family.caches_all else {}
    return {"cachePoint": {"type": "default", **long}}


def _tool_id(said: str) -> str:
    """The id, or one made of it where it has letters or a length that are refused: the same one every time."""
    return said if _TOOL_ID(said) else "tool_" + hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32]


def _system(asked: Conversation, family: Family) -> list[Json]:
    """What a system says in the middle of a conversation goes to its front: Converse has no other place for it."""
    blocks: list[Json] = []
    later = (part for turn in asked.turns if turn.role == "system" for part in turn.parts if isinstance(part, Text))
    for text in (*asked.system, *later):
        if text.text.strip():
            blocks.append({"text": text.text})
            if text.cached and family.caches:
                blocks.append(_cache_point(text.ttl, family))
    return blocks


def _inference(asked: Conversation, more: Extra) -> Json:
    """Temperatures end at 1, where Anthropic's own reading of OpenAI's API cuts them, too; of temperature and `topP`
    newer models take one, and most clients mean the first."""
    inference: Json = {}
    if asked.max_tokens is not None and more.limited:
        inference["maxTokens"] = asked.max_tokens
    if asked.temperature is not None and more.samples:
        inference["temperature"] = min(asked.temperature, 1)
    elif asked.top_p is not None and more.samples:
        inference["topP"] = asked.top_p
    if stop := [each for each in asked.stop if each]:
        inference["stopSequences"] = stop
    return inference


def _tools(asked: Conversation, family: Family) -> Json | None:
    """There is no `none`: tools that may not be asked for are left out. But tools that the conversation speaks of have
    to be there, and stand there as gone."""
    tools = () if asked.choice is not None and asked.choice.mode == "none" else asked.tools
    if not tools:
        used = {part.name for turn in asked.turns for part in turn.parts if isinstance(part, ToolUse)}
        if not used and any(isinstance(part, ToolResult) for turn in asked.turns for part in turn.parts):
            used = {"tool"}
        past = [Tool(name, b"", _PAST) for name in sorted(used)]
        return {"tools": [{"toolSpec": _tool(tool)} for tool in past]} if past else None
    listed: list[Json] = []
    for tool in tools:
        listed.append({"toolSpec": _tool(tool, family.strict)})
        if tool.cached and family.caches_all:
            listed.append(_cache_point(tool.ttl, family))
    config: Json = {"tools": listed}
    if asked.choice is not None and asked.choice.mode == "any":
        config["toolChoice"] = {"any": {}}
    elif asked.choice is not None and asked.choice.mode == "named":
        config["toolChoice"] = {"tool": {"name": asked.choice.name}}
    return config


def _tool(tool: Tool, strict: bool = False) -> Json:
    schema = msgspec.Raw(tool.schema) if tool.schema.strip() not in (b"", b"{}", b"null") else _NO_ARGUMENTS
    spec: Json = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description and tool.description.strip():
        spec["description"] = tool.description
    if tool.strict and strict:
        spec["strict"] = True
    return spec


def _shape(shape: Shape, schema: bytes) -> Json:
    said: Json = {"schema": schema.decode()}
    if shape.name:
        said["name"] = shape.name
    if shape.description:
        said["description"] = shape.description
    return {"type": "json_schema", "structure": {"jsonSchema": said}}


ASKING: Final = Asking(None, write, uncarried)
