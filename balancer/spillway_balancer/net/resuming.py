"""Streams that an endpoint has cut, gone on with at another one of the same pool: the client sees one answer.

Only where that is exact in form (`wire.resume`). What cannot be gone on with ends as every cut does, in an error event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Final

from ..core.attempts import Attempts
from ..core.reasons import Failure
from ..core.steps import Try
from ..wire.resume import Splice, Transcript, body_to_go_on
from .answer import Answer, Told
from .relay import Exchange
from .sending import Job, Sender
from .telemetry import Telemetry

ENGINES: Final = ("vLLM", "SGLang")
"""That go on where the last message ends. One that does not know how would begin anew, and nobody would notice."""


def goes_on(step: Try) -> bool:
    """Whether the endpoint is such an engine: by the word of its pool or, where that leaves it open, by its metrics.
    What is translated for it is not gone on with."""
    spec = step.pool.spec
    engine = step.endpoint.dialect if spec.engine == "Auto" else spec.engine
    return spec.provider is None and step.into is None and engine in ENGINES


class Resumable:
    """A client's answer that keeps what has been written of a stream, and takes the rest of it from elsewhere."""

    __slots__ = ("_answer", "_splice", "transcript")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._splice: Splice | None = None
        self.transcript = Transcript()

    @property
    def opened(self) -> bool:
        return self._answer.opened

    @property
    def status(self) -> int:
        return self._answer.status

    @status.setter
    def status(self, status: int) -> None:
        self._answer.status = status

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on with."""
        return self.transcript.sound and bool(self.transcript.head)

    def go_on(self, told: Told) -> None:
        """What is written from now on is the rest; `told` is said of it to a client that is told such things."""
        self._splice = Splice(self.transcript)
        if told:
            self._answer.more(b"".join(b": %b: %b\n" % each for each in told) + b"\n")

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None, first: bytes) -> None:
        if self._splice is not None:
            self.more(first)
        else:
            self.transcript.feed(first)
            self._answer.begin(status, headers, length, first)

    def more(self, data: bytes) -> None:
        if self._splice is None:
            self.transcript.feed(data)
        else:
            data = self._splice.feed(data)
        if data:
            self._answer.more(data)

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Sequence[bytes]) -> None:
        if self._splice is None:
            self.transcript.sound = False
            self._answer.whole(status, headers, body)
        else:  # a stream that has ended before it said anything new
            self.more(b"".join(body))
            self.end()

    def end(self) -> None:
        self._answer.end()

    def abort(self) -> None:
        self._answer.abort()


class Resumption:
    """Goes on with one request's stream, as often as its attempts and their budget allow."""

    def __init__(
        self,
        route: str,
        job: Job,
        answer: Resumable,
        sender: Sender,
        attempts: Attempts,
        telemetry: Telemetry,
        tell: Callable[[Try], Told],
    ) -> None:
        """`tell`: what the client is told of a step, if anything."""
        self._route = route
        self._job = job
        self._answer = answer
        self._sender = sender
        self._attempts = attempts
        self._telemetry = telemetry
        self._tell = tell

    async def run(self, step: Try, cut: Exchange) -> Try:
        """`step` has been cut off in the `cut` exchange. Returns the last step, with the answer at its end."""
        pool = step.pool
        result = "failed"
        try:
            while True:
                assert cut.interrupted is not None
                self._attempts.failed(step, cut.interrupted)
                following = await self._next(step)
                if following is None:
                    cut.say_cut()
                    return step
                step, exchange = following
                if not exchange.withheld:
                    result = "failed" if exchange.interrupted else "ok"
                    return step
                cut = exchange
        finally:
            self._telemetry.resumed(self._route, pool.name, result)

    async def _next(self, step: Try) -> tuple[Try, Exchange] | None:
        """Ask endpoints for the rest until one has said more; None when none is left."""
        job, transcript = self._job, self._answer.transcript
        while (following := self._attempts.resume(step, monotonic())) is not None:
            if not goes_on(following):
                self._attempts.unsent(following, monotonic())
                return None
            said = transcript.text
            tokens = max(transcript.tokens, round(len(said.encode()) / following.pool.learned.bytes_per_token))
            body = body_to_go_on(b"".join(self._sender.body(following, job)), said, tokens)
            if body is None:
                self._attempts.unsent(following, monotonic())
                return None
            self._answer.go_on(self._tell(following))
            job.decision.sent = step = following
            result = await self._sender.attempt(step, job._replace(body=body))
            failure = result if isinstance(result, Failure) else result.failure
            if failure is None:
                assert isinstance(result, Exchange)
                return step, result
            self._attempts.failed(step, failure)
        return None
