"""Chat completions as they are answered: whole or as a stream, read as events; and `ANSWERING`, how they are written.

Formats: https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming. What servers do beside it:
- Azure begins with a chunk without choices; usage stands in the last chunk (DeepSeek, Mistral), in one of its own
  (OpenAI, vLLM), in `x_groq` (Groq), within the choice (Moonshot) or in all of them (engines that are asked to).
- Reasoning is `reasoning_content` (DeepSeek, SGLang, vLLM before 0.12), `reasoning` (vLLM, Groq, Ollama, OpenRouter,
  the latter with signatures in `reasoning_details`) or a part of the content (Mistral).
- Calls of tools come in pieces, or whole at the end; without index or id (Ollama), all with index 0 (Gemini), with
  arguments that are an object (Ollama); and `finish_reason` may be `stop` behind them.
- Gemini signs calls of tools, in `extra_content`: a thought with that signature and no words stands before the call.
- Errors stand where an answer was begun, in all the shapes that `wire.faults` knows.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from xxhash import xxh3_64_hexdigest

from ...core.learning import Usage
from ..counts import counted
from ..failures import words_of
from ..faults import ErrorFacts, error_of
from . import chat_chunks
from .chat_turns import signed_call, thought_of
from .checked import is_object
from .dialects import Answering
from .frames import MAX_EVENT, Frame, Frames
from .said import Alive, Argument, Asked, Began, Done, End, Ended, Event, Fault, Said, Thought, Told

_ENDS: Final[dict[str, End]] = {
    "stop": "stop",
    "eos_token": "stop",  # TGI, and the next
    "stop_sequence": "sequence",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tools",
    "function_call": "tools",
    "content_filter": "filter",
}
_FAILED: Final = frozenset({"error", "abort", "insufficient_system_resource"})
"""Reasons of OpenRouter and Mistral, of engines, and of DeepSeek: what was said until then is not the answer."""

_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class _Call:
    """A tool that is asked for. Its name may come behind its id, and is waited for."""

    __slots__ = ("at", "handed", "held", "id", "name", "told")

    def __init__(self, at: int) -> None:
        self.at = at
        self.id = ""
        self.name = ""
        self.held: list[str] = []
        self.handed: list[str] = []
        self.told = False

    def is_another(self, index: int | None, name_of: str, name: str) -> bool:
        """Whether this is said of a call that comes behind it, though its index is the same, or there is none."""
        if not self.name or not name:
            return False
        if index is None:
            return True
        return name_of != self.id if name_of else is_object("".join(self.handed).encode())


class _Answer:
    """What chunks say, one after another. After a `Fault` or a `Done` nothing is said any more."""

    __slots__ = ("_began", "_calls", "_end", "_id", "_last", "_plain", "_refused", "_sequence", "_usage", "over")

    def __init__(self) -> None:
        self._began = False
        self._id = ""
        self._calls: dict[int | None, _Call] = {}
        self._last = 0
        self._end: End | None = None
        self._sequence: str | None = None
        self._refused = False
        self._plain = False
        """Whether reasoning comes as text beside its details, which then are not to be read twice."""
        self._usage: Usage | None = None
        self.over = False

    def take(self, value: Any, named_error: bool = False) -> list[Event]:
        """One chunk, or a whole answer."""
        error = error_of(value)
        if error is not None or named_error:
            return self.fail(error or ErrorFacts(), _message_of(value))
        if not isinstance(value, dict):
            return self.fail(ErrorFacts(), "the endpoint's answer cannot be understood")
        out: list[Event] = []
        choices = value.get("choices")
        usage = value.get("usage")
        if isinstance(choices, list) and choices:
            if not self._began:
                self._begin(value, out)
            for choice in choices:
                if isinstance(choice, dict) and choice.get("index") in (0, None):
                    self._choice(choice, out)
                    usage = usage or choice.get("usage")
        if usage is None:
            groq = value.get("x_groq")
            usage = groq.get("usage") if isinstance(groq, dict) else None
        if isinstance(usage, dict):
            told = counted(usage)
            if told is not None and told != self._usage:
                if not self._began:
                    self._begin(value, out)
                self._usage = told
                out.append(Told(told))
        return _up_to_fault(out) if self.over else out

    def fail(self, facts: ErrorFacts, message: str) -> list[Event]:
        self.over = True
        return [Fault(facts, message)]

    def finish(self, done: bool) -> list[Event]:
        """The answer's own end, or that of its bytes."""
        if self.over:
            return []
        self.over = True
        out: list[Event] = []
        if done and not self._began:
            self._begin({}, out)
        for call in self._in_order():
            if not call.told:
                self._tell(call, out)
        if done or self._end is not None:
            out.append(Ended(self._ended(), self._sequence))
        if done:
            out.append(Done())
        return out

    def _in_order(self) -> list[_Call]:
        return sorted(set(self._calls.values()), key=lambda call: call.at)

    def _ended(self) -> End:
        if self._last and self._end in (None, "stop"):
            return "tools"
        if self._refused and self._end in (None, "stop"):
            return "refusal"
        return self._end or "stop"

    def _begin(self, value: dict[str, Any], out: list[Event]) -> None:
        self._began = True
        name, model, created = value.get("id"), value.get("model"), value.get("created")
        self._id = name if isinstance(name, str) else ""
        out.append(
            Began(
                self._id,
                model if isinstance(model, str) else "",
                None,
                created if type(created) is int and created > 0 else None,
            )
        )

    def _choice(self, choice: dict[str, Any], out: list[Event]) -> None:
        for name in ("delta", "message"):
            said = choice.get(name)
            if isinstance(said, dict):
                self._say(said, out)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            if reason in _FAILED:
                error = error_of(choice)  # OpenRouter's
                words = "the endpoint has broken off its answer" if error is None else _message_of(choice)
                out += self.fail(error or ErrorFacts(), words)
                return
            self._end = _ENDS.get(reason, "stop")
            met = choice.get("stop_reason")  # vLLM's: the sequence, or the number of a token
            if self._end == "stop" and isinstance(met, str) and met:
                self._end, self._sequence = "sequence", met

    def _say(self, said: dict[str, Any], out: list[Event]) -> None:
        thought = said.get("reasoning_content") or said.get("reasoning")
        if thought and isinstance(thought, str):
            self._plain = True
            out.append(Thought(thought))
        details = said.get("reasoning_details")
        if isinstance(details, list):
            self._details(details, out)
        content = said.get("content")
        if content:
            if isinstance(content, str):
                out.append(Said(content))
            elif isinstance(content, list):
                self._parts(content, out)
        refusal = said.get("refusal")
        if refusal and isinstance(refusal, str):
            self._refused = True
            out.append(Said(refusal))
        calls = said.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._call(call, call.get("function"), out)
        call = said.get("function_call")
        if isinstance(call, dict):
            self._call({"index": -1}, call, out)

    def _details(self, details: list[Any], out: list[Event]) -> None:
        for detail in details:
            thought = thought_of(detail) if isinstance(detail, dict) else None
            if thought is None:
                continue
            text = "" if self._plain else thought.text
            if text or thought.signature or thought.sealed:
                out.append(Thought(text, thought.signature, thought.sealed))

    def _parts(self, parts: list[Any], out: list[Event]) -> None:
        for part in parts:
            if not isinstance(part, dict):
                continue
            text, thinking = part.get("text"), part.get("thinking")
            if isinstance(text, str) and text:
                out.append(Said(text))
            for each in thinking if isinstance(thinking, list) else (part,):
                words = each.get("text" if each is not part else "thinking") if isinstance(each, dict) else None
                if isinstance(words, str) and words:
                    out.append(Thought(words))

    def _call(self, said: dict[str, Any], function: Any, out: list[Event]) -> None:
        function = function if isinstance(function, dict) else {}
        key, name_of, name = said.get("index"), said.get("id"), function.get("name")
        key = key if type(key) is int else None
        if (thought := signed_call(said)) is not None:
            out.append(Thought(signature=thought.signature))
        name_of = name_of if isinstance(name_of, str) else ""
        name = name if isinstance(name, str) else ""
        call = self._calls.get(key)
        if call is None or call.is_another(key, name_of, name):
            call = self._calls[key] = _Call(self._last)
            self._last += 1
        call.id = call.id or name_of
        call.name = call.name or name
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = _encode(arguments).decode()
        if arguments and isinstance(arguments, str):
            call.held.append(arguments)
        if call.name:
            self._tell(call, out)

    def _tell(self, call: _Call, out: list[Event]) -> None:
        if not call.told:
            call.told = True
            # Clients answer by the id, so there has to be one, and another in each answer.
            call.id = call.id or f"call_{xxh3_64_hexdigest(self._id.encode())}_{call.at}"
            out.append(Asked(call.at, call.id, call.name))
        out += [Argument(call.at, piece) for piece in call.held]
        call.handed += call.held
        call.held.clear()


class _Stream:
    __slots__ = ("_answer", "_frames")

    def __init__(self) -> None:
        self._answer = _Answer()
        self._frames = Frames()

    def feed(self, data: bytes) -> list[Event]:
        if self._answer.over:
            return []
        out: list[Event] = []
        for frame in self._frames.feed(data):
            out += self._read(frame)
            if self._answer.over:
                return out
        if self._frames.held > MAX_EVENT:
            out += self._answer.fail(ErrorFacts(), "the endpoint has sent an event that is too large")
        return out

    def end(self) -> list[Event]:
        out: list[Event] = []
        for frame in self._frames.end():
            if not self._answer.over and _whole(frame):  # half an event is that of a stream that was cut
                out += self._read(frame)
        return out + self._answer.finish(done=False)

    def _read(self, frame: Frame) -> list[Event]:
        name, data = frame
        failed = name == "error"
        if data is None:
            return self._answer.take(None, failed) if failed else [Alive()]
        if data.lstrip().startswith(b"[DONE]"):
            return self._answer.finish(done=True)
        try:
            value = _any(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        if name in ("ping", "keepalive"):
            return [Alive()]
        return self._answer.take(value, failed)


def _up_to_fault(events: list[Event]) -> list[Event]:
    for index, event in enumerate(events):
        if isinstance(event, Fault):
            return events[: index + 1]
    return events


def _whole(frame: Frame) -> bool:
    try:
        return frame.data is not None and (frame.data.strip() == b"[DONE]" or _any(frame.data) is not None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _Whole:
    """An answer that is no stream: everything comes when it has ended."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        self._pieces.append(data)
        return []

    def end(self) -> list[Event]:
        try:
            value = _any(b"".join(self._pieces))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        answer = _Answer()
        out = answer.take(value)
        if not answer.over and not (isinstance(value, dict) and value.get("choices")):
            return answer.fail(ErrorFacts(), "the endpoint's answer has no choices")
        return out + answer.finish(done=True)


def reader(media_type: str) -> _Stream | _Whole:
    return _Stream() if media_type.lower().startswith("text/event-stream") else _Whole()


def _message_of(value: Any) -> str:
    return words_of(value) or "the endpoint has failed within its answer"


ANSWERING: Final = Answering(reader, chat_chunks.Stream, chat_chunks.Whole, chat_chunks.error)
