"""Laws of the timing class: however it is driven it agrees with a naive engine, and memory adds up.

The naive engine is the oracle: one step at a time, plain lists, time summed up; written from the rules, not
from the code. No spans, no derived counts, no heap. Slow and obvious.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spillway_balancer.engine.profiles import Profile
from spillway_balancer.engine.timing import EngineTiming, Event, Kind, Phase, Sequence

SMALL = Profile(
    name="small",
    weights_s=math.pi * 1e-2,
    token_s=math.e * 1e-3,
    step_s=math.sqrt(2) * 1e-3,
    sequence_s=math.sqrt(3) * 1e-4,
    attention_s=math.sqrt(5) * 1e-6,
    kv_read_s=math.sqrt(7) * 1e-5,
    kv_tokens=640,
    max_batched_tokens=64,
    max_sequences=6,
    max_model_len=400,
)


@dataclass
class Wanted:
    """What a client asks for: the input of both models."""

    id: int
    at: float
    prompt: int
    output: int
    blocks: tuple[int, ...]
    leaves: float | None = None  # when the client gives up


@dataclass
class Answer:
    first: float | None = None
    finished: float | None = None
    cached: int = 0


@dataclass
class _Row:
    want: Wanted
    answer: Answer
    written: int = 0  # prompt tokens cached or computed
    made: int = 0
    shared: list[int] = field(default_factory=list)
    private: int = 0


class Oracle:
    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.waiting: list[_Row] = []
        self.running: list[_Row] = []
        self.free: list[int] = []  # hashes, least recently used first

    def references(self) -> list[int]:
        return [value for row in self.running for value in row.shared]

    def used(self) -> int:
        return len(set(self.references())) + sum(row.private for row in self.running)

    def admit(self, row: _Row) -> bool:
        size, want = self.profile.block_tokens, row.want
        here = set(self.references()) | set(self.free)
        found = 0
        while found < min(len(want.blocks), (want.prompt - 1) // size) and want.blocks[found] in here:
            found += 1
        head = list(want.blocks[:found])
        private = -(-(want.prompt + want.output) // size) - found
        if len(set(self.references()) | set(head)) + sum(r.private for r in self.running) + private > (
            self.profile.kv_blocks
        ):
            return False
        self.free = [value for value in self.free if value not in head]
        row.shared, row.private = head, private
        row.written = row.answer.cached = found * size
        self.running.append(row)
        while self.used() + len(self.free) > self.profile.kv_blocks:
            self.free.pop(0)
        return True

    def publish(self, row: _Row, written: int) -> None:
        full = row.want.blocks[len(row.shared) : written // self.profile.block_tokens]
        for value in full:
            if value in self.free:
                self.free.remove(value)
            row.shared.append(value)
            row.private -= 1

    def leave(self, row: _Row, written: int) -> None:
        self.publish(row, written)
        self.running.remove(row)
        left = set(self.references())
        for value in reversed(row.shared):
            if value not in left:
                self.free.append(value)

    def step(self) -> tuple[float, list[tuple[_Row, int]], list[_Row]]:
        """Form a step: its length, the prompt chunks in it, and who decodes in it."""
        profile = self.profile
        decoding = [row for row in self.running if row.made]
        budget = profile.max_batched_tokens - len(decoding)
        chunks: list[tuple[_Row, int]] = []
        for row in [row for row in self.running if not row.made]:
            if budget > 0:
                chunks.append((row, min(budget, row.want.prompt - row.written)))
                budget -= chunks[-1][1]
        while self.waiting and budget > 0 and len(self.running) < profile.max_sequences:
            if not self.admit(self.waiting[0]):
                break
            row = self.waiting.pop(0)
            chunks.append((row, min(budget, row.want.prompt - row.written)))
            budget -= chunks[-1][1]
        pairs = sum(chunk * (row.written + chunk / 2) for row, chunk in chunks)
        kv = sum(row.want.prompt + row.made for row in decoding)
        tokens = len(decoding) + sum(chunk for _, chunk in chunks)
        if not tokens:
            return 0.0, [], []
        return profile.step_seconds(tokens, len(decoding) + len(chunks), pairs, kv), chunks, decoding

    def run(self, wanted: list[Wanted]) -> dict[int, Answer]:
        answers = {want.id: Answer() for want in wanted}
        happenings = [(want.at, 0, want) for want in wanted]
        happenings += [(want.leaves, 1, want) for want in wanted if want.leaves is not None]
        happenings.sort(key=lambda item: (item[0], item[1], item[2].id))
        now = 0.0
        while True:
            length, chunks, decoding = self.step()
            end = now + length if length else happenings[0][0] if happenings else None
            if end is None:
                return answers
            while happenings and (happenings[0][0] < end or not length):
                at, kind, want = happenings.pop(0)
                if kind == 0:
                    self.waiting.append(_Row(want, answers[want.id]))
                else:
                    self.cancel(want)
                now = at
                if not length:
                    break
            if not length:
                continue
            now = end
            for row, chunk in chunks:
                if row in self.running:
                    self.prefilled(row, chunk, now)
            for row in decoding:
                if row in self.running:
                    row.made += 1
                    if row.made == row.want.output:
                        self.done(row, now)

    def prefilled(self, row: _Row, chunk: int, now: float) -> None:
        row.written += chunk
        self.publish(row, row.written)
        if row.written == row.want.prompt:
            if row.want.output:
                row.made = 1
                row.answer.first = now
            if row.want.output <= 1:
                self.done(row, now)

    def done(self, row: _Row, now: float) -> None:
        row.answer.finished = now
        self.leave(row, row.want.prompt + max(row.want.output - 1, 0))

    def cancel(self, want: Wanted) -> None:
        self.waiting = [row for row in self.waiting if row.want is not want]
        for row in [row for row in self.running if row.want is want]:
            self.leave(row, row.written + max(row.made - 1, 0))


@st.composite
def traffic(draw: st.DrawFn) -> list[Wanted]:
    """Requests with shared prefixes: several conversations that each go on where another request left off."""
    wanted = []
    at = 0.0
    for id in range(draw(st.integers(1, 25))):
        at += draw(st.sampled_from([0.0, 0.0013, 0.017, 0.13, 1.7]))
        chat = draw(st.integers(0, 3))
        prompt = draw(st.integers(1, 300))
        output = draw(st.one_of(st.integers(0, 3), st.integers(0, 100)))
        shared = draw(st.integers(0, 20))
        whole = (prompt + output) // SMALL.block_tokens
        blocks = tuple(1000 * chat + i if i < shared else 1_000_000 + 1000 * id + i for i in range(whole))
        leaves = at + draw(st.sampled_from([0.0, 0.0071, 0.31])) if draw(st.integers(0, 5)) == 0 else None
        wanted.append(Wanted(id, at, prompt, output, blocks, leaves))
    return wanted


def check_memory(engine: EngineTiming) -> None:
    pool = engine.pool
    assert 0 <= pool.used <= pool.capacity
    assert pool.used + pool.cached <= pool.capacity
    assert 0.0 <= engine.kv_usage <= 1.0
    assert engine.running <= engine.profile.max_sequences
    assert engine.waiting + engine.running == len(engine.live)


def drive(
    wanted: list[Wanted], profile: Profile, by_step: bool, extra: random.Random | None = None
) -> tuple[list[Event], EngineTiming, dict[int, Sequence]]:
    """Run all of it, step by step or span by span; `extra` adds calls at moments of no meaning."""
    engine = EngineTiming(profile)
    sequences = {want.id: Sequence(want.id, want.prompt, want.output, want.blocks) for want in wanted}
    queue: list[tuple[float, int, int]] = []
    for want in wanted:
        queue.append((want.at, 0, want.id))
        if want.leaves is not None:
            queue.append((want.leaves, 1, want.id))
    heapq.heapify(queue)
    events: list[Event] = []
    now = 0.0
    while True:
        due = engine.next_step() if by_step else engine.next_change()
        if queue and (due is None or queue[0][0] < due):
            at, kind, id = heapq.heappop(queue)
            new = engine.submit(sequences[id], at) if kind == 0 else engine.cancel(id, at)
        elif due is None:
            return events, engine, sequences
        elif extra is not None and extra.random() < 0.5:
            at = now + (due - now) * extra.random()
            new = engine.advance(at)
        else:
            at = due
            new = engine.advance(due)
        assert all(now <= event.at <= at for event in new)
        now = at
        events += new
        check_memory(engine)


@given(traffic())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_closed_form_agrees_with_the_naive_engine(wanted: list[Wanted]) -> None:
    expected = Oracle(SMALL).run(wanted)
    _, _, sequences = drive(wanted, SMALL, by_step=False)
    for id, answer in expected.items():
        sequence = sequences[id]
        assert sequence.cached_tokens == answer.cached
        assert (sequence.first_token_at is None) == (answer.first is None)
        assert (sequence.finished_at is None) == (answer.finished is None)
        if answer.first is not None:
            assert sequence.first_token_at == pytest.approx(answer.first, rel=1e-9)
        if answer.finished is not None:
            assert sequence.finished_at == pytest.approx(answer.finished, rel=1e-9)


@given(traffic(), st.integers(0, 99))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_how_often_it_is_called_never_changes_the_outcome(wanted: list[Wanted], seed: int) -> None:
    def story(events: list[Event]) -> list[tuple[float, Kind, int]]:
        return [(event.at, event.kind, event.sequence.id) for event in events]

    by_span, one, _ = drive(wanted, SMALL, by_step=False)
    by_step, two, _ = drive(wanted, SMALL, by_step=True)
    at_random, three, _ = drive(wanted, SMALL, by_step=True, extra=random.Random(seed))
    assert story(by_span) == story(by_step) == story(at_random)  # exactly, not to a tolerance
    assert one.generated_tokens == two.generated_tokens == three.generated_tokens
    assert one.busy == two.busy == three.busy


@given(traffic())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everything_is_accounted_for_at_the_end(wanted: list[Wanted]) -> None:
    events, engine, sequences = drive(wanted, SMALL, by_step=False)
    done = [s for s in sequences.values() if s.phase == Phase.FINISHED]
    gone = [s for s in sequences.values() if s.phase == Phase.CANCELLED]
    assert len(done) + len(gone) == len(wanted)
    assert (engine.finished, engine.cancelled) == (len(done), len(gone))
    assert engine.pool.used == 0  # cancelled ones too have given everything back
    assert engine.kv_usage == 0.0
    assert engine.running == engine.waiting == engine.context_tokens == 0
    assert all(s.cached_tokens + s.computed_tokens == s.prompt_tokens for s in done)
    assert engine.computed_tokens == sum(s.computed_tokens for s in sequences.values())
    assert engine.cached_tokens == sum(s.cached_tokens for s in sequences.values())
    assert engine.generated_tokens >= sum(s.output_tokens for s in done)
    assert sum(e.kind == Kind.FINISHED for e in events) == len(done)


@given(traffic())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_first_come_first_served(wanted: list[Wanted]) -> None:
    _, _, sequences = drive(wanted, SMALL, by_step=False)
    admitted = [s.admitted_at for s in sequences.values() if s.admitted_at is not None]
    assert admitted == sorted(admitted)
    uncut = [s for s in sequences.values() if s.first_token_at is not None]
    assert [s.first_token_at for s in uncut] == sorted(s.first_token_at or 0.0 for s in uncut)
