"""What a sidecar tells the gateway of a request: every value comes back as it went, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.errors import InvalidForwarded
from spillway_balancer.core.forwarded import Forwarded
from spillway_balancer.wire.forwarded import LONGEST, MOST_ATTEMPTS, MOST_OTHERS, MOST_SECONDS, parse, write

names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"]), max_size=12)
some = names.filter(bool)
deadlines = st.integers(0, 10**12).map(lambda each: each / 1000)
attempts = st.none() | st.integers(0, MOST_ATTEMPTS)
others = st.integers(0, MOST_OTHERS)
nothing = st.just("")
whole = st.builds(Forwarded, deadlines, attempts, some, some, names, st.booleans(), others) | st.builds(
    Forwarded, deadlines, attempts, nothing, nothing, nothing, st.just(False), st.just(0)
)


def test_as_the_documentation_has_it() -> None:
    said = "route=team/chat; rule=default; tier=paid; attempts=2; deadline=12.500"
    assert parse(said) == Forwarded(12.5, 2, "team/chat", "default", "paid")
    assert write(Forwarded(12.5, 2, "team/chat", "default", "paid")) == said
    assert write(Forwarded(3.0, None, "team/chat", "default", "paid", True, 9)) == (
        "route=team/chat; rule=default; tier=paid; home=yes; others=9; deadline=3.000"
    )
    assert write(Forwarded(3.0)) == "deadline=3.000"


@given(whole)
def test_what_is_written_is_read(said: Forwarded) -> None:
    read = parse(write(said))
    assert read._replace(deadline=0) == said._replace(deadline=0)
    assert said.deadline - 0.0011 < read.deadline <= said.deadline


@given(st.floats(0, 1e8))
def test_no_time_is_made_on_the_way(deadline: float) -> None:
    assert deadline - 0.0011 < parse(write(Forwarded(deadline))).deadline <= deadline


@given(whole)
def test_it_is_a_header(said: Forwarded) -> None:
    assert write(said).isascii()
    assert write(said).isprintable()


@given(whole, st.randoms(use_true_random=False), st.sampled_from([";", "; ", " ;\t"]))
def test_parts_come_in_any_order(said: Forwarded, dice: object, between: str) -> None:
    parts = write(said).split("; ")
    dice.shuffle(parts)  # type: ignore[attr-defined]
    assert parse(between.join(parts)) == parse(write(said))


@given(st.text(max_size=60) | st.text(";= deadlineroutrpsm0123456789.%/\t\x00é", max_size=60))
def test_garbage_raises_nothing_else(value: str) -> None:
    try:
        said = parse(value)
    except InvalidForwarded:
        return
    assert 0 <= said.deadline <= MOST_SECONDS


@pytest.mark.parametrize(
    "value",
    [
        "",
        "deadline",
        "deadline=",
        "deadline=x",
        "deadline=-1",
        "deadline=nan",
        "deadline=1e9",
        "deadline=٣",
        "deadline=1; deadline=2",
        "deadline=1;",
        "deadline=1; attempts=-1",
        "deadline=1; attempts=1.5",
        "attempts=1",
        "deadline=1; route=a/b",
        "deadline=1; rule=b",
        "deadline=1; tier=b",
        "deadline=1; route=a/b; tier=b",
        "deadline=1; route=a/b; rule=%zz",
        "deadline=1; route=a/b; rule=%ff",
        "deadline=1; route=a/b; rule=%0a",
        "deadline=1; route=a b; rule=c",
        "deadline=1; " + "x" * LONGEST + "=1",
    ],
)
def test_refused(value: str) -> None:
    with pytest.raises(InvalidForwarded):
        parse(value)


def test_newer_parts_are_ignored() -> None:
    assert parse("deadline=1; colour=blue; attempts=3") == Forwarded(1.0, 3)


def test_what_is_absurd_is_bounded() -> None:
    assert parse("deadline=999999999999; attempts=999999999") == Forwarded(MOST_SECONDS, MOST_ATTEMPTS)
    assert parse(write(Forwarded(float("inf"), 10**6))) == Forwarded(MOST_SECONDS, MOST_ATTEMPTS)
    assert parse(write(Forwarded(-1.0, -1))) == Forwarded(0.0, 0)
