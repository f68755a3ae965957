"""The plan of the city's load: the same for the same seed, a mix of kinds, and nothing about answers in it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.city.load import BYTES_PER_TOKEN, CROWD_SECONDS, HABITS, plan, prose


def test_same_seed_same_sessions() -> None:
    assert plan(3, 20) == plan(3, 20)
    assert plan(3, 20) != plan(4, 20)


def test_sessions_come_in_the_order_of_their_arrival() -> None:
    arrivals = [session.at for session in plan(1, 20)]
    assert arrivals == sorted(arrivals)


def test_every_kind_of_session_takes_part() -> None:
    kinds = Counter(session.kind for session in plan(1, 22))
    assert kinds.keys() == {"chat", "assistant", "document", "crowd"}
    assert kinds["chat"] > kinds["document"]


def test_most_sessions_are_plain_clients_without_a_key() -> None:
    sessions = plan(1, 22)
    keyed = [session for session in sessions if session.cache_key is not None]
    assert keyed
    assert len(keyed) < 0.1 * len(sessions)


def test_assistants_share_few_long_system_prompts() -> None:
    prompts = Counter(session.system for session in plan(1, 40) if session.kind == "assistant")
    assert 1 < len(prompts) <= 3
    assert all(prompt is not None and len(prompt) > 600 * BYTES_PER_TOKEN for prompt in prompts)


def test_documents_are_long_and_nobody_else_has_the_same() -> None:
    documents = [session.turns[0].text for session in plan(1, 40) if session.kind == "document"]
    low, high = HABITS["document"].first
    assert len(set(documents)) == len(documents)
    assert all(low * BYTES_PER_TOKEN < len(text) < (high + 50) * BYTES_PER_TOKEN for text in documents)


def test_the_crowd_comes_in_the_middle_and_all_at_once() -> None:
    crowd = [session.at for session in plan(1, 22) if session.kind == "crowd"]
    assert len(crowd) > 20
    assert all(11 <= at <= 11 + CROWD_SECONDS for at in crowd)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), seconds=st.floats(0.5, 60))
def test_no_session_begins_after_the_end_and_each_asks_something(seed: int, seconds: float) -> None:
    for session in plan(seed, seconds):
        assert 0 <= session.at <= seconds
        assert session.turns
        assert session.turns[0].pause == 0
        assert session.at + sum(turn.pause for turn in session.turns) <= seconds
        assert all(turn.text and turn.max_tokens > 0 for turn in session.turns)


@given(seed=st.integers(0, 1000), tokens=st.integers(1, 2000))
def test_prose_has_about_the_size_that_was_asked_for(seed: int, tokens: int) -> None:
    assert abs(len(prose(random.Random(seed), tokens)) - tokens * BYTES_PER_TOKEN) <= BYTES_PER_TOKEN


def test_a_load_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        plan(1, 0)
