"""The APIs against each other: what all of them can say comes through each of them as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.wire.translation.strategies import answers, conversations, merged

from spillway_balancer.wire.translation import (
    chat_asks,
    messages_asks,
)
from spillway_balancer.wire.translation.conversation import Conversation, Reasoning, Shape
from spillway_balancer.wire.translation.dialects import Asking
from spillway_balancer.wire.translation.pairs import ANSWERING
from spillway_balancer.wire.translation.said import Argument, Asked, Began, Event, Fault, Said, Thought, Told

ASKINGS: dict[str, Asking] = {"chat": chat_asks.ASKING, "messages": messages_asks.ASKING}
CLIENTS = "chat", "messages"
WAYS = [("chat", "messages"), ("messages", "chat"), ("chat", "messages", "chat"), ("messages", "chat", "messages")]

MODEL = "claude-sonnet-4-6"
"""Takes efforts, and samples."""


def through(asked: Conversation, api: str) -> Conversation:
    asking = ASKINGS[api]
    assert asking.uncarried(asked) == ()
    assert asking.read is not None
    body = asking.write(asked, MODEL).body
    return asking.read(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))


def common(asked: Conversation) -> Conversation:
    """Without what one API has no word for and may leave out: the name of a schema, thinking beside a tool that is
    demanded, a temperature beside thinking, two ways to sample at once."""
    return asked._replace(
        shape=asked.shape and Shape(asked.shape.schema),
        reasoning=None,
        temperature=None,
        top_p=None,
    )


@pytest.mark.parametrize("way", WAYS)
@given(asked=conversations())
def test_a_conversation_comes_through_every_api(way: tuple[str, ...], asked: Conversation) -> None:
    found = asked
    for api in way:
        found = through(found, api)
    assert common(found) == common(asked)


@pytest.mark.parametrize("way", WAYS)
@given(asked=conversations(), data=st.data())
def test_efforts_and_sampling_come_through_every_api(
    way: tuple[str, ...], asked: Conversation, data: st.DataObject
) -> None:
    asked = asked._replace(choice=None, temperature=None, top_p=None, reasoning=None)
    if data.draw(st.booleans()):
        asked = asked._replace(reasoning=Reasoning(data.draw(st.sampled_from(("low", "medium", "high")))))
    else:
        asked = asked._replace(temperature=data.draw(st.floats(0, 1)))
    found = asked
    for api in way:
        found = through(found, api)
    assert found.temperature == asked.temperature
    assert (found.reasoning and found.reasoning.effort) == (asked.reasoning and asked.reasoning.effort)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("way", WAYS)
@given(said=answers())
def test_an_answer_comes_through_every_api(way: tuple[str, ...], streamed: bool, said: list[Event]) -> None:
    found = said
    for api in way:
        answering = ANSWERING[api]
        assert answering.stream is not None
        assert answering.whole is not None
        writer = answering.stream("m", True) if streamed else answering.whole("m")
        reader = answering.reader("text/event-stream" if streamed else "application/json")
        body = b"".join(writer.write((event,)) for event in found) + writer.end()
        found = reader.feed(body) + reader.end()
    assert comparable(found) == comparable(said)


def comparable(events: list[Event]) -> list[Event]:
    """An API may tell what it knows of a prompt at the beginning, too, and the end before its usage."""
    out = [replace(event, usage=None) if isinstance(event, Began) else event for event in merged(events)]
    told = [event for event in out if isinstance(event, Told)]
    return [*(event for event in out if not isinstance(event, Told)), told[-1]]


GOLDEN = Path(__file__).parents[1] / "golden"
SENT = [
    *(("chat", path) for path in sorted((GOLDEN / "streams").glob("*chat*.sse"))),
    *(("messages", path) for path in sorted((GOLDEN / "translation" / "messages").glob("*.sse"))),
    ("messages", GOLDEN / "translation" / "messages" / "whole.json"),
    *(("converse", path) for path in sorted((GOLDEN / "translation" / "converse").glob("*.json"))),
]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("provider", "path"), SENT, ids=lambda value: getattr(value, "name", value))
def test_what_providers_send_reaches_every_client(provider: str, path: Path, client: str, streamed: bool) -> None:
    reader = ANSWERING[provider].reader("text/event-stream" if path.suffix == ".sse" else "application/json")
    sent = reader.feed(path.read_bytes()) + reader.end()
    answering = ANSWERING[client]
    assert answering.stream is not None
    assert answering.whole is not None
    writer = answering.stream("m", True) if streamed else answering.whole("m")
    again = answering.reader("text/event-stream" if streamed else "application/json")
    found = again.feed(writer.write(sent) + writer.end()) + again.end()
    if not any(isinstance(event, Fault) for event in sent):
        assert words(found) == words(sent)
    elif streamed:
        assert words(found) == words(sent)
        assert isinstance(found[-1], Fault)
    else:
        assert [type(event) for event in found] == [Fault]


def words(events: list[Event]) -> tuple[str, str, list[tuple[str, str, bytes]]]:
    """All that is said and thought, and the tools that are asked for."""
    calls = [event for event in events if isinstance(event, Asked)]
    handed = {
        call.at: "".join(event.json for event in events if isinstance(event, Argument) and event.at == call.at)
        for call in calls
    }
    return (
        "".join(event.text for event in events if isinstance(event, Said)),
        "".join(event.text for event in events if isinstance(event, Thought)),
        [(call.id, call.name, msgspec.json.format(handed[call.at].encode(), indent=-1)) for call in calls],
    )
