"""Answers of Amazon Bedrock's Converse and ConverseStream to what they say. Nobody asks us through them: there is no
writer.

Shapes are those of the public service model (bedrock-runtime 2023-09-30, ConverseResponse and ConverseStreamOutput);
https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-call.html shows the order of a stream:
`messageStart`, blocks, `messageStop` with the reason, and `metadata` with the usage as the last frame.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..aws_faults import told
from ..counts import counted
from ..eventstream import MEDIA_TYPE, Frame, Frames
from ..faults import ErrorFacts
from .dialects import Answering, AnswerReader
from .said import Alive, Argument, Asked, Began, Done, End, Ended, Event, Fault, Said, Thought, Told

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer that is no stream; a longer one is none."""

_ENDS: Final[dict[str, End]] = {
    "end_turn": "stop",
    "tool_use": "tools",
    "max_tokens": "length",
    "stop_sequence": "sequence",
    "guardrail_intervened": "filter",
    "content_filtered": "filter",
    "model_context_window_exceeded": "context",
    # Not in the service model: Anthropic's own, should they be handed through.
    "refusal": "refusal",
    "pause_turn": "pause",
}
_MALFORMED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
"""The model has failed, and what was said is no answer: a `Fault`, once the usage is told."""

_UNREADABLE: Final = "the endpoint's answer cannot be read"


class _Reasoned(msgspec.Struct, rename="camel", gc=False):
    """Reasoning, whole or a piece of it."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None
    reasoning_text: _Reasoned | None = None


class _ToolUse(msgspec.Struct, rename="camel", gc=False):
    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    type: str | None = None


class _Piece(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None


class _Cited(msgspec.Struct, rename="camel", gc=False):
    content: list[_Piece] = []


class _Block(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoned | None = None
    citations_content: _Cited | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] = []


class _Output(msgspec.Struct, gc=False):
    message: _Message | None = None


class _Additional(msgspec.Struct, gc=False):
    stop_sequence: str | None = None


class _Answer(msgspec.Struct, rename="camel", gc=False):
    output: _Output
    stop_reason: str
    usage: dict[str, object] | None = None
    additional_model_response_fields: msgspec.Raw = msgspec.Raw(b"null")


class _ArgumentPiece(msgspec.Struct, gc=False):
    input: str = ""


class _Delta(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    tool_use: _ArgumentPiece | None = None
    reasoning_content: _Reasoned | None = None


class _Start(msgspec.Struct, rename="camel", gc=False):
    tool_use: _ToolUse | None = None


class _Frame(msgspec.Struct, rename="camel", gc=False):
    """The payload of any frame that is an event."""

    content_block_index: int = 0
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    additional_model_response_fields: msgspec.Raw = msgspec.Raw(b"null")
    usage: dict[str, object] | None = None


class _Exception(msgspec.Struct, rename="camel", gc=False):
    message: str = ""
    original_status_code: int | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_frame = msgspec.json.Decoder(_Frame).decode
_exception = msgspec.json.Decoder(_Exception).decode
_additional = msgspec.json.Decoder(_Additional | None).decode


class _Ending:
    """What both kinds of answer end with: the reason, and the usage before a model's failure is told."""

    __slots__ = ("_malformed",)

    def __init__(self) -> None:
        self._malformed: str | None = None

    def reason(self, reason: str, additional: msgspec.Raw) -> list[Event]:
        if reason in _MALFORMED:
            self._malformed = reason
            return []
        try:
            more = _additional(additional)
        except msgspec.DecodeError:
            more = None
        sequence = None if more is None else more.stop_sequence
        return [Ended(_ENDS.get(reason, "stop"), sequence)]

    def done(self) -> Event:
        if self._malformed is not None:
            return Fault(ErrorFacts(None, self._malformed, 424), "the model's output is malformed")
        return Done()


class WholeReader:
    """An answer of Converse, which is one JSON object."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        if self._size > MAX_ANSWER:
            return []
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self._pieces.clear()
            return [Fault(ErrorFacts(), "the endpoint's answer is too long")]
        self._pieces.append(data)
        return []

    def end(self) -> list[Event]:
        if self._size > MAX_ANSWER:
            return []
        data = b"".join(self._pieces)
        self._pieces.clear()
        try:
            answer = _answer(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [Fault(ErrorFacts(), _UNREADABLE)]
        events: list[Event] = [Began()]
        tools = 0
        message = answer.output.message
        for block in () if message is None else message.content:
            if block.text:
                events.append(Said(block.text))
            if block.reasoning_content is not None:
                events += _thought(block.reasoning_content)
            if block.citations_content is not None:
                events += [Said(piece.text) for piece in block.citations_content.content if piece.text]
            if (tool := block.tool_use) is not None and tool.type is None:
                events += (
                    Asked(tools, tool.tool_use_id, tool.name),
                    Argument(tools, bytes(tool.input).decode("utf-8", "replace")),
                )
                tools += 1
        ending = _Ending()
        if answer.usage is not None and (usage := counted(answer.usage)) is not None:
            events.append(Told(usage))
        events += ending.reason(answer.stop_reason, answer.additional_model_response_fields)
        return [*events, ending.done()]


class StreamReader:
    """An answer of ConverseStream: frames, of which each is an event, an exception or an error.

    It is whole with its `metadata`, which comes behind `messageStop`. One that HTTP ends between the two is whole, too,
    and has no usage: all that the message has to say was said. Any other end is a cut.
    """

    __slots__ = ("_arguments", "_ending", "_frames", "_over", "_stopped", "_told", "_tools")

    def __init__(self) -> None:
        self._frames = Frames()
        self._ending = _Ending()
        self._tools: dict[int, int] = {}
        """By index of the block: which of the answer's tools it is."""
        self._arguments: set[int] = set()
        """Tools of which an argument has come."""
        self._stopped = self._told = self._over = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for frame in self._frames.feed(data):
            if self._over:
                return events
            self._hear(frame, events)
        if self._frames.broken is not None and not self._over:
            self._fail(events, ErrorFacts(), f"the endpoint's answer is broken: {self._frames.broken}")
        return events

    def end(self) -> list[Event]:
        if self._over or not self._stopped or self._frames.amid:
            return []
        self._over = True
        return [self._ending.done()]

    def _fail(self, events: list[Event], facts: ErrorFacts, message: str) -> None:
        self._over = True
        events.append(Fault(facts, message))

    def _hear(self, frame: Frame, events: list[Event]) -> None:
        kind = frame.text(":message-type")
        if kind == "event":
            try:
                said = _frame(frame.payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._fail(events, ErrorFacts(), _UNREADABLE)
                return
            self._event(frame.text(":event-type") or "", said, events)
            if self._stopped and self._told:
                self._over = True
                events.append(self._ending.done())
        elif kind == "exception":
            self._fail(events, *_raised(frame.text(":exception-type") or "", frame.payload))
        elif kind == "error":
            name, message = frame.text(":error-code") or "", frame.text(":error-message") or ""
            self._fail(events, _facts(name, message), message or name)
        else:
            self._fail(events, ErrorFacts(), _UNREADABLE)

    def _event(self, name: str, said: _Frame, events: list[Event]) -> None:
        index = said.content_block_index
        if name == "messageStart":
            events.append(Began())
        elif name == "contentBlockStart" and said.start is not None and (tool := said.start.tool_use) is not None:
            if tool.type is None:  # else it is one that the provider runs itself
                self._tools[index] = at = len(self._tools)
                events.append(Asked(at, tool.tool_use_id, tool.name))
        elif name == "contentBlockDelta" and said.delta is not None:
            events += self._delta(index, said.delta) or [Alive()]
        elif name == "contentBlockStop":
            if (tool_at := self._tools.get(index)) is not None and tool_at not in self._arguments:
                self._arguments.add(tool_at)
                events.append(Argument(tool_at, "{}"))  # a tool without arguments: elsewhere that is an empty object
        elif name == "messageStop":
            self._stopped = True
            events += self._ending.reason(said.stop_reason or "", said.additional_model_response_fields)
        elif name == "metadata":
            self._told = True
            if said.usage is not None and (usage := counted(said.usage)) is not None:
                events.append(Told(usage))
        else:
            events.append(Alive())

    def _delta(self, index: int, delta: _Delta) -> list[Event]:
        if delta.text:
            return [Said(delta.text)]
        if delta.reasoning_content is not None:
            return _thought(delta.reasoning_content)
        if delta.tool_use is not None and delta.tool_use.input and (at := self._tools.get(index)) is not None:
            self._arguments.add(at)
            return [Argument(at, delta.tool_use.input)]
        return []


def _thought(said: _Reasoned) -> list[Event]:
    if said.reasoning_text is not None:
        said = said.reasoning_text
    if said.redacted_content:
        return [Thought(sealed=said.redacted_content)]
    if said.text or said.signature:
        return [Thought(said.text or "", said.signature)]
    return []


def _raised(name: str, payload: bytes) -> tuple[ErrorFacts, str]:
    try:
        said = _exception(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = _Exception()
    facts = _facts(name, said.message)
    if said.original_status_code == 429:  # modelStreamErrorException hands on what the model's own server answered
        facts = facts._replace(status=429)
    return facts, said.message or name


def _facts(name: str, message: str) -> ErrorFacts:
    code, kind, status = told(name, message)
    return ErrorFacts(code, kind, status)


def reader(media_type: str) -> AnswerReader:
    return StreamReader() if media_type.partition(";")[0].strip().lower() == MEDIA_TYPE else WholeReader()


ANSWERING: Final = Answering(reader, None, None, None)
