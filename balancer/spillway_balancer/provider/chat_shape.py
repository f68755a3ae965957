"""Answers to chat completions, as each of the families that speak them puts them.

Sources: OpenAI's API reference ("The chat completion object", "... chunk object"), Azure OpenAI's content filter
annotations, and the references of Mistral, Groq, DeepSeek, OpenRouter, xAI and Gemini's OpenAI compatibility.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .families import Family
from .frames import Frame, Serving, event
from .refusals import Refusal
from .replies import Block, Call, Said, Thought, pieces, size, tokens

DONE: Final = b"data: [DONE]\n\n"
_ENDS: Final = {"stop": "stop", "length": "length", "tools": "tool_calls", "sequence": "stop"}
_SAFE: Final = {kind: {"filtered": False, "severity": "safe"} for kind in ("hate", "self_harm", "sexual", "violence")}


class ChatShape:
    media = "text/event-stream; charset=utf-8"

    def __init__(self, family: Family, serving: Serving) -> None:
        self._family = family
        self._traits = family.chat
        self._serving = serving
        self._head: dict[str, Any] = {
            "id": ("gen-" if family.type == "openrouter" else "chatcmpl-") + serving.id.removeprefix("req_"),
            "object": "chat.completion.chunk",
            "created": serving.created,
            "model": serving.model,
        }
        if family.type in ("openai", "azure"):
            self._head |= {"service_tier": "default", "system_fingerprint": "fp_fake"}
        if family.type == "openrouter":
            self._head["provider"] = "Fake"

    # ---- streams -------------------------------------------------------------------------------------------

    def stream(self) -> list[Frame]:
        traits, serving = self._traits, self._serving
        frames: list[Frame] = [Frame(traits.comment * 2)] if traits.comment else []
        if traits.filters:
            results = [{"prompt_index": 0, "content_filter_results": _SAFE}]
            empty = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": results}
            frames.append(Frame(event(empty)))
        frames.append(Frame(self._chunk({"role": "assistant", "content": ""}, extra=self._first())))
        silent = 0
        made = 0
        calls = 0
        for block in serving.reply.blocks:
            if isinstance(block, Thought) and traits.thoughts == "hidden":
                silent += size(block)
                continue
            for delta, worth in self._deltas(block, calls):
                made += worth + silent
                frames.append(Frame(self._chunk(delta, so_far=made), worth + silent, content=True))
                silent = 0
            calls += isinstance(block, Call)
        return frames + self._closing(silent)

    def _deltas(self, block: Block, at: int) -> list[tuple[dict[str, Any], int]]:
        if isinstance(block, Said):
            return [({"content": each}, tokens(each)) for each in pieces(block.text)]
        if isinstance(block, Thought):
            if self._traits.thoughts == "parts":
                return [({"content": [_thinking(each)]}, tokens(each)) for each in pieces(block.text)]
            return [({self._traits.thoughts: each}, tokens(each)) for each in pieces(block.text)]
        opening = {"index": at, "id": self._call_id(block), "type": "function"}
        named = opening | {"function": {"name": block.name, "arguments": ""}}
        found: list[tuple[dict[str, Any], int]] = [({"tool_calls": [named]}, tokens(block.name))]
        found.extend(
            ({"tool_calls": [{"index": at, "function": {"arguments": each}}]}, tokens(each))
            for each in pieces(block.arguments)
        )
        return found

    def _closing(self, silent: int) -> list[Frame]:
        traits, serving = self._traits, self._serving
        usage = self._usage()
        end = _ENDS[serving.reply.end]
        extra: dict[str, Any] = {}
        if traits.usage == "last" or (traits.usage == "each" and serving.tell_usage):
            extra["usage"] = usage
        if traits.usage == "groq":
            extra["x_groq"] = {"id": serving.id, "usage": usage}
        frames = [Frame(self._chunk({}, end=end, extra=extra), silent, told=bool(extra))]
        if traits.usage == "openrouter":
            frames.append(Frame(self._chunk({"role": "assistant", "content": ""}, extra={"usage": usage}), told=True))
        elif serving.tell_usage and traits.usage in ("asked", "groq"):
            frames.append(Frame(event(self._head | {"choices": [], "usage": usage}), told=True))
        return [*frames, Frame(DONE)]

    def _chunk(
        self, delta: dict[str, Any], *, end: str | None = None, extra: dict[str, Any] | None = None, so_far: int = 0
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}
        if self._traits.filters:
            choice["content_filter_results"] = _SAFE if "content" in delta else {}
        chunk = self._head | {"choices": [choice]} | (extra or {})
        if self._serving.tell_usage and "usage" not in chunk:
            if self._traits.usage == "each":
                chunk["usage"] = {"prompt_tokens": self._serving.counted.prompt, "completion_tokens": so_far}
                chunk["usage"]["total_tokens"] = self._serving.counted.prompt + so_far
            elif self._traits.usage == "asked":
                chunk["usage"] = None
        return event(chunk)

    def _call_id(self, block: Call) -> str:
        """Mistral's have nine characters, and no others are taken."""
        return block.id[:9] if self._traits.nested else f"call_{block.id}"

    def _first(self) -> dict[str, Any]:
        return {"x_groq": {"id": self._serving.id}} if self._traits.usage == "groq" else {}

    # ---- whole answers -------------------------------------------------------------------------------------

    def whole(self) -> bytes:
        reply = self._serving.reply
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        calls = []
        for block in reply.blocks:
            if isinstance(block, Said):
                message["content"] = _joined(message["content"], block.text)
            elif isinstance(block, Thought):
                if self._traits.thoughts == "parts":
                    message["content"] = [_thinking(block.text)]
                elif self._traits.thoughts != "hidden":
                    message[self._traits.thoughts] = block.text
            else:
                function = {"name": block.name, "arguments": block.arguments}
                calls.append({"id": self._call_id(block), "type": "function", "function": function})
        if calls:
            message["tool_calls"] = calls
        choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": _ENDS[reply.end]}
        if self._traits.filters:
            choice["content_filter_results"] = _SAFE
        answer = self._head | {"object": "chat.completion", "choices": [choice], "usage": self._usage()}
        if self._traits.filters:
            answer["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _SAFE}]
        if self._traits.usage == "groq":
            answer["x_groq"] = {"id": self._serving.id}
        return msgspec.json.encode(answer)

    def _usage(self) -> dict[str, Any]:
        """Prompts include what was cached; thoughts are in completion_tokens, but for those who count them apart."""
        counted = self._serving.counted
        spoken = counted.output - counted.reasoning if self._traits.apart else counted.output
        usage: dict[str, Any] = {
            "prompt_tokens": counted.prompt,
            "completion_tokens": spoken,
            "total_tokens": counted.prompt + counted.output,
        }
        if self._family.cache is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": counted.cached, "audio_tokens": 0}
        if counted.reasoning or self._family.type in ("openai", "azure", "xai"):
            usage["completion_tokens_details"] = {"reasoning_tokens": counted.reasoning}
        if self._traits.hits:
            usage["prompt_cache_hit_tokens"] = counted.cached
            usage["prompt_cache_miss_tokens"] = counted.prompt - counted.cached
        return usage

    # ---- what can go wrong ---------------------------------------------------------------------------------

    def error(self, refusal: Refusal) -> bytes:
        if self._family.type == "openrouter":
            error = {"code": "server_error", "message": refusal.message}
            choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
            return event(self._head | {"error": error, "choices": [choice]}) + DONE
        answer = self._family.refuse(refusal, self._serving.id)
        return b"data: " + answer.body + b"\n\n"

    def ping(self) -> bytes:
        return self._traits.comment or b": ping\n\n"

    def broken(self, frame: bytes) -> bytes:
        return frame[: max(len(b"data: {"), len(frame) // 2)] + b"\n\n"


def _thinking(said: str) -> dict[str, Any]:
    """Mistral's form of thoughts."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": said}]}


def _joined(before: Any, said: str) -> Any:
    return [*before, {"type": "text", "text": said}] if isinstance(before, list) else (before or "") + said
