"""Conditions of rules: what an expression may ask of a request and of the pools, found out when it asks."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, Protocol

from xxhash import xxh3_64_intdigest

from spillway_api.expressions import Condition, EvaluationError, InvalidExpression, MissingKey, condition
from spillway_api.providers import Api

from .allowance import Allowance
from .consumers import Consumer
from .keys import KeyFacts
from .pool import Pool

ErrorKind = Literal["missing", "error"]
"""`missing`: an entry that is not there was read, such as an absent header. Often meant so, unlike all others."""


class Asked(KeyFacts, Protocol):
    """What a request can tell its route. Those that are methods cost time, and are called at most once; `headers` once
    for the same names, of which None means all."""

    model: str
    """What is asked for. A suffix that says how to select is taken off by the plan."""

    @property
    def path(self) -> str: ...
    @property
    def streams(self) -> bool: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def caller(self) -> str:
        """What fairness between callers counts by. Bounded in length, and tells nobody's key."""
        ...

    consumer: Consumer | None
    """Who asks, where the route knows its callers: said by the plan."""

    @property
    def key_digest(self) -> bytes | None:
        """SHA-256 of the key that the client shows; None where it shows none."""
        ...

    def headers(self, names: Collection[str] | None) -> Mapping[str, str]: ...
    @property
    def thorough(self) -> bool: ...
    def tools(self) -> bool: ...
    def images(self) -> bool: ...
    def json(self) -> bool: ...
    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]: ...
    def max_tokens(self) -> int: ...
    def user(self) -> str: ...


class Moment(NamedTuple):
    """When and by what dice a rule is chosen."""

    now: float
    """Seconds, monotonic."""
    unix: float
    """Seconds since 1970."""
    dice: random.Random

    @property
    def epoch(self) -> float:
        """What makes Unix time of the monotonic clock's."""
        return self.unix - self.now


class View:
    """A request as the expressions of its route see it. What no expression reads is never computed, nothing twice."""

    __slots__ = ("_asked", "_headers", "_home", "_known", "_moment", "_pools")

    def __init__(self, asked: Asked, moment: Moment, pools: Mapping[str, Pool], home: Pool | None) -> None:
        """`pools` by the names that the policy calls them by; the key of a session is read as `home` reads it."""
        self._asked = asked
        self._moment = moment
        self._pools = pools
        self._home = home
        self._known: dict[str, Any] = {}
        self._headers: dict[frozenset[str] | None, Mapping[str, str]] = {}

    def values(self, made: Condition) -> dict[str, Any]:
        """Exactly the variables that the expression reads."""
        known = self._known
        found: dict[str, Any] = {}
        for name in made.reads:
            if name == "pools":
                found[name] = self._states(made.pools)
            elif name == "headers":
                if made.headers not in self._headers:
                    self._headers[made.headers] = self._asked.headers(made.headers)
                found[name] = self._headers[made.headers]
            else:
                if name not in known:
                    known[name] = _READERS[name](self)
                found[name] = known[name]
        return found

    def _states(self, names: frozenset[str] | None) -> dict[str, dict[str, float]]:
        states: dict[str, dict[str, float]] = {}
        for name in self._pools if names is None else names:
            if name in self._pools:
                at = f"pools {name}"
                if at not in self._known:
                    self._known[at] = state(self._pools[name], self._moment.now)
                states[name] = self._known[at]
        return states

    def _allowance(self) -> Allowance | None:
        return None if self._asked.consumer is None else self._asked.consumer.allowance

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._moment.unix, UTC)

    def _bucket(self) -> int:
        key = None if self._home is None else self._home.key(self._asked)
        return self._moment.dice.randrange(100) if key is None else bucket(key)


_READERS: Final[Mapping[str, Callable[[View], Any]]] = {
    "model": lambda view: view._asked.model,
    "path": lambda view: view._asked.path,
    "request.stream": lambda view: view._asked.streams,
    "request.tools": lambda view: view._asked.tools(),
    "request.images": lambda view: view._asked.images(),
    "request.json": lambda view: view._asked.json(),
    "request.max_tokens": lambda view: view._asked.max_tokens(),
    "request.user": lambda view: view._asked.user(),
    "tokens.input": lambda view: view._asked.prompt_tokens,
    "tokens.total": lambda view: view._asked.prompt_tokens + view._asked.output_tokens,
    "tokens_used": lambda view: 0 if (had := view._allowance()) is None else had.tokens_used(view._moment.now),
    "requests_used": lambda view: 0 if (had := view._allowance()) is None else had.requests_used(view._moment.now),
    "budget_used": lambda view: 0 if (had := view._allowance()) is None else had.budget_used(view._moment.unix),
    "consumer.name": lambda view: "" if view._asked.consumer is None else view._asked.consumer.name,
    "consumer.namespace": lambda view: "" if view._asked.consumer is None else view._asked.consumer.namespace,
    "consumer.labels": lambda view: {} if view._asked.consumer is None else view._asked.consumer.labels,
    "now": View._now,
    "bucket": View._bucket,
}


class When:
    """The condition of a rule, compiled once: when it is first asked, if that was not done before."""

    __slots__ = ("_made", "_source")

    def __init__(self, source: str) -> None:
        self._source: str | None = source
        self._made: Condition | None = None

    def compile(self) -> None:
        """A gateway does it when it takes a snapshot, and not for the first request. A sidecar has the routes of
        others, too, and the library that compiles takes 8 MB."""
        if self._source is not None:
            try:
                self._made = condition(self._source)
            except InvalidExpression:
                # What wrote the snapshot knew a variable that this balancer does not: one rule errs, the others serve.
                self._made = None
            self._source = None

    def holds(self, view: View) -> bool | ErrorKind:
        """Whether the rule is for this request, or what kind of error there was instead; its text is never told, for
        it may quote the request."""
        if self._source is not None:
            self.compile()
        if self._made is None:
            return "error"
        try:
            return self._made.holds(view.values(self._made))
        except MissingKey:
            return "missing"
        except EvaluationError:
            return "error"


def bucket(key: int) -> int:
    """0 to 99, the same for a session's key at any time and on every balancer.

    Hashed once more, so that it has nothing in common with where the key stands on a ring or which pool it prefers.
    """
    return xxh3_64_intdigest(key.to_bytes(8, "little"), _BUCKETS) * 100 >> 64


_BUCKETS: Final = xxh3_64_intdigest(b"bucket")


def state(pool: Pool, now: float) -> dict[str, float]:
    """What `pools["…"]` holds of a pool; what is unknown adds nothing."""
    ready = 0
    queued = 0.0
    usage: list[float] = []
    used = room = 0.0
    bound = pool.spec.capacity.max_in_flight_per_endpoint
    for endpoint in pool.endpoints.values():
        if not pool.usable(endpoint, now):
            continue
        ready += 1
        report = endpoint.load.report(now, pool.stale_after)
        if report is not None:
            queued += report.waiting or 0.0
            if report.kv_usage is not None:
                usage.append(report.kv_usage)
        if bound:
            used += pool.requests_at(endpoint, now)
            room += bound * endpoint.spec.weight / 100
    saturation = 0.0 if ready else 1.0
    if usage:
        saturation = max(saturation, sum(usage) / len(usage))
    if room:
        saturation = max(saturation, used / room)
    return {"ready": ready, "queued": queued, "saturation": min(saturation, 1.0)}
