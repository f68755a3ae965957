"""What holds for every answer of every family: its frames are worth what is billed, and books add up."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.provider.asked import Asked, Part, Tool, Turn, prompt
from spillway_balancer.provider.books import Books, Prices
from spillway_balancer.provider.chat_shape import ChatShape
from spillway_balancer.provider.converse_shape import ConverseShape
from spillway_balancer.provider.counting import Cache, CacheRule, Counted
from spillway_balancer.provider.families import FAMILIES
from spillway_balancer.provider.frames import Serving, Shape
from spillway_balancer.provider.messages_shape import MessagesShape
from spillway_balancer.provider.replies import reply

WORDS = st.text(st.sampled_from("abc use look_up "), max_size=60)
MARKS = st.sampled_from([None, None, "5m", "1h"])
PARTS = st.builds(Part, st.just("text"), WORDS, MARKS)
TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["user", "assistant"]), st.lists(PARTS, max_size=3).map(tuple)), max_size=4
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"enum": [1, 2]}}}}
ASKED = st.builds(
    Asked,
    st.just("m"),
    TURNS.map(tuple),
    st.sampled_from([(), (Tool("look_up", SCHEMA),)]),
    st.sampled_from(["auto", "any", "none"]),
    limit=st.none() | st.integers(1, 60),
    thinking=st.sampled_from([0, 0, 30]),
    schema=st.none() | st.just(SCHEMA),
    tell_usage=st.booleans(),
)


def shape_of(type: str, serving: Serving) -> Shape:
    family = FAMILIES[type]
    if family.api == "chat":
        return ChatShape(family, serving)
    return MessagesShape(serving) if family.api == "messages" else ConverseShape(serving)


@pytest.mark.parametrize("type", FAMILIES)
@given(ASKED)
def test_the_frames_of_a_stream_are_worth_what_the_answer_has(type: str, asked: Asked) -> None:
    made = prompt(asked)
    said = reply(asked, made)
    assert asked.limit is None or said.output <= asked.limit
    assert said.reasoning <= said.output
    counted = Counted(made.tokens, output=said.output, reasoning=said.reasoning)
    shape = shape_of(type, Serving("req_1", 0, "m", said, counted, asked.tell_usage))
    frames = shape.stream()
    assert sum(frame.tokens for frame in frames) == said.output
    assert sum(frame.told for frame in frames) <= 2  # Groq tells it twice where it is asked
    assert all(frame.data for frame in frames)
    assert shape.whole()
    assert reply(asked, made) == said, "the same request gets the same answer"


@given(st.lists(ASKED, max_size=6), st.sampled_from([CacheRule(4, 0), CacheRule(8, 4), None]))
def test_no_token_of_a_prompt_is_counted_twice(requests: list[Asked], rule: CacheRule | None) -> None:
    cache = Cache(rule)
    for now, asked in enumerate(requests):
        made = prompt(asked)
        counted = cache.count("m", made, float(now))
        assert counted.prompt == made.tokens
        assert counted.fresh >= 0
        again = cache.count("m", made, float(now))
        assert again.cached >= counted.cached
        assert again.written + again.written_1h == 0


COUNTED = st.builds(
    lambda *sorts: Counted(sum(sorts[:4]), *sorts[1:]), *[st.integers(0, 10**6)] * 4, st.integers(0, 10**6)
)
AMOUNTS = st.decimals(0, 1000, places=6)


@given(st.builds(Prices, *[AMOUNTS] * 5), st.lists(st.tuples(COUNTED, st.booleans()), max_size=30))
def test_books_are_the_sum_of_what_each_request_costs(prices: Prices, requests: list[tuple[Counted, bool]]) -> None:
    books = Books(("a",), {"m": prices})
    for counted, told in requests:
        books.bill("a", "m", counted, told)
    by_hand = sum(
        (
            c.fresh * prices.input + c.cached * prices.cached + c.written * prices.written
            + c.written_1h * prices.written_1h + c.output * prices.output
            for c, _ in requests
        ),
        Decimal(0),
    )  # fmt: skip
    assert Decimal(books.shown()["amount"]) == by_hand / 1_000_000
    assert books.shown()["keys"]["a"]["requests"] == len(requests)
