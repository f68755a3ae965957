"""Anthropic's Messages API as it answers: its answers are read into events, and events are written as its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.translation.strategies import NAMES, OBJECTS, WORDS

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.faults import ErrorFacts
from spillway_balancer.wire.translation.messages_answers import ANSWERING
from spillway_balancer.wire.translation.messages_heard import UNSIGNED
from spillway_balancer.wire.translation.said import (
    Alive,
    Argument,
    Asked,
    Began,
    Done,
    End,
    Ended,
    Event,
    Fault,
    Said,
    Thought,
    Told,
)

Golden = Callable[[str], bytes]

SSE, JSON = "text/event-stream; charset=utf-8", "application/json"
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds0c2bWRvd25sb2Fk"
STREAMS = ("text.sse", "tools.sse", "thinking.sse", "search.sse", "overloaded.sse")

EVENTS: dict[str, list[Event]] = {
    "text.sse": [
        Began("msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY", "claude-opus-4-6", Usage(2125, 2000, None, 100, None, 40)),
        Alive(),
        Said("Hello"),
        Said("!"),
        Told(Usage(2125, 2000, 15, 100, None, 40)),
        Ended("stop"),
        Done(),
    ],
    "tools.sse": [
        Began("msg_014p7gG3wDgGV9EUtLvnow3U", "claude-opus-4-6", Usage(472)),
        Alive(),
        Said("Okay"),
        Asked(0, "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "get_weather"),
        Argument(0, '{"location":'),
        Argument(0, ' "San Francisco, CA"}'),
        Asked(1, "toolu_02", "get_time"),
        Argument(1, "{}"),
        Told(Usage(472, None, 89)),
        Ended("tools"),
        Done(),
    ],
    "thinking.sse": [
        Began("msg_01", "claude-opus-5", Usage(20)),
        Thought("I need to find the GCD of 1071 and 462."),
        Thought(signature=SIGNATURE),
        Thought(sealed="EmwKAhgBEgy3va3pzix"),
        Said("The greatest common divisor is 21."),
        Told(Usage(20, 0, 60, 0, 40)),
        Ended("sequence", "END"),
        Done(),
    ],
    "search.sse": [  # what a server of Anthropic's does has no event, and what is new is passed over
        Began("msg_01G", "claude-opus-4-6", Usage(2679, 0, None, 0)),
        Said("I'll"),
        Said(" look."),
        Asked(0, "toolu_03", "note"),
        Argument(0, '{"text":"sunny"}'),
        Told(Usage(10682, 0, 510, 0)),
        Ended("refusal"),
        Done(),
    ],
    "overloaded.sse": [
        Began("msg_02", "claude-opus-5", Usage(20)),
        Said("It"),
        Fault(ErrorFacts(None, "overloaded_error"), "Overloaded"),
    ],
    "whole.json": [
        Began("msg_01Aq9w938a90dw8q", "claude-opus-5", Usage(100, 85, None, 5)),
        Thought("Look it up."),
        Thought(signature=SIGNATURE),
        Said("I'll check."),
        Asked(0, "toolu_01A09q90qw90lq917835lq9", "get_weather"),
        Argument(0, '{"location":"Paris","days":[1,2]}'),
        Told(Usage(100, 85, 40, 5, 12)),
        Ended("tools"),
        Done(),
    ],
}


def heard(data: bytes, media_type: str = SSE, cuts: Iterable[int] = ()) -> list[Event]:
    reader = ANSWERING.reader(media_type)
    events: list[Event] = []
    at = 0
    for cut in (*sorted(cuts), len(data)):
        events += reader.feed(data[at:cut])
        at = cut
    return events + reader.end()


def streamed(events: Iterable[Event]) -> bytes:
    assert ANSWERING.stream is not None
    writer = ANSWERING.stream("public", False)
    return b"".join((*(writer.write([event]) for event in events), writer.end()))


def whole(events: Iterable[Event]) -> dict[str, Any]:
    assert ANSWERING.whole is not None
    writer = ANSWERING.whole("public")
    assert writer.write(events) == b""
    answer: dict[str, Any] = json.loads(writer.end())
    return answer


def frames(stream: bytes) -> list[dict[str, Any]]:
    out = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}", "SDKs pass over what has no name"
        out.append(value)
    return out


def said(events: Iterable[Event]) -> list[Event]:
    """What was said, in one piece each, with the arguments of a tool behind its name."""
    out: list[Event] = []
    calls = [event for event in events if isinstance(event, Argument)]
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, Said) and isinstance(last, Said):
            out[-1] = Said(last.text + event.text)
        elif (
            isinstance(event, Thought)
            and isinstance(last, Thought)
            and not (last.signature or last.sealed or event.sealed)
        ):
            out[-1] = Thought(last.text + event.text, event.signature)
        elif isinstance(event, Asked):
            arguments = "".join(each.json for each in calls if each.at == event.at)
            out += (event, Argument(event.at, json.dumps(json.loads(arguments or "{}"))))
        elif not isinstance(event, Argument | Alive):
            out.append(event)
    return out


def _goes_on(last: Event | None, event: Event) -> bool:
    if not (isinstance(event, Thought) and isinstance(last, Thought)):
        return False
    return not (last.signature or last.sealed or event.sealed)


def all_told(event: Event) -> list[int]:
    """No tokens where nothing is told of them."""
    assert isinstance(event, Told)
    return [count or 0 for count in event.usage]


@pytest.mark.parametrize("name", EVENTS)
def test_what_an_answer_says(name: str, golden: Golden) -> None:
    data = golden(f"translation/messages/{name}")
    assert heard(data, JSON if name.endswith("json") else SSE) == EVENTS[name]


@given(st.data())
@pytest.mark.parametrize("name", STREAMS)
def test_reads_that_divide_the_bytes_anywhere_change_nothing(name: str, golden: Golden, data: st.DataObject) -> None:
    stream = golden(f"translation/messages/{name}")
    if data.draw(st.booleans()):
        stream = stream.replace(b"\n", b"\r\n")
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert heard(stream, SSE, cuts) == EVENTS[name]


def test_a_stream_that_is_cut_is_not_done(golden: Golden) -> None:
    stream = golden("translation/messages/text.sse")
    events = heard(stream[: stream.index(b"event: message_stop")])
    assert events == EVENTS["text.sse"][:-1]


@pytest.mark.parametrize("name", EVENTS)
def test_what_was_heard_can_be_said_again(name: str, golden: Golden) -> None:
    events = EVENTS[name]
    again = heard(streamed(events))
    if not name.startswith("overloaded"):
        assert all_told(again[-3]) == all_told(events[-3])
    assert [event for event in again if not isinstance(event, Told)][1:] == [
        event for event in events if not isinstance(event, Told)
    ][1:]
    assert isinstance(again[0], Began)
    assert isinstance(events[0], Began)
    assert (again[0].id, again[0].model) == (events[0].id, "public")


ENDS: tuple[End, ...] = ("length", "tools", "refusal", "pause", "context")
COUNTS = st.integers(0, 1000)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Whole ones. Tools may be handed their arguments by turns."""
    events: list[Event] = [Began(draw(NAMES), "model", draw(st.none() | COUNTS.map(Usage)))]
    at = 0
    for _ in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["said", "thought", "sealed", "tools", "alive"])):
            case "said":
                events += [Said(piece) for piece in draw(st.lists(WORDS, min_size=1, max_size=3))]
            case "thought":
                events += [Thought(piece) for piece in draw(st.lists(WORDS, min_size=1, max_size=3))]
                events += [Thought(signature=SIGNATURE)] if draw(st.booleans()) else []
            case "sealed":
                events.append(Thought(sealed=SIGNATURE))
            case "tools":
                calls = [draw(OBJECTS).decode() for _ in range(draw(st.integers(1, 3)))]
                pieces: list[Event] = []
                for offset, arguments in enumerate(calls):
                    cut = draw(st.integers(0, len(arguments)))
                    pieces += [Argument(at + offset, each) for each in (arguments[:cut], arguments[cut:]) if each]
                asked = [Asked(at + offset, f"call_{at + offset}", draw(NAMES)) for offset in range(len(calls))]
                events += asked
                events += _interleaved(draw, pieces)
                at += len(calls)
            case "alive":
                events.append(Alive())
    prompt, cached, written = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    output = draw(COUNTS)
    told = Told(Usage(prompt + cached + written, cached, output, written, draw(st.integers(0, output)), None))
    end = Ended(draw(st.sampled_from(ENDS)))
    return [*events, *draw(st.permutations([told, end])), Done()]


def _interleaved(draw: st.DrawFn, pieces: list[Event]) -> list[Event]:
    """Of several tools by turns; those of one tool in their order."""
    queues: dict[int, list[Event]] = {}
    for piece in pieces:
        assert isinstance(piece, Argument)
        queues.setdefault(piece.at, []).append(piece)
    out = []
    while queues:
        at = draw(st.sampled_from(sorted(queues)))
        out.append(queues[at].pop(0))
        if not queues[at]:
            del queues[at]
    return out


def _expected(events: list[Event]) -> list[Event]:
    """As the API orders them; a first usage tells of the prompt in it."""
    began, *rest = said(events)
    assert isinstance(began, Began)
    told = next(event for event in rest if isinstance(event, Told))
    ended = next(event for event in rest if isinstance(event, Ended))
    return [*(event for event in rest if not isinstance(event, Told | Ended | Done)), told, ended, Done()]


@given(answers())
def test_a_stream_says_what_the_events_say(events: list[Event]) -> None:
    stream = streamed(events)
    began, *rest = said(heard(stream))
    assert isinstance(began, Began)
    assert rest == _expected(events)
    assert sum(event == Alive() for event in heard(stream)) == sum(event == Alive() for event in events)
    open_block = None
    index = 0
    for frame in frames(stream):
        match frame["type"]:
            case "content_block_start":
                assert open_block is None
                assert frame["index"] == index
                open_block = index
            case "content_block_delta":
                assert frame["index"] == open_block
            case "content_block_stop":
                assert frame["index"] == open_block
                open_block = None
                index += 1
    assert open_block is None


@given(answers())
def test_a_whole_answer_says_what_the_events_say(events: list[Event]) -> None:
    began, *rest = said(heard(json.dumps(whole(events)).encode(), JSON))
    assert isinstance(began, Began)
    assert rest == _expected(events)


@given(st.binary(max_size=200), st.sampled_from([SSE, JSON]))
def test_garbage_is_a_fault_or_nothing(data: bytes, media_type: str) -> None:
    for lead in (b"", b"data: ", b'event: message_start\ndata: {"type":"message_start","message":{}}\n\ndata: '):
        events = heard(lead + data, media_type)
        assert all(not isinstance(event, Fault) for event in events[:-1]), "nothing comes after a fault"
        assert not any(isinstance(event, Done) for event in events)


KEYS = [
    "type",
    "index",
    "content_block",
    "delta",
    "message",
    "usage",
    "content",
    "input",
    "text",
    "id",
    "partial_json",
    "stop_reason",
    "error",
    "input_tokens",
    "output_tokens_details",
]
WORDED = ["text", "tool_use", "text_delta", "input_json_delta", "end_turn", "x"]
SHAPES = st.recursive(
    st.none() | st.integers(-5, 5) | st.sampled_from(WORDED),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=15,
)
KINDS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "error",
    "new",
]


@given(st.lists(st.tuples(st.sampled_from(KINDS), SHAPES), max_size=5), SHAPES)
def test_events_of_the_wrong_shape_never_raise(events: list[tuple[str, Any]], answer: Any) -> None:
    stream = b""
    for kind, value in events:
        body = {**value, "type": kind} if isinstance(value, dict) else value
        stream += b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps(body).encode())
    for out in (heard(stream), heard(json.dumps(answer).encode(), JSON)):
        assert all(not isinstance(event, Fault | Done) for event in out[:-1])
        streamed([Began(), *out])


def test_nothing_comes_after_the_end_or_an_error(golden: Golden) -> None:
    for name in ("text.sse", "overloaded.sse"):
        stream = golden(f"translation/messages/{name}")
        assert heard(stream + stream) == EVENTS[name]


def test_an_answer_that_grows_without_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spillway_balancer.wire.translation.messages_heard.MAX_EVENT", 100)
    monkeypatch.setattr("spillway_balancer.wire.translation.messages_heard.MAX_BYTES", 100)
    for media_type in (SSE, JSON):
        reader = ANSWERING.reader(media_type)
        events = [event for _ in range(3) for event in reader.feed(b"data: " + b"x" * 95)]
        assert [type(event) for event in (*events, *reader.end())] == [Fault]


def test_usage_is_told_as_anthropic_counts() -> None:
    events = [Began("a", "m", Usage(100, 60)), Told(Usage(100, 60, 7, 30, 3, 10)), Done()]
    start, *_, delta, _ = frames(streamed(events))
    assert start["message"]["usage"] == {
        "input_tokens": 40, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 60, "output_tokens": 0,
    }  # fmt: skip
    assert delta["usage"] == {
        "input_tokens": 10, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 60, "output_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
        "output_tokens_details": {"thinking_tokens": 3},
    }  # fmt: skip
    assert whole(events)["usage"] == delta["usage"]


@pytest.mark.parametrize(
    ("end", "tools", "reason"),
    [
        ("stop", False, "end_turn"),
        ("stop", True, "tool_use"),
        ("tools", True, "tool_use"),
        ("length", True, "max_tokens"),
        ("sequence", False, "stop_sequence"),
        ("filter", False, "refusal"),
        ("refusal", False, "refusal"),
        ("pause", False, "pause_turn"),
        ("context", False, "model_context_window_exceeded"),
    ],
)
def test_why_an_answer_is_over(end: End, tools: bool, reason: str) -> None:
    asked: list[Event] = [Asked(0, "a", "b")] if tools else []
    events = [Began(), *asked, Ended(end, "END" if end == "sequence" else None), Done()]
    delta = frames(streamed(events))[-2]["delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": "END" if end == "sequence" else None}
    answer = whole(events)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, delta["stop_sequence"])


def test_an_answer_that_was_broken_off_has_no_terminator() -> None:
    stream = frames(streamed([Began(), Said("Hi"), Fault(ErrorFacts("insufficient_quota"), "No money")]))
    assert [frame["type"] for frame in stream][-1] == "error"
    assert stream[-1]["error"] == {"type": "rate_limit_error", "message": "No money"}
    assert "message_stop" not in [frame["type"] for frame in frames(streamed([Began(), Said("Hi")]))]
    assert whole([Began(), Fault(ErrorFacts(None, "overloaded_error"), "Busy")]) == {
        "type": "error", "error": {"type": "overloaded_error", "message": "Busy"},
    }  # fmt: skip


def test_a_thought_without_a_signature_gets_one_that_is_known_again() -> None:
    events: list[Event] = [Began("a", "public"), Thought("Hm."), Said("Hi"), Ended("stop"), Done()]
    stream = frames(streamed(events))
    assert stream[3]["delta"] == {"type": "signature_delta", "signature": UNSIGNED}
    block = whole(events)["content"][0]
    assert block == {"type": "thinking", "thinking": "Hm.", "signature": UNSIGNED}
    assert said(heard(streamed(events)))[1] == Thought("Hm.")


def test_ids_of_calls_are_such_as_anthropic_takes_back() -> None:
    events: list[Event] = [Began("chat:1"), Asked(0, "functions.bash:0", "bash"), Asked(1, "", "bash"), Done()]
    ids = [frame["content_block"]["id"] for frame in frames(streamed(events)) if frame["type"] == "content_block_start"]
    assert len(set(ids)) == 2
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in ids)
    assert [block["id"] for block in whole(events)["content"]] == ids


def test_arguments_that_were_broken_off_are_handed_on_as_they_are() -> None:
    events: list[Event] = [Began("a"), Asked(0, "x", "bash"), Argument(0, '{"command": "l'), Ended("length"), Done()]
    assert whole(events)["content"][0]["input"] == {"arguments": '{"command": "l'}
    deltas = [frame["delta"] for frame in frames(streamed(events)) if frame["type"] == "content_block_delta"]
    assert deltas == [{"type": "input_json_delta", "partial_json": '{"command": "l'}]


def test_answers_without_a_name_get_one_of_their_own() -> None:
    one, other = whole([Began(), Done()])["id"], whole([Began(), Done()])["id"]
    assert one.startswith("msg_")
    assert one != other


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_are_of_this_apis_types(status: int, kind: str) -> None:
    assert ANSWERING.error is not None
    body = json.loads(ANSWERING.error(status, "No.", "server_error", "some_code"))
    assert body == {"type": "error", "error": {"type": kind, "message": "No.", "code": "some_code"}}
