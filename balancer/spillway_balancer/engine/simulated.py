"""One simulated engine without its sockets: models, timing, faults and counts, shared by all request
handlers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence as Many
from itertools import count
from typing import Any, NamedTuple

from aiohttp import web

from . import text
from .delivery import Whole
from .faults import Fault, Refuse, Slow, Switches
from .pacer import Pacer
from .profiles import Profile
from .requests import Ask, no_such_model, too_long
from .timing import Sequence


class Prepared(NamedTuple):
    """A request for text made ready to run."""

    sequence: Sequence
    answer: text.Answer
    reason: str  # the finish reason: length when the request set a limit, else stop


class Struck(NamedTuple):
    """A request that a fault has hit."""

    fault: Fault


class SimulatedEngine:
    """Needs a running loop. `speed`: seconds of the profile in a second."""

    def __init__(self, name: str, models: Many[str], profile: Profile, speed: float, faults: Many[Fault] = ()) -> None:
        self.name = name
        self.models = tuple(models)
        self.profile = profile
        self.loop = asyncio.get_running_loop()
        self.started = self.loop.time()
        self.speed = speed
        self.pacer = Pacer(profile, speed)
        self.switches: Switches[Fault] = Switches(faults, self.loop.time())
        self.served: Counter[str] = Counter()  # answers by path
        self.statuses: Counter[str] = Counter()
        self.in_flight = 0
        self.empty = asyncio.Event()  # set while no request is in flight
        self.empty.set()
        self._ids = count(1)

    # ---- requests ------------------------------------------------------------------------------------------

    def check_model(self, model: str) -> None:
        """Refusal (404) for a model that is not served here."""
        if model not in self.models:
            raise no_such_model(model)

    def prepare(self, ask: Ask) -> Prepared:
        """Refusal when the model is not served, or prompt and answer together do not fit its context."""
        self.check_model(ask.model)
        prompt_tokens = text.tokens_in(ask.prompt)
        room = self.profile.longest - prompt_tokens
        if room < (ask.limit or 1):
            raise too_long(prompt_tokens, self.profile.longest)
        if ask.said:
            answer = text.Answer.rest(ask.prompt, ask.said, ask.limit)
        else:
            output = ask.limit if ask.limit is not None else min(text.drawn_length(ask.prompt), room)
            answer = text.Answer(ask.prompt, output)
        sequence = self._sequence(ask.model, ask.salt, ask.prompt, prompt_tokens, answer)
        return Prepared(sequence, answer, "stop" if ask.limit is None else "length")

    async def compute(self, model: str, prompts: Many[bytes]) -> int:
        """Run prompts of which only the prefill counts, side by side; how many tokens they have."""
        self.check_model(model)
        sizes = [text.tokens_in(prompt) for prompt in prompts]
        if max(sizes) > self.profile.longest:
            raise too_long(max(sizes), self.profile.longest)
        sequences = [
            self._sequence(model, None, prompt, size, text.Answer(prompt, 0))
            for prompt, size in zip(prompts, sizes, strict=True)
        ]
        await self.travel()
        await self._run([(sequence, Whole()) for sequence in sequences])
        return sum(sizes)

    async def complete(self, prepared: Prepared) -> None:
        """Run to the end an answer that is not streamed."""
        await self._run([(prepared.sequence, Whole(prepared.reason))])

    async def travel(self) -> None:
        """The way to the queue, when the profile has one."""
        if self.profile.latency_s:
            await asyncio.sleep(self.profile.latency_s / self.speed)

    def _sequence(
        self, model: str, salt: str | None, prompt: bytes, prompt_tokens: int, answer: text.Answer
    ) -> Sequence:
        data = prompt + answer.text.encode("ascii")
        blocks = text.block_hashes(data, text.namespace(model, salt), self.profile.block_tokens)
        return Sequence(next(self._ids), prompt_tokens, answer.tokens, blocks)

    async def _run(self, jobs: Many[tuple[Sequence, Whole]]) -> None:
        try:
            for sequence, listener in jobs:
                self.pacer.submit(sequence, listener)
            for _, listener in jobs:
                await listener.done
        finally:
            for sequence, _ in jobs:
                self.pacer.cancel(sequence)

    def enter(self) -> None:
        """A request has come in. Every `enter` has its `leave`."""
        self.in_flight += 1
        self.empty.clear()

    def leave(self, path: str, status: str) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self.empty.set()
        self.served[path] += 1
        self.statuses[status] += 1

    # ---- switches ------------------------------------------------------------------------------------------

    @property
    def refusing(self) -> bool:
        return any(isinstance(fault, Refuse) for fault in self.switches.standing(self.loop.time()))

    def apply_speed(self) -> None:
        """Make the engine as slow as its faults say."""
        factor = 1.0
        for fault in self.switches.standing(self.loop.time()):
            if isinstance(fault, Slow):
                factor *= fault.factor
        self.pacer.set_speed(self.speed / factor)

    def reset(self) -> None:
        """Empty caches and counters; RuntimeError while busy. Faults stay."""
        if self.in_flight:
            raise RuntimeError("the engine is busy")
        self.pacer.reset()
        self.served.clear()
        self.statuses.clear()

    def state(self) -> dict[str, Any]:
        """Counts since start or reset, for tests and people."""
        timing = self.pacer.timing
        return {
            "name": self.name,
            "profile": self.profile.name,
            "models": list(self.models),
            "requests": self.served.total(),
            "in_flight": self.in_flight,
            "running": timing.running,
            "waiting": timing.waiting,
            "finished": timing.finished,
            "cancelled": timing.cancelled,
            "queried_tokens": timing.queried_tokens,
            "cached_tokens": timing.cached_tokens,
            "computed_tokens": timing.computed_tokens,
            "generated_tokens": timing.generated_tokens,
            "kv_usage": round(timing.kv_usage, 6),
            "cached_blocks": timing.pool.cached,
            "paths": dict(self.served),
            "statuses": dict(self.statuses),
        }


# The fault that hits a request once its answer has begun, put there by the gate.
FAULT: web.RequestKey[Struck] = web.RequestKey("fault", Struck)
# What a request turned into, for the log line.
PREPARED: web.RequestKey[Prepared] = web.RequestKey("prepared", Prepared)
ENGINE: web.AppKey[SimulatedEngine] = web.AppKey("engine", SimulatedEngine)
