"""A conversation as the body of a chat completion, in the manner of the server that is asked.

What is said otherwise than it was, for chat completions have no place for it:
- Texts that follow one another become one string, with an empty line between them: many servers take no list of them.
- Pictures and documents that a tool has returned stand in a message of the user's behind its own, which is text alone.
- A tool that has failed says so in its text.
- Reasoning of earlier answers goes, as `reasoning_content`, to servers that read it, for those answers alone that
  belong to the loop of tools that is under way: chat templates leave out the rest. Signatures and what is sealed can
  be read by the provider that made it, and stay here; those of Gemini go back to it. DeepSeek wants the field always.
- Efforts are low, medium or high, which is what all servers know that know any, and are said to models that do not
  refuse them. "none" is not said: no field is what all models take.
- A name of the user that is longer than OpenAI takes becomes a hash of it: agents put more than a name there.
- Mistral takes no message of the user's behind a tool's: a short one of the assistant's stands between them there. Nor
  does it take the ids that others give to calls of tools: they are hashed to its own form.
- What is to be cached is not said: these servers find that out themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from spillway_api.providers import OutputLimit, Preset

from ..providers.takeover import BRIDGE, UNSIGNED, signature, signs, strict_id
from . import efforts, media
from .chat_turns import GOOGLE
from .conversation import Conversation, Media, Part, Text, Thought, ToolChoice, ToolResult, ToolUse, Turn
from .dialects import Body

PATH: Final = "/v1/chat/completions"

CARRIED: Final = frozenset(
    {"seed", "frequency_penalty", "presence_penalty", "repetition_penalty", "min_p", "logit_bias", "verbosity"}
)
"""Extras that go on as they came: chat completions have them by these names."""

DROPPED: Final[Mapping[str, str]] = {
    "metadata": "of the client's own bookkeeping",
    "store": "of the client's own bookkeeping",
    "safety_identifier": "who asks, for the provider's own policing",
    "prompt_cache_key": "where to look for a cached prompt",
    "prompt_cache_options": "how to cache a prompt",
    "prompt_cache_retention": "how to cache a prompt",
    "cache_control": "how to cache a prompt",
    "context_management": "what may be left out of a prompt that has grown long: nothing is",
    "service_tier": "how fast, and at which price: one provider's own",
    "speed": "how fast, and at which price: one provider's own",
}
"""Extras that are left out, and what they are: the answer is the same without them."""

MAX_USER: Final = 64
"""Characters of `user`."""
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}

_encode = msgspec.json.Encoder().encode


class Manner(NamedTuple):
    """How a server wants to be asked."""

    limit: OutputLimit
    asks_usage: bool
    """Whether its streams tell their usage only when they are asked to."""
    takes: frozenset[str]
    """This and the next as in `Preset`."""
    strict: bool
    reasoning: Literal["needed", "refused"] | None
    efforts: str | None

    def write(self, asked: Conversation, model: str) -> Body:
        body: dict[str, Any] = {"model": model, "messages": list(self._messages(asked, model))}
        if asked.max_tokens is not None:
            body[self.limit] = asked.max_tokens
        for name in ("temperature", "top_p", "top_k"):
            if (value := getattr(asked, name)) is not None:
                body[name] = value
        if asked.user is not None and not self.strict:
            body["user"] = _user(asked.user)
        if asked.stop:
            body["stop"] = asked.stop
        if asked.tools:
            body["tools"] = [_tool(tool.name, tool.description, tool.schema, tool.strict) for tool in asked.tools]
            body |= _choice(asked.choice)
        if asked.shape is not None:
            shape = asked.shape
            body["response_format"] = (
                {"type": "json_object"}
                if shape.schema is None
                else {
                    "type": "json_schema",
                    "json_schema": _said(
                        name=shape.name or "answer",
                        description=shape.description,
                        schema=msgspec.Raw(shape.schema),
                        strict=shape.strict,
                    ),
                }
            )
        effort = None if asked.reasoning is None else efforts.effort(asked.reasoning)
        if effort in _EFFORTS and (self.efforts is None or re.search(self.efforts, model)):
            body["reasoning_effort"] = _EFFORTS[effort]
        if asked.turns and self._goes_on(asked.turns[-1]):
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if asked.stream:
            body["stream"] = True
            if self.asks_usage:
                body["stream_options"] = {"include_usage": True}
        body |= {name: raw for name, raw in asked.extras.items() if name in CARRIED}
        return Body(PATH, _encode(body))

    def uncarried(self, asked: Conversation, model: str = "") -> tuple[str, ...]:
        lost = [name for name in asked.extras if name not in CARRIED and name not in DROPPED]
        if asked.top_k is not None and "top_k" not in self.takes:
            lost.append("top_k")
        for index, turn in enumerate(asked.turns):
            at = f"messages[{index}].content"
            lost += self._lost(turn.parts, at, spoken=turn.role != "user")
        if asked.turns and asked.turns[-1].role == "assistant" and not self._goes_on(asked.turns[-1]):
            lost.append(f"messages[{len(asked.turns) - 1}]")
        return tuple(lost)

    def _lost(self, parts: Sequence[Part], at: str, spoken: bool) -> Iterator[str]:
        for index, part in enumerate(parts):
            there = f"{at}[{index}]"
            if isinstance(part, ToolResult):
                yield from self._lost(part.parts, f"{there}.content", spoken)
            elif isinstance(part, Media) and (spoken or not self._carries(part)):
                yield there

    def _carries(self, part: Media) -> bool:
        if not part.document or media.text_of(part) is not None:
            return True
        return part.data is not None and "file" in self.takes

    def _goes_on(self, last: Turn) -> bool:
        """Whether the answer is to begin with what the last turn says, which is the assistant's own text."""
        if last.role != "assistant" or "continue_final_message" not in self.takes:
            return False
        return not any(isinstance(part, ToolUse) for part in last.parts)

    def _messages(self, asked: Conversation, model: str) -> Iterator[dict[str, Any]]:
        signed = signs(self.takes, model)
        if asked.system:
            yield {"role": "system", "content": _joined(asked.system)}
        loop = len(asked.turns)
        if "reasoning_content" in self.takes:
            loop = 0 if self.reasoning == "needed" else _loop(asked.turns)
        for index, turn in enumerate(asked.turns):
            if turn.role == "user":
                yield from self._heard(turn.parts)
            elif turn.role == "assistant":
                yield self._answered(turn.parts, index >= loop, signed)
            else:
                yield {"role": "system", "content": _joined(turn.parts)}

    def _heard(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        rest: list[Text | Media] = []
        results = 0
        for part in parts:
            if isinstance(part, ToolResult):
                results += 1
                seen = [each for each in part.parts if isinstance(each, Media) and media.text_of(each) is None]
                if seen:
                    rest += (Text(f"What the tool call {self._id(part.id)} has returned:"), *seen)
                yield {"role": "tool", "tool_call_id": self._id(part.id), "content": _returned(part, bool(seen))}
            elif isinstance(part, Text | Media):
                rest.append(part)
        if results and rest and self.strict:
            yield BRIDGE
        if rest or not results:
            yield {"role": "user", "content": _content(rest)}

    def _answered(self, parts: Sequence[Part], thinking: bool, signed: bool) -> dict[str, Any]:
        calls: list[dict[str, Any]] = [
            {
                "id": self._id(part.id),
                "type": "function",
                "function": {"name": part.name, "arguments": part.arguments.decode()},
            }
            for part in parts
            if isinstance(part, ToolUse)
        ]
        words = _joined(parts)
        message: dict[str, Any] = {"role": "assistant", "content": words if words or not calls else None}
        thoughts = "".join(part.text for part in parts if isinstance(part, Thought)) if thinking else ""
        if thoughts or self.reasoning == "needed":
            message["reasoning_content"] = thoughts
        if calls:
            if signed:
                _sign(calls, parts)
            message["tool_calls"] = calls
        return message

    def _id(self, given: str) -> str:
        return strict_id(given) if self.strict else given


def manner_of(preset: Preset) -> Manner:
    return Manner(preset.limit, not preset.tells_usage, preset.takes, preset.strict, preset.reasoning, preset.efforts)


def _loop(turns: Sequence[Turn]) -> int:
    """Where the loop of tools that is under way begins: behind the last that the user said himself."""
    for index in range(len(turns) - 1, -1, -1):
        turn = turns[index]
        if turn.role == "user" and not any(isinstance(part, ToolResult) for part in turn.parts):
            return index
    return 0


def _sign(calls: list[dict[str, Any]], parts: Iterable[Part]) -> None:
    """Every answer's first call has a signature: Gemini's own, or what stands for one where another model has asked."""
    signatures = {0: UNSIGNED}
    at = 0
    for part in parts:
        if isinstance(part, ToolUse):
            at += 1
        elif isinstance(part, Thought) and part.signature is not None and part.signature.startswith(GOOGLE):
            signatures[min(at, len(calls) - 1)] = part.signature.removeprefix(GOOGLE)
    for at, given in signatures.items():
        calls[at]["extra_content"] = signature(given)


def _joined(parts: Iterable[Part]) -> str:
    return "\n\n".join(part.text for part in parts if isinstance(part, Text) and part.text)


def _content(parts: Sequence[Text | Media]) -> str | list[dict[str, Any]]:
    words = [
        Text(text) if isinstance(each, Media) and (text := media.text_of(each)) is not None else each for each in parts
    ]
    if not any(isinstance(each, Media) for each in words):
        return _joined(words)
    return [_part(each) for each in words if isinstance(each, Media) or each.text]


def _part(part: Text | Media) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if part.document:
        return {"type": "file", "file": {"filename": part.name or "document", "file_data": media.url_of(part)}}
    return {"type": "image_url", "image_url": _said(url=media.url_of(part), detail=part.detail)}


def _returned(result: ToolResult, more: bool) -> str:
    words = _content([part for part in result.parts if isinstance(part, Text) or media.text_of(part) is not None])
    assert isinstance(words, str)  # a list is for what is no text
    if not words and more:
        words = "(in the user's message that follows)"
    if result.failed and "error" not in words[:64].lower():
        words = f"Error: {words}" if words else "Error"
    return words


def _tool(name: str, description: str | None, schema: bytes, strict: bool | None) -> dict[str, Any]:
    function = _said(name=name, description=description, parameters=msgspec.Raw(schema), strict=strict)
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    said: Any = _CHOICES.get(choice.mode)
    if said is None:
        said = {"type": "function", "function": {"name": choice.name}}
    return _said(tool_choice=said, parallel_tool_calls=choice.parallel)


def _user(name: str) -> str:
    return name if len(name) <= MAX_USER else hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
