"""Character of the timing class, one behaviour a test."""

from __future__ import annotations

import random

import pytest

from spillway_balancer.engine.profiles import PROFILES, Profile
from spillway_balancer.engine.timing import EngineTiming, Kind, Sequence

SMALL = Profile(
    name="small",
    weights_s=0.03,
    token_s=0.0027,
    step_s=0.0014,
    sequence_s=0.0002,
    attention_s=2e-6,
    kv_read_s=2e-5,
    kv_tokens=640,
    max_batched_tokens=64,
    max_sequences=6,
    max_model_len=400,
)


def test_produced_counts_up_one_a_step() -> None:
    engine = EngineTiming(SMALL)
    sequence = Sequence(1, 40, 5)
    engine.submit(sequence, 0.0)
    assert engine.produced(sequence) == 0
    seen = []
    while (due := engine.next_step()) is not None:
        engine.advance(due)
        seen.append(engine.produced(sequence))
    assert seen == [1, 2, 3, 4, 5]
    assert engine.generated_tokens == 5


def test_a_late_driver_loses_nothing() -> None:
    engine = EngineTiming(SMALL)
    engine.submit(Sequence(1, 40, 5), 0.0)
    events = engine.advance(1e6)
    assert [event.kind for event in events] == [Kind.FIRST_TOKEN, Kind.FINISHED]
    assert events[1].at < 1.0
    assert engine.next_step() is None


def test_the_next_turn_finds_prompt_and_answer_but_the_last_token() -> None:
    engine = EngineTiming(SMALL)
    chain = tuple(range(20))
    engine.submit(Sequence(1, 32, 33, chain[:4]), 0.0)
    engine.advance(100.0)
    following = Sequence(2, 90, 1, chain[:5])
    engine.submit(following, 100.0)
    assert following.cached_tokens == 64


def test_a_prompt_that_is_wholly_cached_still_computes_its_last_block() -> None:
    engine = EngineTiming(SMALL)
    for id in (1, 2):
        sequence = Sequence(id, 64, 2, (1, 2, 3, 4))
        engine.submit(sequence, id * 100.0)
        engine.advance(id * 100.0 + 50.0)
    assert (sequence.cached_tokens, sequence.computed_tokens) == (48, 16)


def test_cancelling_the_blocked_head_lets_the_next_one_in() -> None:
    engine = EngineTiming(SMALL)
    engine.submit(Sequence(1, 300, 100), 0.0)
    engine.submit(Sequence(2, 300, 100), 0.01)
    small = Sequence(3, 10, 2)
    engine.submit(small, 0.02)
    engine.advance(1.0)
    assert engine.waiting == 2
    engine.cancel(2, 1.0)
    due = engine.next_step()
    assert due is not None
    engine.advance(due)
    assert small.admitted_at == due


def test_cancel_takes_effect_at_once() -> None:
    engine = EngineTiming(SMALL)
    engine.submit(Sequence(1, 100, 50), 0.0)
    engine.advance(0.5)
    assert engine.running == 1
    assert engine.kv_usage > 0
    engine.cancel(1, 0.5)
    assert engine.running == 0
    assert engine.pool.used == 0
    engine.cancel(1, 0.5)  # twice: nothing
    assert engine.cancelled == 1


def test_a_cancelled_answer_leaves_behind_what_was_written() -> None:
    for tokens, cached in ((16, 16), (17, 32)):  # the last token made is not yet in the KV memory
        engine = EngineTiming(SMALL)
        chain = tuple(range(9))
        sequence = Sequence(1, 16, 100, chain[:7])
        engine.submit(sequence, 0.0)
        while engine.produced(sequence) < tokens:
            engine.advance(engine.next_step() or 0.0)
        now = engine.next_step() or 0.0
        engine.cancel(1, now - 1e-9)
        following = Sequence(2, 100, 1, chain[:6])
        engine.submit(following, now)
        engine.advance(now + 100.0)
        assert following.cached_tokens == cached


def test_what_can_never_run_is_refused() -> None:
    engine = EngineTiming(SMALL)
    with pytest.raises(ValueError, match="longer than"):
        engine.submit(Sequence(1, 390, 11), 0.0)
    sequence = Sequence(2, 10, 10)
    engine.submit(sequence, 1.0)
    with pytest.raises(ValueError, match="submitted before"):
        engine.submit(sequence, 1.0)
    with pytest.raises(ValueError, match="backwards"):
        engine.advance(0.5)
    with pytest.raises(ValueError, match="at least one prompt token"):
        Sequence(3, 0, 1)


def test_a_request_costs_a_few_wakeups_however_long_its_answer() -> None:
    """The reason for the closed form: what a virtual driver does may not grow with the tokens."""
    dice = random.Random(5)
    wakeups = {}
    for length in (100, 2000):
        engine = EngineTiming(PROFILES["h100-llama3-8b"])
        now = 0.0
        calls = 0
        for id in range(400):
            now += dice.expovariate(1000 / length)
            while (due := engine.next_change()) is not None and due <= now:
                engine.advance(due)
                calls += 1
            engine.submit(Sequence(id, 500, length), now)
        while (due := engine.next_change()) is not None:
            engine.advance(due)
            calls += 1
        wakeups[length] = calls / 400
    assert max(wakeups.values()) < 5


def test_an_uncached_prompt_costs_its_tokens_and_a_cached_one_does_not() -> None:
    engine = EngineTiming(PROFILES["laptop-demo"])
    chain = tuple(range(250))
    first, again = Sequence(1, 4000, 2, chain), Sequence(2, 4000, 2, chain)
    engine.submit(first, 0.0)
    engine.advance(10.0)
    engine.submit(again, 10.0)
    engine.advance(20.0)
    assert first.first_token_at == pytest.approx(1.0, rel=0.1)  # about 4,000 tokens a second
    assert again.first_token_at == pytest.approx(10.0, abs=0.05)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_a_longer_step_never_costs_less(profile: Profile) -> None:
    costs = [profile.step_seconds(tokens, 8, 0.0, 1000) for tokens in range(8, 4096, 8)]
    assert costs == sorted(costs)
    assert costs[0] > 0
    assert profile.slower(2).step_seconds(100, 8, 9.0, 50) == pytest.approx(2 * profile.step_seconds(100, 8, 9.0, 50))
