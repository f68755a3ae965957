"""The mirror of a prefix cache, against what it would be block by block."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.core.prefix import CacheMirror


def chained(symbols: list[int]) -> array[int]:
    """Hashes of the prefixes of a text of four symbols: numbers that are equal only where the prefixes are."""
    out, last = array("Q"), 0
    for symbol in symbols:
        last = last * 4 + symbol + 1
        out.append(last)
    return out


class ByBlock:
    """The same, naively: a count of references to each block, and the line of those without any."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()

    def match(self, blocks: array[int]) -> int:
        return next(
            (place for place, each in enumerate(blocks) if each not in self.held and each not in self.idle), len(blocks)
        )

    def pin(self, blocks: array[int]) -> None:
        for each in blocks:
            self.idle.pop(each, None)
            self.held[each] = self.held.get(each, 0) + 1

    def unpin(self, blocks: array[int], answer: array[int]) -> None:
        self.pin(answer)
        for each in reversed(blocks + answer):
            self.held[each] -= 1
            if not self.held[each]:
                del self.held[each]
                self.idle[each] = None

    def trim(self, room: int) -> None:
        while len(self.idle) > max(0, room):
            self.idle.popitem(last=False)


# Few symbols and a habit of repeating: prompts that share much, part anywhere, and are prefixes of each other.
TEXTS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), max_size=24)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pin"), TEXTS),
        st.tuples(st.just("unpin"), st.integers(0, 7), TEXTS.map(lambda text: text[:6]), st.booleans()),
        st.tuples(st.just("trim"), st.integers(-3, 40)),
        st.tuples(st.just("forget")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None, max_examples=400)
def test_runs_of_blocks_are_what_single_blocks_would_be(steps: list[tuple[Any, ...]]) -> None:
    mirror, model = CacheMirror(), ByBlock()
    pins: list[tuple[Any, ByBlock, list[int]]] = []
    asked: list[array[int]] = []
    for name, *said in steps:
        if name == "pin":
            text = said[0]
            pins.append((mirror.pin(chained(text)), model, text))
            model.pin(chained(text))
            asked += (chained(text), chained([*text, 1, 0]), chained([*text[: len(text) // 2], 3]))
        elif name == "unpin" and pins:
            place, more, computed = said
            pin, where, text = pins.pop(place % len(pins))
            whole = chained([*text, *more])
            answer = whole[len(text) :]
            pin.unpin(answer, computed)
            pin.unpin(answer, computed)
            where.unpin(chained(text), answer if computed else array("Q"))  # a forgotten model hears of its own
            asked.append(whole)
        elif name == "trim":
            mirror.trim(said[0])
            model.trim(said[0])
            assert mirror.idle <= max(0, said[0])
        elif name == "forget":
            mirror.forget()
            model = ByBlock()
        assert (mirror.pinned, mirror.idle) == (len(model.held), len(model.idle))
        for blocks in asked:
            assert mirror.match(blocks) == model.match(blocks)
    for pin, where, text in pins:
        pin.unpin()
        where.unpin(chained(text), array("Q"))
    assert (mirror.pinned, mirror.idle) == (0, len(model.idle))
    mirror.trim(0)
    assert (mirror.pinned, mirror.idle, max(map(mirror.match, asked), default=0)) == (0, 0, 0)


@given(st.lists(TEXTS, min_size=1, max_size=12), st.integers(0, 60))
@settings(deadline=None)
def test_what_is_left_are_whole_beginnings_and_the_latest_of_them(texts: list[list[int]], room: int) -> None:
    """Nothing is kept whose beginning is gone, and who came last loses nothing before others have lost all."""
    mirror = CacheMirror()
    for text in texts:
        mirror.pin(chained(text)).unpin()
    mirror.trim(room)
    last = texts[-1]
    assert mirror.match(chained(last)) == min(room, len(last))
    beginnings = {tuple(text[: mirror.match(chained(text))]) for text in texts}
    found = {begin[:stop] for begin in beginnings for stop in range(1, len(begin) + 1)}
    assert len(found) == mirror.idle  # all that counts as idle is found by some prompt


@given(st.lists(TEXTS, max_size=8), TEXTS, st.integers(-5, 0))
@settings(deadline=None)
def test_no_want_of_room_takes_what_is_in_flight(ended: list[list[int]], flying: list[int], room: int) -> None:
    mirror = CacheMirror()
    pin = mirror.pin(chained(flying))
    for text in ended:
        mirror.pin(chained(text)).unpin()
    mirror.trim(room)
    assert mirror.match(chained(flying)) == mirror.pinned == len(flying)
    assert mirror.idle == 0
    pin.unpin()
    assert mirror.idle == len(flying)


def test_pins_of_a_forgotten_cache_change_nothing_in_the_new_one() -> None:
    mirror = CacheMirror()
    prompt = chained([0] * 20)
    before = mirror.pin(prompt)
    mirror.forget()
    assert (mirror.pinned, mirror.match(prompt)) == (0, 0)
    after = mirror.pin(prompt[:10])
    before.unpin(chained([0] * 24)[20:])
    assert (mirror.pinned, mirror.idle, mirror.match(prompt)) == (10, 0, 10)
    after.unpin()
    assert (mirror.pinned, mirror.idle) == (0, 10)


def test_next_turn_finds_the_prompt_and_the_answer() -> None:
    mirror = CacheMirror()
    turn = chained([0, 1, 2, 3] * 6)
    pin = mirror.pin(turn[:12])
    assert mirror.match(turn) == 12  # while it is in flight, too
    pin.unpin(turn[12:16])
    assert mirror.match(turn) == 16


def test_answer_of_a_failed_attempt_is_not_believed() -> None:
    mirror = CacheMirror()
    turn = chained([0, 1, 2, 3] * 6)
    mirror.pin(turn[:12]).unpin(turn[12:16], computed=False)
    assert mirror.match(turn) == 12


@pytest.mark.parametrize("kind", [list, tuple, lambda blocks: array("Q", blocks)])
def test_prompts_may_be_any_sequence(kind: Any) -> None:
    mirror = CacheMirror()
    turn = chained([0, 1] * 10)
    mirror.pin(kind(turn[:11])).unpin(kind(turn[11:15]))
    mirror.trim(13)
    assert mirror.match(kind(turn)) == 13
