"""What answers of Amazon Bedrock say, whole and in frames, and the laws over every one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.eventstream import MEDIA_TYPE, Frame, Header, encode
from spillway_balancer.wire.faults import ErrorFacts
from spillway_balancer.wire.translation.converse_answers import ANSWERING
from spillway_balancer.wire.translation.said import (
    Alive,
    Argument,
    Asked,
    Began,
    Done,
    Ended,
    Event,
    Fault,
    Said,
    Thought,
    Told,
)

FOLDER = Path(__file__).parents[1] / "golden" / "translation" / "converse"
JSON = "application/json"


def frame(line: str) -> bytes:
    name, _, payload = line.partition(" ")
    kind = "exception" if name.startswith("!") else "event"
    headers = {f":{kind}-type": name.removeprefix("!"), ":content-type": JSON, ":message-type": kind}
    return encode(Frame(tuple(Header(name, "string", value) for name, value in headers.items()), payload.encode()))


def stream(*lines: str) -> bytes:
    return b"".join(map(frame, lines))


def golden_stream(name: str) -> bytes:
    return stream(*(FOLDER / name).read_text().splitlines())


def events(data: bytes, media: str = MEDIA_TYPE, cuts: tuple[int, ...] = (), ends: bool = True) -> list[Event]:
    reader, found, at = ANSWERING.reader(media), [], 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found += reader.feed(data[at:cut])
        at = max(at, cut)
    return found + (reader.end() if ends else [])


def shown(found: list[Event]) -> list[str]:
    """With their types, which tuples are compared without."""
    return [repr(event) for event in found]


SAID: dict[str, list[Event]] = {
    "text.frames": [
        Began(),
        Said("Hel"),
        Said("lo, 你好"),
        Alive(),
        Ended("stop"),
        Told(Usage(13, None, 7)),
        Done(),
    ],
    "tools.frames": [
        Began(),
        Said("Let me look."),
        Asked(0, "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", "top_song"),
        Alive(),
        Argument(0, '{"sign"'),
        Argument(0, ': "WZPZ"}'),
        Asked(1, "tooluse_2", "now"),
        Alive(),
        Argument(1, "{}"),
        Ended("tools"),
        Told(Usage(1400, 1024, 54, 300)),
        Done(),
    ],
    "reasoning.frames": [
        Began(),
        Thought("Two trains"),
        Thought(" meet."),
        Thought(signature="EqoBCkgIARABGAIiQL8="),
        Thought(sealed="ZW5jcnlwdGVk"),
        Said("At noon."),
        Ended("sequence", "\n\n"),
        Told(Usage(40, None, 120)),
        Done(),
    ],
    "throttled.frames": [
        Began(),
        Said("Once"),
        Fault(ErrorFacts(None, "throttlingexception", 429), "Too many tokens, please wait before trying again."),
    ],
    "model-stream-error.frames": [
        Fault(
            ErrorFacts(None, "modelstreamerrorexception", 424),
            "The system encountered an unexpected error during processing. Try your request again.",
        )
    ],
    "malformed.frames": [
        Began(),
        Said("<tool"),
        Told(Usage(5, None, 2)),
        Fault(ErrorFacts(None, "malformed_tool_use", 424), "the model's output is malformed"),
    ],
    "whole.json": [
        Began(),
        Thought("A tool.", "EqoBCkgIARABGAIiQL8="),
        Thought(sealed="ZW5jcnlwdGVk"),
        Said("Let me look."),
        Asked(0, "tooluse_1", "top_song"),
        Argument(0, '{"sign":"WZPZ"}'),
        Asked(1, "tooluse_2", "now"),
        Argument(1, "{}"),
        Told(Usage(2076, 0, 54, 2000)),
        Ended("tools"),
        Done(),
    ],
    "whole-cited.json": [
        Began(),
        Said("The grass is green."),
        Said(" So it is."),
        Told(Usage(11, None, 9)),
        Ended("filter"),
        Done(),
    ],
}
NAMES = sorted(SAID)
CUTS = st.lists(st.integers(0, 3000), max_size=20).map(tuple)


def answer(name: str) -> tuple[bytes, str]:
    return ((FOLDER / name).read_bytes(), JSON) if name.endswith(".json") else (golden_stream(name), MEDIA_TYPE)


def test_every_golden_answer_is_here() -> None:
    assert {path.name for path in FOLDER.iterdir()} == SAID.keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_an_answer_says(name: str) -> None:
    assert shown(events(*answer(name))) == shown(SAID[name])


@given(st.sampled_from(NAMES), CUTS)
def test_any_division_of_the_bytes_says_the_same(name: str, cuts: tuple[int, ...]) -> None:
    assert shown(events(*answer(name), cuts=cuts)) == shown(SAID[name])


STREAMS = [name for name in NAMES if name.endswith(".frames")]


@given(st.sampled_from(STREAMS), st.data())
def test_a_damaged_stream_says_what_came_before_and_is_broken(name: str, data: st.DataObject) -> None:
    sent = bytearray(golden_stream(name))
    bit = data.draw(st.integers(0, len(sent) * 8 - 1))
    sent[bit // 8] ^= 1 << bit % 8
    *before, last = events(bytes(sent))
    assert isinstance(last, Fault)
    assert last not in SAID[name]
    assert shown(before) == shown(SAID[name][: len(before)])


@given(st.sampled_from(STREAMS), st.integers(0, 3000))
def test_a_stream_that_is_cut_is_never_whole(name: str, length: int) -> None:
    cut, whole = events(golden_stream(name)[:length]), SAID[name]
    if cut and isinstance(cut[-1], Done) and len(cut) < len(whole):
        cut.pop()
        assert any(isinstance(event, Ended) for event in cut)  # only the usage is missing
    assert shown(cut) == shown(whole[: len(cut)]) or isinstance(whole[-1], Fault)


@given(st.binary(max_size=300), CUTS, st.sampled_from([MEDIA_TYPE, JSON, "", "text/html; charset=utf-8"]))
def test_garbage_is_a_fault_or_a_cut_and_never_raised(data: bytes, cuts: tuple[int, ...], media: str) -> None:
    found = events(data, media, cuts)
    assert [type(event) for event in found] in ([], [Fault])


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "delta",
                    "text",
                    "toolUse",
                    "input",
                    "start",
                    "usage",
                    "inputTokens",
                    "stopReason",
                    "output",
                    "message",
                    "content",
                    "contentBlockIndex",
                    "reasoningContent",
                    "additionalModelResponseFields",
                    "stop_sequence",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "messageStart",
                    "contentBlockStart",
                    "contentBlockDelta",
                    "contentBlockStop",
                    "messageStop",
                    "metadata",
                    "new",
                    "!validationException",
                    "!unknown",
                ]
            ),
            JSONS,
        ),
        max_size=6,
    )
)
def test_any_frames_end_in_at_most_one_way(lines: list[tuple[str, object]]) -> None:
    found = events(stream(*(f"{name} {json.dumps(payload)}" for name, payload in lines)))
    ends = [event for event in found if isinstance(event, Fault | Done)]
    assert len(ends) <= 1
    assert not ends or found[-1] is ends[0]


def test_a_stream_that_ends_behind_its_message_is_whole_without_usage() -> None:
    data = stream('messageStart {"role":"assistant"}', 'messageStop {"stopReason":"end_turn"}')
    assert shown(events(data)) == shown([Began(), Ended("stop"), Done()])
    assert shown(events(data, ends=False)) == shown([Began(), Ended("stop")])
    assert shown(events(data + frame("metadata {}")[:20])) == shown([Began(), Ended("stop")])


def test_metadata_may_come_first() -> None:
    data = stream('metadata {"usage":{"inputTokens":1,"outputTokens":2}}', 'messageStop {"stopReason":"max_tokens"}')
    assert shown(events(data)) == shown([Told(Usage(1, None, 2)), Ended("length"), Done()])


def test_nothing_is_heard_behind_the_end() -> None:
    data = golden_stream("text.frames")
    assert shown(events(data + frame('contentBlockDelta {"delta":{"text":"more"}}') + b"junk" * 9)) == shown(
        SAID["text.frames"]
    )


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        (
            '!throttlingException {"message":"Too many tokens per day, please wait before trying again."}',
            ErrorFacts("insufficient_quota", "throttlingexception", 429),
        ),
        (
            '!validationException {"message":"Input is too long for requested model."}',
            ErrorFacts("context_length_exceeded", "validationexception", 400),
        ),
        ('!internalServerException {"message":"x"}', ErrorFacts(None, "internalserverexception", 500)),
        ("!serviceUnavailableException {}", ErrorFacts(None, "serviceunavailableexception", 503)),
        ('!modelStreamErrorException {"originalStatusCode":429}', ErrorFacts(None, "modelstreamerrorexception", 429)),
        ('!somethingNew {"message":"x"}', ErrorFacts()),
        ("!throttlingException not json", ErrorFacts(None, "throttlingexception", 429)),
    ],
)
def test_exceptions_within_a_stream(line: str, facts: ErrorFacts) -> None:
    found = events(stream(line))
    assert [event.facts for event in found if isinstance(event, Fault)] == [facts]


def test_an_error_frame_is_a_fault() -> None:
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "no"}
    data = encode(Frame(tuple(Header(name, "string", value) for name, value in headers.items()), b""))
    assert shown(events(data)) == shown([Fault(ErrorFacts(None, "internalfailure", 500), "no")])


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "context"),
        ("content_filtered", "filter"),
        ("guardrail_intervened", "filter"),
        ("refusal", "refusal"),
        ("of_a_later_year", "stop"),
    ],
)
def test_stop_reasons(reason: str, end: str) -> None:
    found = events(stream(f'messageStop {{"stopReason":"{reason}"}}'))
    assert [event.end for event in found if isinstance(event, Ended)] == [end]


def test_tools_that_the_provider_runs_are_not_the_clients() -> None:
    data = stream(
        'contentBlockStart {"contentBlockIndex":0,"start":{"toolUse":{"name":"nova_grounding","toolUseId":"a",'
        '"type":"server_tool_use"}}}',
        'contentBlockDelta {"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}',
        'contentBlockStart {"contentBlockIndex":1,"start":{"toolUse":{"name":"mine","toolUseId":"b"}}}',
    )
    assert [event for event in events(data) if isinstance(event, Asked | Argument)] == [Asked(0, "b", "mine")]


@pytest.mark.parametrize("tokens", ["-1", "1.5", '"7"', "null", "99999999999"])
def test_absurd_numbers_of_tokens_are_unknown(tokens: str) -> None:
    found = events(stream(f'metadata {{"usage":{{"inputTokens":{tokens},"outputTokens":3}}}}'))
    assert found == [Told(Usage(None, None, 3))]


def test_an_answer_without_end_is_not_held() -> None:
    reader = ANSWERING.reader(JSON)
    found = [event for _ in range(70) for event in reader.feed(b" " * 1024 * 1024)]
    assert [type(event) for event in found] == [Fault]
    assert reader.end() == []
