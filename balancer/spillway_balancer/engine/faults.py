"""Fault switches of the simulated engine: what can go wrong with a server, as small values and one pure
decision.

A fault is JSON with a `kind`; a list of them is armed at once and the first that fits a request hits it:

    {"kind": "status", "status": 429, "headers": {"retry-after": "2"}, "percent": 20}
    {"kind": "reset", "stage": "mid-stream", "chunks": 3, "count": 1}
    {"kind": "stall", "stage": "before-headers", "seconds": 5, "paths": ["/"]}

Every kind takes `percent` (share of the requests, default 100), `count` (only the next so many), `lasts`
(seconds until it switches itself off) and `paths` (prefixes, default `/v1/`; not for the kinds that have a
path of their own). `refuse` and the stage `accept` hit whole connections, those to the switches too: bound
them by `count` or `lasts`, or switch over the control port.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_args

import msgspec
from xxhash import xxh3_64_intdigest

# How far an answer has come: connection accepted and nothing read, request read and nothing sent, headers
# sent, the stream's role chunk (or what opens it) sent, `chunks` content chunks sent. An answer that is not
# streamed has no chunks: the last two are in the middle of its body.
Stage = Literal["accept", "before-headers", "after-headers", "after-role-chunk", "mid-stream"]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Code = Annotated[int, msgspec.Meta(ge=200, le=599)]


class Scope(Enum):
    """What a fault can hit."""

    ENGINE = "engine"  # all of it, as long as it is armed
    CONNECTION = "connection"
    REQUEST = "request"
    HEALTH = "health"
    METRICS = "metrics"


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all faults have, those of fake providers too."""

    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 100
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    lasts: Positive | None = None

    @property
    def scope(self) -> Scope:
        return Scope.REQUEST

    def covers(self, path: str) -> bool:
        return True


class _Request(Base, frozen=True, kw_only=True):
    paths: tuple[str, ...] = ("/v1/",)

    def covers(self, path: str) -> bool:
        return path.startswith(self.paths)


class _Staged(_Request, frozen=True, kw_only=True):
    stage: Stage = "before-headers"
    chunks: Annotated[int, msgspec.Meta(ge=1)] = 1  # content chunks before it, at the stage mid-stream

    @property
    def scope(self) -> Scope:
        return Scope.CONNECTION if self.stage == "accept" else Scope.REQUEST

    def covers(self, path: str) -> bool:
        return self.stage == "accept" or path.startswith(self.paths)


class Refuse(Base, frozen=True, tag="refuse"):
    """Stop listening; what comes over connections that are open is reset."""

    @property
    def scope(self) -> Scope:
        return Scope.ENGINE


class Slow(Base, frozen=True, kw_only=True, tag="slow"):
    """Every step lasts `factor` times as long."""

    factor: Positive

    @property
    def scope(self) -> Scope:
        return Scope.ENGINE


class Reset(_Staged, frozen=True, tag="reset"):
    """TCP RST."""


class Stall(_Staged, frozen=True, kw_only=True, tag="stall"):
    """Nothing more for `seconds` (for ever by default), then on as if nothing had been."""

    seconds: Positive | None = None


class Cut(_Request, frozen=True, kw_only=True, tag="cut"):
    """The connection is closed in order after `chunks` content chunks, but the answer is not complete.

    `how`: `close` at the end of an event, `mid-event` inside one, `no-done` with the body properly ended and
    only finish_reason and [DONE] missing.
    """

    chunks: Annotated[int, msgspec.Meta(ge=0)] = 1
    how: Literal["close", "mid-event", "no-done"] = "close"


class ErrorEvent(_Request, frozen=True, kw_only=True, tag="error-event"):
    """After `chunks` content chunks an error inside the stream, whose status was 200, as vLLM sends it."""

    chunks: Annotated[int, msgspec.Meta(ge=0)] = 1
    code: Code = 500
    message: str = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Status(_Request, frozen=True, kw_only=True, tag="status"):
    """Answer with this status, these headers, and `body`: JSON, a text as it is, or by default an OpenAI
    error.
    """

    status: Code
    headers: dict[str, str] = {}
    body: Any = None


class Malformed(_Request, frozen=True, kw_only=True, tag="malformed"):
    """JSON that is none: in a stream the event after `chunks` content chunks, else the body."""

    chunks: Annotated[int, msgspec.Meta(ge=0)] = 1


class Health(Base, frozen=True, kw_only=True, tag="health"):
    """GET /health answers with this status."""

    status: Code = 503

    @property
    def scope(self) -> Scope:
        return Scope.HEALTH


class Metrics(Base, frozen=True, kw_only=True, tag="metrics"):
    """GET /metrics is `missing` (404), `empty`, `garbage`, or `absurd`: every number reads `value`."""

    page: Literal["missing", "empty", "garbage", "absurd"] = "missing"
    value: str = "NaN"

    @property
    def scope(self) -> Scope:
        return Scope.METRICS


Fault = Refuse | Slow | Reset | Stall | Cut | ErrorEvent | Status | Malformed | Health | Metrics
KINDS = ("refuse", "slow", "reset", "stall", "cut", "error-event", "status", "malformed", "health", "metrics")

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Fault | list[Fault])
F = TypeVar("F", bound=Base)


def parse(data: bytes | str) -> tuple[Fault, ...]:
    """One fault or a list of them; ValueError that says what is wrong and where."""
    return parsed(_decoder, data, KINDS)


def parsed(decoder: msgspec.json.Decoder[Any], data: bytes | str, kinds: Iterable[str]) -> tuple[Any, ...]:
    """What a decoder of one fault or a list of them makes of it; `parse` for faults of other kinds."""
    try:
        found = decoder.decode(data)
    except msgspec.ValidationError as error:
        said = str(error)
        if "kind`" in said:
            said += f"; kinds are: {', '.join(kinds)}"
        elif ".stage`" in said:
            said += f"; stages are: {', '.join(get_args(Stage))}"
        raise ValueError(said) from None
    except msgspec.DecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    return tuple(found) if isinstance(found, list) else (found,)


class Armed(NamedTuple, Generic[F]):
    """A fault that is switched on."""

    fault: F
    until: float | None = None  # seconds on the caller's clock
    left: int | None = None
    hits: int = 0

    def fits(self, scope: Scope, path: str, now: float) -> bool:
        return (
            self.fault.scope is scope
            and self.left != 0
            and (self.until is None or now < self.until)
            and self.fault.covers(path)
        )


def arm(faults: Iterable[F], now: float) -> tuple[Armed[F], ...]:
    return tuple(Armed(fault, None if fault.lasts is None else now + fault.lasts, fault.count) for fault in faults)


def strike(
    armed: Sequence[Armed[F]], scope: Scope, path: str, roll: float, now: float
) -> tuple[F | None, tuple[Armed[F], ...]]:
    """Which fault hits, if any, and what is armed after that.

    `roll` in [0, 1) is thrown once: the first that fits takes its percent of the range, the next one the
    percent after it, so that two faults of 30 percent hit 60 of 100 requests.
    """
    edge = 0.0
    for index, one in enumerate(armed):
        if not one.fits(scope, path, now):
            continue
        edge += one.fault.percent / 100
        if roll < edge:
            hit = one._replace(hits=one.hits + 1, left=None if one.left is None else one.left - 1)
            return one.fault, (*armed[:index], hit, *armed[index + 1 :])
    return None, tuple(armed)


class Switches(Generic[F]):
    """The faults of one server. Dice are the hash of a running number: the same requests meet the same
    faults.
    """

    def __init__(self, faults: Iterable[F] = (), now: float = 0.0) -> None:
        self.armed = arm(faults, now)
        self._thrown = 0

    def set(self, faults: Iterable[F], now: float) -> None:
        self.armed = arm(faults, now)

    def strike(self, scope: Scope, path: str, now: float) -> F | None:
        if not self.armed:
            return None
        self._thrown += 1
        roll = xxh3_64_intdigest(self._thrown.to_bytes(8, "little")) / 2**64
        fault, self.armed = strike(self.armed, scope, path, roll, now)
        return fault

    def standing(self, now: float) -> list[F]:
        """The faults of the engine as a whole that are on now."""
        return [one.fault for one in self.armed if one.fits(Scope.ENGINE, "", now)]

    def next_expiry(self, now: float) -> float | None:
        return min((one.until for one in self.armed if one.until is not None and one.until > now), default=None)

    def shown(self, now: float) -> list[dict[str, Any]]:
        """What is armed, for people: each fault with its hits and what is left of it."""
        return [
            {
                "fault": one.fault,
                "hits": one.hits,
                "left": one.left,
                "seconds": None if one.until is None else round(max(0.0, one.until - now), 3),
            }
            for one in self.armed
        ]
