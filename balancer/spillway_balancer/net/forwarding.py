"""What a sidecar does not send itself, on its way to the gateway: the client's own request and two headers beside it.

The gateway is asked by the client's own name, with the client's own credentials: who may ask it from here may ask it
from anywhere. What it answers as a gateway is the last word, errors included, since it has tried and waited itself;
what comes from anything else at that address (a proxy without a replica behind it, one that is being taken down) is
a failure like that of any endpoint, unless it is a good answer, as of any endpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from ..core.attempts import Attempts, Try
from ..core.errors import InvalidPodToken, LoopDetected
from ..core.forwarded import Forwarded
from ..core.planning import Plan
from ..core.reasons import Failure
from ..wire.forwarded import FORWARDED, GATEWAY, NOBODY, POD, SERVED_BY, write
from ..wire.headers import forwarded_headers
from ..wire.providers import OWN
from .answer import Answer
from .dialling import Origin
from .explaining import EXPLAIN
from .relay import Exchange
from .token_file import TokenFile
from .upstream import RawHeaders

if TYPE_CHECKING:
    from .sending import Job

log = logging.getLogger("spillway.endpoints")

SOONER: Final = 0.25
"""Seconds by which the gateway is to be done before the sidecar is: it knows better what to say of a request whose
time is over."""
_PART: Final = 0.1
"""Of what is left, at most."""

SIDECAR: Final = b"x-spillway-sidecar"
"""Header of an answer that is told why it came about: what the sidecar has to say of it, beside the gateway's."""

_FORWARDED, _POD, _EXPLAIN = (name.encode() for name in (FORWARDED, POD, EXPLAIN))
SIGNED: Final = (SERVED_BY.encode(), GATEWAY.encode())
_KINDS: Final = (b"application/json", b"text/event-stream", b"audio/")
"""Of what the API answers with."""
_GIVEN_BACK: Final = (SERVED_BY.encode(), NOBODY.encode())


class _Seldom:
    """Something to be logged once a minute at most, however often it happens."""

    QUIET = 60.0

    def __init__(self) -> None:
        self._said = -inf

    def due(self) -> bool:
        now = monotonic()
        due = now - self._said >= self.QUIET
        if due:
            self._said = now
        return due


_strangers = _Seldom()


def met(status: int) -> None:
    """An answer has come that has not the last word. A gateway that ends gives some, and from an address that is no
    gateway's come no others."""
    if _strangers.due():
        refused = ": it does not take our Pod's token" if status == InvalidPodToken.status else ""
        log.warning("what answers with %d at the gateway's address has not the last word%s", status, refused)


def onward(job: Job, made: Plan, step: Try, attempts: Attempts, answer: Answer) -> Job:
    """The same job for a gateway, which retries, waits and goes on with cut streams by itself."""
    at = Forwarded(inf, attempts.left)
    if not made.route.elsewhere:
        home, others = attempts.tiers.has_home, made.route.told(made.rule, monotonic())
        at = at._replace(route=made.route.name, rule=made.rule, tier=step.tier, home=home, others=others)
    patient = job.deadlines._replace(first_byte=inf, stream_idle=inf)
    return job._replace(answer=answer, deadlines=patient, onward=at)


class Forwarder:
    """Writes requests to the gateway."""

    def __init__(self, token: TokenFile | None = None) -> None:
        """`token`: of the Pod, by which the gateway knows whose word the header is; without one it is not heeded."""
        self._token = token
        self._silences = _Seldom()

    def unreached(self, why: str) -> None:
        """There was no connection. Nobody else says why: one that is alone is never ejected."""
        if self._silences.due():
            log.warning("the gateway cannot be reached: %s", why)

    def request(self, step: Try, job: Job, origin: Origin) -> list[bytes | memoryview]:
        """The client's own request, as it came."""
        body = job.peeked.forward(job.peeked.model)
        target = OWN.target(step.picked.endpoint.url, job.path.path)
        left = job.total - monotonic()
        at = (job.onward or Forwarded(left))._replace(deadline=left - min(SOONER, left * _PART))
        length = b"content-length: %d\r\n" % sum(map(len, body))
        return [self._head(f"POST {target}", origin, job.facts.raw(), at, length), *body]

    def lookup(self, target: str, origin: Origin, headers: RawHeaders, patience: float) -> list[bytes | memoryview]:
        """A question that has no body."""
        return [self._head(f"GET {target}", origin, headers, Forwarded(patience))]

    def _head(self, start: str, origin: Origin, headers: RawHeaders, at: Forwarded, length: bytes = b"") -> bytes:
        head = [f"{start} HTTP/1.1\r\nhost: {origin.authority}\r\n".encode(), length]
        for name, value in forwarded_headers(headers):
            head += (name, b": ", value, b"\r\n")
        head += (_FORWARDED, b": ", write(at).encode(), b"\r\n")
        if self._token is not None and (token := self._token.in_force(time())) is not None:
            head += (_POD, b": Bearer ", token.encode(), b"\r\n")
        head.append(b"\r\n")
        return b"".join(head)


class Forwarding(Exchange):
    """Receives the gateway's answer. One that the gateway has signed is passed on as it is; one by which it gives the
    request back is the client's no more than that of an endpoint that is full."""

    __slots__ = ("_given_back", "final")

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.final = False
        self._given_back = False

    def head(self, status: int, headers: RawHeaders, length: int | None) -> None:
        if _GIVEN_BACK in headers and status >= 400:
            self._given_back = True
            super().head(status, headers, length)
            return
        if SIGNED not in headers and status != LoopDetected.status:  # which does not heal, and is to be seen
            met(status)
            if _is_answer(status, headers):  # what was paid for is not asked for again
                super().head(status, headers, length)
            else:
                self._fail(Failure("server-error"))
            return
        self.final = True
        super().head(status, headers, length)
        if self._watch is not None:
            self._watch.committed = True  # there is nothing to wait for: its signs of life are the client's, too
        answer = self._answer
        assert isinstance(answer, Answer)
        if answer.told:
            answer.told = _told(answer.told, {name for name, _ in headers})

    def _error_answer(self) -> None:
        if self._given_back:
            self._fail(Failure("saturated", why="nothing there is open to it"))
        else:
            super()._error_answer()


def _is_answer(status: int, headers: RawHeaders) -> bool:
    """Whether this is what an API answers where it could. A gateway of before there were sidecars does not sign, and a
    proxy before it may take the signature away."""
    return status == 200 and any(
        name == b"content-type" and value.lower().startswith(_KINDS) for name, value in headers
    )


def _told(own: Iterable[tuple[bytes, bytes]], said: set[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """What the sidecar tells of a request that the gateway has served: what the gateway is silent on, and its own
    line under a name of its own."""
    return tuple(
        (SIDECAR if name == _EXPLAIN else name, value) for name, value in own if name == _EXPLAIN or name not in said
    )
