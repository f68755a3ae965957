"""When an inference engine answers: continuous batching as a pure state machine that is handed the time.

The engine works in *steps*. A step takes every decoding sequence one token further and spends what is left of
its token budget on prompts (chunked prefill), first come, first served; a prompt costs only what the prefix
cache does not hold. Between two changes of the batch nothing happens but decoding, and the length of such a
stretch is a sum of an arithmetic series. So the model thinks in *spans*: one step with prefill, or any number
of decode-only steps.

Both drivers use the same calls and may make them whenever they like; how often never changes the outcome:

    submit(sequence, now)   cancel(id, now)   advance(now)     each returns the events up to `now`, in order
    next_change()           next_step()                        when to call again at the latest; None if idle

    virtual time                                  real time
    t = engine.next_change()                      t = engine.next_step(), wait until then
    for event in engine.advance(t): ...           for event in engine.advance(now): ...
                                                  for each stream: send engine.produced(sequence) - sent

A virtual driver wakes at the end of a span: a request costs a few calls however long its answer is. An
arrival cuts the span at the end of the step in progress. (With many engines in one heap: push `next_change()`
after every call; an entry that is popped and differs from its engine's `next_change()` is stale.) A real-time
driver wakes at every step, reads off `produced`, and may be late: the model catches up without drift. Nothing
is stored per token; token counts follow from step numbers.

Two simplifications. Room for prompt *and* answer is reserved at admission, so nothing is ever preempted (vLLM
allocates as it goes and preempts); `kv_usage` counts only what is written. And scheduling takes no time of
its own beyond the profile's `step_s`.
"""

from __future__ import annotations

import heapq
from collections import abc, deque
from enum import IntEnum
from math import sqrt
from typing import NamedTuple

from .blocks import BlockPool
from .profiles import Profile


class Phase(IntEnum):
    WAITING = 0
    PREFILL = 1
    DECODE = 2
    FINISHED = 3
    CANCELLED = 4


class Kind(IntEnum):
    FIRST_TOKEN = 1
    FINISHED = 2


class Sequence:
    """One request as the engine sees it. The first group is the caller's, the second the engine's to write.

    `blocks` are the chained hashes of the full blocks of prompt and answer, in order; it may stop earlier
    (unknown answers are then not cached). `output_tokens` 0 means prefill only, as for an embedding.
    """

    __slots__ = (
        "admitted_at",
        "blocks",
        "cached_tokens",
        "computed_tokens",
        "finish_step",
        "finished_at",
        "first_token_at",
        "held",
        "id",
        "output_tokens",
        "phase",
        "private",
        "prompt_tokens",
        "submitted_at",
    )

    def __init__(self, id: int, prompt_tokens: int, output_tokens: int, blocks: abc.Sequence[int] = ()) -> None:
        if prompt_tokens < 1 or output_tokens < 0:
            raise ValueError("a sequence has at least one prompt token and no negative output")
        self.id = id
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.blocks = blocks

        self.phase = Phase.WAITING
        self.submitted_at = 0.0
        self.admitted_at: float | None = None  # when it left the waiting queue
        self.first_token_at: float | None = None
        self.finished_at: float | None = None
        self.cached_tokens = 0  # prompt tokens found in the prefix cache at admission
        self.computed_tokens = 0  # prompt tokens computed so far
        self.held = 0  # leading blocks referred to in the pool
        self.private = 0  # blocks reserved and not yet full
        self.finish_step = 0  # number of the step that makes the last token


class Event(NamedTuple):
    at: float  # seconds, on the caller's clock
    kind: Kind
    sequence: Sequence


class EngineTiming:
    """One engine. Times are float seconds on the caller's clock and must not run backwards (ValueError)."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.pool = BlockPool(profile.kv_blocks)
        self.busy = 0.0  # seconds spent in steps that have ended
        self.queried_tokens = 0  # prompt tokens looked up in the prefix cache
        self.cached_tokens = 0  # of those, found
        self.computed_tokens = 0  # prompt tokens computed
        self.finished = 0
        self.cancelled = 0

        self._now = float("-inf")
        self._live: dict[int, Sequence] = {}
        self._waiting: deque[Sequence] = deque()
        self._prefilling: list[Sequence] = []
        self._unwritten = 0  # tokens that prefilling sequences have room for and have not written

        # Decoding sequences: a heap by the step that ends them, and sums from which their token counts
        # follow.
        self._ending: list[tuple[int, int, Sequence]] = []
        self._decoding = 0
        self._prompts = self._outputs = self._finish_steps = 0
        self._generated_before = 0  # tokens made by sequences that are no longer decoding

        # The span in progress: step j (1-based) ends at _start + j*_first + _growth*j*(j-1)/2.
        self._start = self._end = 0.0
        self._first = self._growth = 0.0
        self._steps = 0  # in the span; 0 when idle
        self._done = 0  # of those, ended by the time last seen
        self._step = 0  # number of the last step before the span
        self._chunks: list[tuple[Sequence, int]] = []  # what the span prefills
        self._order = 0

    # ---- what it looks like now ----------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._prefilling) + self._decoding

    @property
    def live(self) -> abc.ValuesView[Sequence]:
        """Waiting and running sequences: what is lost when the engine dies."""
        return self._live.values()

    @property
    def generated_tokens(self) -> int:
        return self._generated_before + self._generating()

    @property
    def context_tokens(self) -> int:
        """Tokens, prompt and answer so far, of the decoding sequences."""
        return self._prompts + self._generating()

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1: what is written, and what the step in progress writes.

        vLLM sets the blocks of a chunk aside when it schedules it (v1 `KVCacheManager.allocate_slots`).
        """
        scheduled = sum(chunk for sequence, chunk in self._chunks if sequence.phase == Phase.PREFILL)
        to_come = self._unwritten - scheduled + self._outputs - self._generating()
        return max(0, self.pool.used - to_come // self.profile.block_tokens) / self.pool.capacity

    def produced(self, sequence: Sequence) -> int:
        """Output tokens the sequence has by the time last seen."""
        if sequence.phase == Phase.DECODE:
            return sequence.output_tokens - (sequence.finish_step - self._step - self._done)
        return sequence.output_tokens if sequence.phase == Phase.FINISHED else 0

    def next_step(self) -> float | None:
        """When the step in progress ends; None when idle."""
        return self._after(self._done + 1) if self._steps else None

    def next_change(self) -> float | None:
        """When the span in progress ends, the earliest time of the next event; None when idle."""
        return self._end if self._steps else None

    # ---- what happens --------------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Event]:
        """Let time pass. Everything that ends at `now` or before has happened on return."""
        if now < self._now:
            raise ValueError(f"time runs backwards: {now} after {self._now}")
        self._now = now
        events: list[Event] = []
        while self._steps:
            end = self._end
            if end > now:
                if self._steps > 1:
                    self._done = self._steps_by(now)
                break
            self._finish_span(end, events)
            self._begin_span(end)
        return events

    def submit(self, sequence: Sequence, now: float) -> list[Event]:
        """Put a sequence at the end of the queue; it can join the next step. ValueError if it never could."""
        if sequence.prompt_tokens + sequence.output_tokens > self.profile.longest:
            raise ValueError("the sequence is longer than the engine has room for")
        if sequence.id in self._live or sequence.phase != Phase.WAITING:
            raise ValueError(f"sequence {sequence.id} was submitted before")
        events = self.advance(now)
        sequence.submitted_at = now
        self._live[sequence.id] = sequence
        self._waiting.append(sequence)
        if not self._steps:
            self._begin_span(now)
        elif len(self._waiting) == 1:
            # Behind a head that found no room a newcomer changes nothing: first come, first served.
            self._cut_span()
        return events

    def cancel(self, id: int, now: float) -> list[Event]:
        """Drop a sequence: its blocks are free at once, the step in progress runs on. Unknown id: nothing."""
        events = self.advance(now)
        sequence = self._live.pop(id, None)
        if sequence is None:
            return events
        if sequence.phase == Phase.WAITING:
            self._waiting.remove(sequence)
        elif sequence.phase == Phase.PREFILL:
            self._prefilling.remove(sequence)
            written = sequence.cached_tokens + sequence.computed_tokens
            self._unwritten -= sequence.prompt_tokens + sequence.output_tokens - written
            self._release(sequence, written)
        else:
            produced = self.produced(sequence)
            self._leave_decode(sequence, produced)
            self._release(sequence, sequence.prompt_tokens + produced - 1)
        sequence.phase = Phase.CANCELLED
        self.cancelled += 1
        if self._steps:
            self._cut_span()
        return events

    # ---- spans ---------------------------------------------------------------------------------------------

    def _after(self, steps: int) -> float:
        return self._start + steps * self._first + self._growth * (steps * (steps - 1) / 2)

    def _steps_by(self, now: float) -> int:
        """How many steps of the span have ended by `now`: the inverse of `_after`, exact against it."""
        elapsed = now - self._start
        if self._growth > 0:
            p = self._first - self._growth / 2
            steps = int((sqrt(p * p + 2 * self._growth * elapsed) - p) / self._growth)
        else:
            steps = int(elapsed / self._first)
        steps = min(max(steps, 0), self._steps)
        while steps < self._steps and self._after(steps + 1) <= now:
            steps += 1
        while steps and self._after(steps) > now:
            steps -= 1
        return steps

    def _cut_span(self) -> None:
        """The batch will change: end the span with the step in progress."""
        if self._done + 1 < self._steps:
            self._steps = self._done + 1
            self._end = self._after(self._steps)

    def _begin_span(self, now: float) -> None:
        """Form the next step from who is running and who waits, at the time the last one ended."""
        profile = self.profile
        decoding = self._decoding
        budget = profile.max_batched_tokens - decoding
        tokens = decoding
        pairs = 0.0
        chunks: list[tuple[Sequence, int]] = []
        for sequence in self._prefilling:
            if budget <= 0:
                break
            done = sequence.cached_tokens + sequence.computed_tokens
            chunk = min(budget, sequence.prompt_tokens - done)
            chunks.append((sequence, chunk))
            budget -= chunk
            tokens += chunk
            pairs += chunk * (done + chunk / 2)
        waiting = self._waiting
        while waiting and budget > 0 and decoding + len(self._prefilling) < profile.max_sequences:
            sequence = waiting[0]
            if not self._admit(sequence, now):
                break
            waiting.popleft()
            done = sequence.cached_tokens
            chunk = min(budget, sequence.prompt_tokens - done)
            chunks.append((sequence, chunk))
            budget -= chunk
            tokens += chunk
            pairs += chunk * (done + chunk / 2)

        self._chunks = chunks
        self._start = now
        self._done = 0
        if chunks:
            self._steps = 1
            self._growth = 0.0
        elif decoding:
            while self._ending[0][2].phase != Phase.DECODE:
                heapq.heappop(self._ending)  # cancelled meanwhile
            self._steps = self._ending[0][0] - self._step
            self._growth = profile.kv_read_s * decoding
        else:
            self._steps = 0
            return
        self._first = profile.step_seconds(tokens, decoding + len(chunks), pairs, self.context_tokens)
        self._end = self._after(self._steps)

    def _finish_span(self, end: float, events: list[Event]) -> None:
        self.busy += end - self._start
        self._step += self._steps
        self._steps = self._done = 0
        for sequence, chunk in self._chunks:
            if sequence.phase == Phase.PREFILL:  # else cancelled during the step
                self._prefilled(sequence, chunk, end, events)
        ending = self._ending
        while ending and ending[0][0] <= self._step:
            sequence = heapq.heappop(ending)[2]
            if sequence.phase == Phase.DECODE:
                self._leave_decode(sequence, sequence.output_tokens)
                self._finish(sequence, sequence.prompt_tokens + sequence.output_tokens - 1, end, events)

    # ---- one sequence --------------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence, now: float) -> bool:
        """Look the prompt up and reserve the rest. Its last token is always computed: the answer needs it."""
        size = self.profile.block_tokens
        total = sequence.prompt_tokens + sequence.output_tokens
        matched = self.pool.match(sequence.blocks, (sequence.prompt_tokens - 1) // size)
        private = -(-total // size) - matched
        if not self.pool.take(sequence.blocks, matched, private):
            return False
        sequence.phase = Phase.PREFILL
        sequence.admitted_at = now
        sequence.held = matched
        sequence.private = private
        sequence.cached_tokens = matched * size
        self.queried_tokens += sequence.prompt_tokens
        self.cached_tokens += sequence.cached_tokens
        self._unwritten += total - sequence.cached_tokens
        self._prefilling.append(sequence)
        return True

    def _prefilled(self, sequence: Sequence, chunk: int, end: float, events: list[Event]) -> None:
        sequence.computed_tokens += chunk
        self.computed_tokens += chunk
        self._unwritten -= chunk
        written = sequence.cached_tokens + sequence.computed_tokens
        self._publish(sequence, written)
        if written < sequence.prompt_tokens:
            return
        self._prefilling.remove(sequence)
        output = sequence.output_tokens
        self._unwritten -= output
        if output:
            sequence.first_token_at = end
            events.append(Event(end, Kind.FIRST_TOKEN, sequence))
        if output <= 1:
            self._generated_before += output
            self._finish(sequence, written, end, events)
            return
        sequence.phase = Phase.DECODE
        sequence.finish_step = self._step + output - 1
        self._order += 1
        heapq.heappush(self._ending, (sequence.finish_step, self._order, sequence))
        self._decoding += 1
        self._prompts += sequence.prompt_tokens
        self._outputs += output
        self._finish_steps += sequence.finish_step

    def _generating(self) -> int:
        """Tokens made so far by the decoding sequences: of each, its output less the steps to its end."""
        return self._outputs - self._finish_steps + self._decoding * (self._step + self._done)

    def _leave_decode(self, sequence: Sequence, produced: int) -> None:
        self._decoding -= 1
        self._prompts -= sequence.prompt_tokens
        self._outputs -= sequence.output_tokens
        self._finish_steps -= sequence.finish_step
        self._generated_before += produced

    def _finish(self, sequence: Sequence, written: int, end: float, events: list[Event]) -> None:
        self._release(sequence, written)
        sequence.phase = Phase.FINISHED
        sequence.finished_at = end
        del self._live[sequence.id]
        self.finished += 1
        events.append(Event(end, Kind.FINISHED, sequence))

    def _publish(self, sequence: Sequence, written: int) -> None:
        full = written // self.profile.block_tokens
        if full > sequence.held:
            published = self.pool.publish(sequence.blocks, sequence.held, full)
            sequence.held += published
            sequence.private -= published

    def _release(self, sequence: Sequence, written: int) -> None:
        """Full blocks, also of the answer but for its last token, which is never fed back, stay findable."""
        self._publish(sequence, written)
        self.pool.release(sequence.blocks, sequence.held, sequence.private)
        sequence.held = sequence.private = 0
