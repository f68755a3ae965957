"""What is asked of a model as Amazon Bedrock's Converse takes it. Nobody asks us through it: there is no reader.

Shapes, names and limits are those of the public service model (bedrock-runtime 2023-09-30, ConverseRequest), with what
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html adds in words. What the API refuses
though it means nothing is mended on the way: blank texts are left out, turns of one role after another become one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from .conversation import Conversation, Media, Part, Shape, Text, Thought, Tool, ToolResult, ToolUse, Turn
from .converse_families import Family, extra, family_of
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

LEFT_OUT: Final = {
    # Who asks, and how it is to be kept and billed, is between the account's owner and AWS.
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    # How the same answer is computed, or sent.
    "prediction",
    "seed",
    "stream_options",
}
"""Fields that do not change what an answer says."""

_NOTHING_ASKED: Final = {
    "frequency_penalty": (b"0", b"0.0"),
    "logit_bias": (b"{}",),
    "logprobs": (b"false",),
    "modalities": (b'["text"]',),
    "n": (b"1",),
    "presence_penalty": (b"0", b"0.0"),
    "top_logprobs": (b"0",),
}
"""Fields that say nothing with these values, which SDKs may send all the same."""

NO_RESULT: Final = "(no output)"
"""Stands for the result of a tool that has said nothing: a blank text is refused."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}").fullmatch
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9\-()\[\]]+")
_NO_ARGUMENTS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_PAST: Final = "Was used earlier in this conversation. It cannot be used any more."

Json = dict[str, Any]


def write(asked: Conversation, model: str) -> Body:
    family = family_of(model)
    more = extra(asked, family)
    body: Json = {"messages": _messages(asked, family)}
    if system := _system(asked, family):
        body["system"] = system
    if inference := _inference(asked, more.thinks, "thinking" in more.fields):
        body["inferenceConfig"] = inference
    if tools := _tools(asked, family):
        body["toolConfig"] = tools
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


def uncarried(asked: Conversation) -> tuple[str, ...]:
    found: list[str] = []
    for number, turn in enumerate(asked.turns):
        for place, part in enumerate(turn.parts):
            if not _carried(part, turn):
                found.append(f"messages[{number}].content[{place}]")
    if (first := next((turn for turn in asked.turns if turn.role != "system"), None)) and first.role == "assistant":
        found.append("messages[0].role")
    if not all(_TOOL_NAME(tool.name) for tool in asked.tools):
        found.append("tools")
    if asked.choice is not None and asked.choice.parallel is False and asked.choice.mode != "none" and asked.tools:
        found.append("parallel_tool_calls")
    if asked.shape is not None and asked.shape.schema is None:
        found.append("response_format")
    for name, value in asked.extras.items():
        if name not in LEFT_OUT and bytes(value) not in (b"null", *_NOTHING_ASKED.get(name, ())):
            found.append(name)
    return tuple(found)


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
    names: set[str] = set()
    messages: list[Json] = []
    for turn in asked.turns:
        if turn.role == "system":
            continue
        content = [block for part in turn.parts for block in _blocks(part, family, names)]
        if not content:
            continue
        if messages and messages[-1]["role"] == turn.role:
            messages[-1]["content"] += content
        else:
            messages.append({"role": turn.role, "content": content})
    for message in messages:
        _name_documents(message["content"])
    return messages


def _blocks(part: Part, family: Family, names: set[str]) -> Iterable[Json]:
    match part:
        case Text():
            if not part.text.strip():
                return
            yield {"text": part.text}
        case Media():
            yield _media(part, names)
        case Thought():
            if family.keeps_thoughts and (part.signature or part.sealed):
                yield {"reasoningContent": _thought(part)}
            return
        case ToolUse():
            called = {"toolUseId": _tool_id(part.id), "name": part.name, "input": msgspec.Raw(part.arguments or b"{}")}
            yield {"toolUse": called}
        case ToolResult():
            yield {"toolResult": _result(part, names)}
    if part.cached and family.caches:
        yield _cache_point(part.ttl, family)


def _cache_point(ttl: str | None, family: Family) -> Json:
    """Five minutes is what everybody has who says nothing, and what models without a choice refuse to be told."""
    long = {"ttl": "1h"} if ttl == "1h" and family.caches_all else {}
    return {"cachePoint": {"type": "default", **long}}


def _media(media: Media, names: set[str]) -> Json:
    assert media.kind is not None
    source = {"bytes": media.data}
    if not media.document:
        return {"image": {"format": IMAGES[media.kind], "source": source}}
    return {"document": {"format": DOCUMENTS[media.kind], "name": _name(media.name, names), "source": source}}


def _name(said: str | None, names: set[str]) -> str:
    """A name in the letters that are allowed; no two documents of a request may have the same."""
    name = plain = _NOT_IN_NAMES.sub(" ", said or "").strip()[:180] or "document"
    number = 1
    while name in names:
        number += 1
        name = f"{plain} ({number})"
    names.add(name)
    return name


def _name_documents(content: list[Json]) -> None:
    """Beside a document there has to be a text; where nothing is said, its name is."""
    named = [block["document"]["name"] for block in content if "document" in block]
    if named and not any("text" in block for block in content):
        content.append({"text": ", ".join(named)})


def _thought(thought: Thought) -> Json:
    if thought.sealed is not None:
        return {"redactedContent": thought.sealed}
    return {"reasoningText": {"text": thought.text, "signature": thought.signature}}


def _result(result: ToolResult, names: set[str]) -> Json:
    content: list[Json] = []
    for part in result.parts:
        if isinstance(part, Media):
            content.append(_media(part, names))
        elif part.text.strip():
            content.append({"text": part.text})
    said: Json = {"toolUseId": _tool_id(result.id), "content": content or [{"text": NO_RESULT}]}
    if result.failed:
        said["status"] = "error"
    return said


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


def _inference(asked: Conversation, thinks: bool, as_claude: bool) -> Json:
    """Temperatures end at 1, where Anthropic's own reading of OpenAI's API cuts them, too. Who thinks chooses words by
    itself: Claude refuses numbers for it then, and Nova at its highest effort."""
    inference: Json = {}
    if asked.max_tokens is not None and (not thinks or as_claude):
        inference["maxTokens"] = asked.max_tokens
    if asked.temperature is not None and not thinks:
        inference["temperature"] = min(asked.temperature, 1)
    if asked.top_p is not None and not thinks and not (asked.top_p == 1 and asked.temperature is not None):
        inference["topP"] = asked.top_p  # newer models take one of the two; 1 says nothing
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
        listed.append({"toolSpec": _tool(tool)})
        if tool.cached and family.caches_all:
            listed.append(_cache_point(tool.ttl, family))
    config: Json = {"tools": listed}
    if asked.choice is not None and asked.choice.mode == "any":
        config["toolChoice"] = {"any": {}}
    elif asked.choice is not None and asked.choice.mode == "named":
        config["toolChoice"] = {"tool": {"name": asked.choice.name}}
    return config


def _tool(tool: Tool) -> Json:
    schema = msgspec.Raw(tool.schema) if tool.schema.strip() not in (b"", b"{}", b"null") else _NO_ARGUMENTS
    spec: Json = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description and tool.description.strip():
        spec["description"] = tool.description
    if tool.strict:
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
