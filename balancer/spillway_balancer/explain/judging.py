"""What came of a case, against what is expected of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from spillway_api.problem import Steps, did_you_mean, shown

from ..core.account import Attempted, Explanation, Queued, Served
from .asking import Asking, from_fields
from .cases import Case, Cases, Expect, Split
from .document import Read
from .given import RequestGiven, State
from .telling import whole
from .world import Policies, World, slips

OF_THE_POLICY: Final = ("policy", "rule")
OF_WHO_SERVES: Final = ("tier", "pool", "endpoint", "model", "reason", "spilled", "attempt")
NAMED: Final = ("rules", "tiers", "pools", "endpoints")


class Difference(NamedTuple):
    """What is not as expected, with the place of the expectation in the case."""

    steps: Steps
    message: str


class Judgement(NamedTuple):
    """One case that was played."""

    case: Case
    place: str
    """file:line:column"""
    differences: tuple[str, ...]
    """With their places; empty when all is as expected."""
    account: Explanation
    """The first that is not as expected, else the first."""


class Judge:
    """Plays cases against one snapshot."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._snapshot = snapshot = policies.snapshot
        routes = snapshot.routes
        self._known = {
            "policy": {route.name for route in routes},
            "pool": {pool.name for pool in snapshot.pools},
            "rule": {rule.name for route in routes for rule in route.rules} | {""},
            "tier": {tier.name for route in routes for rule in route.rules for tier in rule.tiers},
            "endpoint": {endpoint.name for pool in snapshot.pools for endpoint in pool.endpoints},
        }
        sources = [source for pool in snapshot.pools for source in pool.dispatch.key[:1]]
        self._sources = tuple(dict.fromkeys((source.type, source.name) for source in sources))

    def slips(self, file: Read[Cases]) -> Iterator[str]:
        """What a file names that is not there; such a case would prove nothing."""
        yield from slips(file.part(file.value.state, "state"), self._snapshot)
        for number, case in enumerate(file.value.cases):
            read = file.part(case, "cases", number)
            yield from slips(read.part(case.state, "state"), self._snapshot)
            for steps, kind, name in _names(case.expect):
                known = self._known[kind]
                if name not in known:
                    near = [each.removeprefix("default/") for each in sorted(known)]
                    hint = did_you_mean(name.removeprefix("default/"), near, "there are")
                    yield read.problem(("expect", *steps), f"no {kind} {shown(name)} ({hint})")

    def play(self, file: Read[Cases]) -> Iterator[Judgement]:
        """Each case, in order. Raises Unusable for a path that is not served."""
        for number, case in enumerate(file.value.cases):
            read = file.part(case, "cases", number)
            line, column = read.root.place(read.steps)
            world = World(self._policies, _together(file.value.state, case.state), file.value.seed)
            split = case.expect.split
            many = [from_fields(case.request)] if split is None else self._sessions(case.request, split.sessions)
            accounts = list(world.ask_all(many))
            found, account = _differences(case.expect, accounts)
            told = tuple(read.problem(("expect", *each.steps), each.message) for each in found)
            yield Judgement(case, f"{file.file}:{line}:{column}", told, account)

    def _sessions(self, given: RequestGiven, number: int) -> list[Asking]:
        """The request from many sessions, told apart by where pools look for their keys first."""
        return [from_fields(_session(given, f"session-{each}", each, self._sources)) for each in range(number)]


def _session(given: RequestGiven, key: str, number: int, sources: tuple[tuple[str, str | None], ...]) -> RequestGiven:
    headers = dict(given.headers)
    for kind, name in sources:
        match kind:
            case "Header":
                headers = {each: value for each, value in headers.items() if each.lower() != (name or "").lower()}
                headers[name or ""] = key
            case "Body":
                given = replace(given, body={**(given.body or {}), **_nested((name or "").split("."), key)})
            case "ClientIP":
                given = replace(given, client_ip=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
            case _:
                given = replace(given, prompt=f"{key}: {given.prompt or ''}")
    return replace(given, headers=headers)


def _nested(steps: list[str], value: str) -> dict[str, object]:
    first, *rest = steps
    return {first: _nested(rest, value) if rest else value}


def _together(base: State, over: State) -> State:
    return State(
        now=over.now or base.now,
        pools={**base.pools, **over.pools},
        policies={**base.policies, **over.policies},
        consumer=over.consumer or base.consumer,
    )


def _names(expect: Expect) -> Iterator[tuple[Steps, str, str]]:
    """What is expected by name: its place, its kind and the name."""
    if expect.policy is not None:
        yield ("policy",), "policy", whole(expect.policy)
    if expect.pool is not None:
        yield ("pool",), "pool", whole(expect.pool)
    for index, name in enumerate(expect.never):
        yield ("never", index), "pool", whole(name)
    for kind in ("rule", "tier", "endpoint"):
        if (value := getattr(expect, kind)) is not None:
            yield (kind,), kind, value
    for kinds in () if expect.split is None else NAMED:
        for name in getattr(expect.split, kinds) or ():
            kind = kinds.removesuffix("s")
            yield ("split", kinds, name), kind, whole(name) if kind == "pool" else name


def _differences(expect: Expect, accounts: list[Explanation]) -> tuple[list[Difference], Explanation]:
    """All that is not as expected; of many sessions the first that goes wrong stands for all of its kind."""
    worst, found = accounts[0], list[Difference]()
    for account in accounts:
        if found := list(_of_each(expect, account)):
            worst = account
            break
    if expect.split is not None:
        found += _of_all(expect.split, accounts)
    return found, worst


def _of_each(expect: Expect, account: Explanation) -> Iterator[Difference]:
    outcome = account.outcome
    served = isinstance(outcome, Served)
    status = 200 if isinstance(outcome, Served) else outcome.status
    code = "" if isinstance(outcome, Served) else outcome.code
    if expect.status is not None and expect.status != status:
        yield Difference(("status",), f"expected {expect.status}, is {status} {code}".rstrip())
    if expect.error is not None and expect.error != code:
        yield Difference(
            ("error",), f"expected {shown(expect.error)}, is {shown(code) if code else 'none: it is served'}"
        )
    for name in OF_THE_POLICY:
        wanted = getattr(expect, name)
        is_ = getattr(account, name)
        if wanted is not None and (whole(wanted) if name == "policy" else wanted) != is_:
            yield _other(name, wanted, is_)
    actual = _who_serves(outcome) if isinstance(outcome, Served) else {}
    for name in OF_WHO_SERVES:
        wanted = getattr(expect, name)
        if wanted is None:
            continue
        if not served:
            yield Difference((name,), f"expected {shown(wanted)}, is nobody: {status} {code}")
        elif (whole(wanted) if name == "pool" else wanted) != actual[name]:
            yield _other(name, wanted, actual[name])
    waits = any(isinstance(step, Queued) for step in account.steps)
    if expect.waits is not None and expect.waits != waits:
        yield _other("waits", expect.waits, waits)
    sent = {step.pool for step in account.steps if isinstance(step, Attempted)}
    sent |= {outcome.pool} if isinstance(outcome, Served) else set()
    for index, name in enumerate(expect.never):
        if whole(name) in sent:
            yield Difference(("never", index), f"{shown(name)} must never be asked, and was")


def _who_serves(outcome: Served) -> dict[str, object]:
    return {
        "tier": outcome.tier,
        "pool": outcome.pool,
        "endpoint": outcome.endpoint,
        "model": outcome.upstream_model,
        "reason": outcome.reason,
        "spilled": outcome.spilled,
        "attempt": outcome.attempt,
    }


def _other(name: str, wanted: object, actual: object) -> Difference:
    return Difference((name,), f"expected {shown(wanted)}, is {shown(actual)}")


def _of_all(split: Split, accounts: list[Explanation]) -> Iterator[Difference]:
    for kinds in NAMED:
        wanted = getattr(split, kinds)
        if wanted is None:
            continue
        counts = Counter(_place(account, kinds) for account in accounts)
        for name, percent in wanted.items():
            share = 100 * counts[whole(name) if kinds == "pools" else name] / len(accounts)
            if abs(share - percent) > split.within:
                message = (
                    f"expected {percent:g} % within {split.within:g}, is {share:.1f} % of {len(accounts)} sessions"
                )
                yield Difference(("split", kinds, name), message)


def _place(account: Explanation, kinds: str) -> str:
    if kinds == "rules":
        return account.rule
    outcome = account.outcome
    if not isinstance(outcome, Served):
        return ""
    return {"tiers": outcome.tier, "pools": outcome.pool, "endpoints": outcome.endpoint}[kinds]
