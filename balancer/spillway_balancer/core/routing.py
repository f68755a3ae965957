"""From a public model name to the ordered tiers of a rule; from a tier to the order of its pools."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from spillway_api import snapshot, types
from spillway_api.durations import seconds
from spillway_api.types import Priority, Queue

from .conditions import Asked, ErrorKind, Moment, View, When
from .consumers import Callers
from .guards import Guards
from .hedging import HedgeBudget, Hedging
from .limits import TierLimits
from .meters import Rate
from .narrowing import Cuts
from .overrides import Allowed
from .pool import Pool
from .queueing import QueueRules
from .retry_budget import RetryBudget
from .selecting import Selection, Turns, chooser
from .spilling import Spilling, by_load

if TYPE_CHECKING:
    from .planning import Plan


class Target(NamedTuple):
    """One pool of a tier, and which of its models is meant."""

    pool: Pool
    model: str | None
    weight: int


class Tier(NamedTuple):
    spec: snapshot.RouteTier
    targets: tuple[Target, ...]
    spilling: Spilling | None = None
    """None where requests leave for no load."""
    hedging: Hedging | None = None
    """None where no attempt gets a second one beside it."""
    chooser: Selection | Turns | None = None
    """Of one of its pools; None where their order decides."""
    limits: TierLimits | None = None
    """None where any number may come in."""
    priced: bool = False
    """Whether it may cost something to be served here."""
    sleeps: bool = False
    """Whether one of its pools is asleep."""


class Deadlines(NamedTuple):
    """`timeouts` of a route in seconds."""

    connect: float
    first_byte: float
    stream_idle: float
    total: float

    @classmethod
    def of(cls, spec: types.Timeouts) -> Self:
        return cls(seconds(spec.connect), seconds(spec.first_byte), seconds(spec.stream_idle), seconds(spec.total))


class Ruling(NamedTuple):
    """The rule that decides on a request."""

    rule: str | None
    """Its name; None when no rule holds."""
    tiers: tuple[Tier, ...]
    errors: tuple[tuple[str, ErrorKind], ...] = ()
    """The rules before it that could not be evaluated, and so did not hold."""
    clamp: types.Clamp | None = None
    """What it lowers."""


Named = tuple[str, str]
"""A tier, by the names of its rule and of itself."""


class Route:
    """A RoutePolicy made ready to serve. What it has counted outlives a reload: retries, shares that spill, limits."""

    def __init__(self, spec: snapshot.Route, pools: dict[str, Pool], previous: Route | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        tiers = {(rule.name, tier.name): tier for rule in spec.rules for tier in rule.tiers}
        self.spilling: dict[Named, Spilling] = _spilling(tiers, pools, previous.spilling if previous else {})
        """Of the tiers that requests leave for load, by the names of rule and tier."""
        self.hedging: dict[Named, Hedging] = _hedging(tiers, previous.hedging if previous else {})
        """Of the tiers that hedge; their budgets outlive a reload."""
        kept = previous.choosers if previous else {}
        self.choosers: dict[tuple[str, str, str], Selection | Turns | None] = {
            at: each for at, each in kept.items() if at[:2] in tiers
        }
        """What chooses among the pools of tiers, by the names of rule, tier and mode. They outlive a reload."""
        self.limits: dict[Named, TierLimits] = _limits(tiers, previous.limits if previous else {})
        """Of the tiers that not everything may enter, likewise."""
        self.rules = tuple(tuple(self._tier(rule.name, tier, pools) for tier in rule.tiers) for rule in spec.rules)
        self.guards = Guards(spec.guards) if spec.guards else None
        self._whens = tuple(None if rule.when is None else When(rule.when) for rule in spec.rules)
        self._rulings = tuple(
            Ruling(rule.name, tiers, clamp=rule.set_) for rule, tiers in zip(spec.rules, self.rules, strict=True)
        )
        self._ruling_of = {rule.name: ruling for rule, ruling in zip(spec.rules, self._rulings, strict=True)}
        self.allowed = Allowed(spec.overrides)
        """What callers may decide for themselves."""
        self.pools = frozenset(target.pool for target in spec.targets())
        """Names of those that it leads to."""
        copy = spec.mirror.target if spec.mirror else None
        self.mirror = Target(pools[copy.pool], copy.model, copy.weight) if copy else None
        """Where copies of requests go."""
        self.declares = any(pools[name].declares for name in self.pools) or any(
            tier.min_quality_percent is not None or tier.max_cost is not None for tier in tiers.values()
        )
        """Whether some target says what it can do, or some tier asks for more than a pool."""
        conditional = any(rule.when is not None for rule in spec.rules)
        self.plain = not (conditional or spec.guards or self.declares or copy)
        """Whether all requests with one declared name have one plan, as far as they decide nothing themselves."""
        self.plans: dict[str, Plan] = {}
        """Those plans, by the declared name."""
        self.cuts = Cuts()
        self.home = next((tier.targets[0].pool for tiers in self.rules for tier in tiers), None)
        """The pool as which the key of a session is read, where no tier is chosen yet."""
        own = spec.name.partition("/")[0] + "/"
        self._by_name = {name.removeprefix(own): pools[name] for name in self.pools if not pools[name].remote}
        namesake = pools.get(spec.name)
        self.elsewhere = namesake is not None and namesake.remote
        """Whether it is that of all that a sidecar knows nothing of, which is called as the gateway's pool is."""
        self.untold: dict[str, Rate] | None = None
        """With a sidecar: requests by their rules, that its gateway has not been told of; None where none is to be."""
        if not self.elsewhere and any(pools[name].remote for name in self.pools):
            self.untold = {rule.name: Rate(0) for rule in spec.rules}
        self.deadlines = Deadlines.of(spec.timeouts)
        streams = spec.streams
        self.resumes = streams is not None and streams.resume != "Never"
        """Whether cut streams are gone on with."""
        self.keep_alive = seconds(streams.keep_alive) if streams and streams.keep_alive else None
        """After so many seconds of silence a stream that has not begun shows life; None: never."""
        self.callers: Callers | None = Callers.of(spec, None if previous is None else previous.callers)
        """None where the route is open to everybody."""
        self.queue = QueueRules.of(spec.queue or Queue(), spec.priority or Priority())
        self.retry_budget: RetryBudget = previous.retry_budget if previous else RetryBudget()
        self.retry_budget.percent = spec.retry.budget_percent

    def _tier(self, rule: str, spec: snapshot.RouteTier, pools: dict[str, Pool]) -> Tier:
        at = rule, spec.name
        return Tier(
            spec,
            tuple(Target(pools[t.pool], t.model, t.weight) for t in spec.targets),
            self.spilling.get(at),
            self.hedging.get(at),
            self._chooser(rule, spec.name, spec.select),
            self.limits.get(at),
            any(pools[t.pool].priced for t in spec.targets),
            any(pools[t.pool].asleep for t in spec.targets),
        )

    def compile(self) -> None:
        """All conditions in it, before the first request."""
        for when in self._whens:
            if when is not None:
                when.compile()
        if self.guards is not None:
            self.guards.compile()
        self.allowed.compile()

    def told(self, rule: str, now: float) -> int:
        """How many requests of the last minute a gateway is told of with one of them, beside that one."""
        if self.untold is None or rule not in self.untold:
            return 0
        had, self.untold[rule] = self.untold[rule].used(now), Rate(0)
        return max(0, had - 1)

    def reinstate(self) -> None:
        """Put these settings in force again, where those of a route that was to follow have come to nothing."""
        self.retry_budget.percent = self.spec.retry.budget_percent
        for limits in self.limits.values():
            limits.apply()
        if self.callers is not None:
            self.callers.apply()

    def view(self, asked: Asked, moment: Moment) -> View:
        """A request as this route's expressions see it."""
        return View(asked, moment, self._by_name, self.home)

    def ruling(self, rule: str) -> Ruling | None:
        """What the rule of this name decides, whether it holds or not."""
        return self._ruling_of.get(rule)

    def selecting(self, rule: str, tiers: tuple[Tier, ...], select: str) -> tuple[Tier, ...]:
        """The tiers of a rule with another mode of selecting."""
        return tuple(tier._replace(chooser=self._chooser(rule, tier.spec.name, select)) for tier in tiers)

    def _chooser(self, rule: str, tier: str, select: str) -> Selection | Turns | None:
        at = rule, tier, select
        if at not in self.choosers:
            self.choosers[at] = chooser(select)
        return self.choosers[at]

    def decide(self, asked: Asked, moment: Moment, view: View | None = None) -> Ruling:
        """The first rule that holds. One that cannot be evaluated is as one that is not there. `view`: the
        request's, where there is one already, so that nothing is computed twice."""
        errors: list[tuple[str, ErrorKind]] = []
        for when, ruling in zip(self._whens, self._rulings, strict=True):
            if when is None:
                return ruling._replace(errors=tuple(errors)) if errors else ruling
            if view is None:
                view = self.view(asked, moment)
            held = when.holds(view)
            if held is True:
                return ruling._replace(errors=tuple(errors)) if errors else ruling
            if held is not False:
                errors.append((ruling.rule or "", held))
        return Ruling(None, (), tuple(errors))

    def has(self, model: str) -> bool:
        """Whether some pool of this route has a model of exactly this name, that can be asked for by it."""
        return any(
            target.model is None and model in target.pool.models
            for tiers in self.rules
            for tier in tiers
            for target in tier.targets
        )

    def serves(self, model: str) -> bool:
        """Whether some pool of this route has the model (a wildcard alone does not say so)."""
        return any(
            target.pool.upstream_model(model, target.model) is not None
            for tiers in self.rules
            for tier in tiers
            for target in tier.targets
        )


def _spilling(
    tiers: Mapping[Named, snapshot.RouteTier], pools: Mapping[str, Pool], before: Mapping[Named, Spilling]
) -> dict[Named, Spilling]:
    found = {}
    for at, tier in tiers.items():
        if tier.spill is not None and by_load(tier.spill) and not any(pools[each.pool].remote for each in tier.targets):
            aimed = [(pools[each.pool], each.weight) for each in tier.targets]
            found[at] = Spilling(tier.spill, aimed, before.get(at))
    return found


def _hedging(tiers: Mapping[Named, snapshot.RouteTier], before: Mapping[Named, Hedging]) -> dict[Named, Hedging]:
    found = {}
    for at, tier in tiers.items():
        if tier.hedge is not None:
            budget = before[at].budget if at in before else HedgeBudget(tier.hedge.max_percent)
            budget.percent = tier.hedge.max_percent
            found[at] = Hedging(seconds(tier.hedge.after), budget)
    return found


def _limits(tiers: Mapping[Named, snapshot.RouteTier], before: Mapping[Named, TierLimits]) -> dict[Named, TierLimits]:
    return {at: TierLimits(tier.limits, before.get(at)) for at, tier in tiers.items() if tier.limits is not None}


SUFFIXES: Final = {"floor": "Cheapest", "nitro": "HighestThroughput"}
"""What a name may end in behind a colon, where no name is so called, and how its pools are selected then."""


class Found(NamedTuple):
    """The route of a requested name."""

    route: Route
    declared: str
    """The name or pattern that matched: a bounded metric label."""
    name: str
    """What was asked for, without a suffix that says how to select."""
    select: str | None = None
    """How, where one did."""


class Routes:
    """Public names to routes: exact, then the longest `prefix*`, then `*`."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all = tuple(routes)
        self.exact: dict[str, Route] = {}
        prefixes: dict[str, Route] = {}
        self.shadows = tuple(route for route in self.all if route.spec.mode == "Shadow")
        """Those that serve nothing, and say what they would do."""
        self._shadow_exact: dict[str, list[Route]] = {}
        wild: list[tuple[str, Route]] = []
        for route in self.shadows:
            for name in route.spec.models:
                if name.endswith("*"):
                    wild.append((name[:-1], route))
                else:
                    self._shadow_exact.setdefault(name, []).append(route)
        self._shadow_prefixes = sorted(wild, key=lambda item: (-len(item[0]), item[1].name))
        self.deciding = tuple(route for route in self.all if route.spec.mode == "Enforce")
        for route in self.deciding:
            for name in route.spec.models:
                if name.endswith("*"):
                    prefixes[name[:-1]] = route
                else:
                    self.exact[name] = route
        self.prefixes = sorted(prefixes.items(), key=lambda item: (-len(item[0]), item[0]))

    def resolve(self, model: str) -> Found | None:
        """The route of a requested name. One that is not found exactly and ends in `:floor` or `:nitro` stands for
        what is before it; under a wildcard the names of its pools' models are exact, too."""
        route = self.exact.get(model)
        if route is not None:
            return Found(route, model, model)
        found = self._resolve(model)
        if found is not None and (found.declared == model or found.route.has(model)):
            return found
        head, _, suffix = model.rpartition(":")
        if head and suffix in SUFFIXES and (of_head := self._resolve(head)) is not None:
            return of_head._replace(select=SUFFIXES[suffix])
        return found

    def _resolve(self, model: str) -> Found | None:
        route = self.exact.get(model)
        if route is not None:
            return Found(route, model, model)
        for prefix, route in self.prefixes:
            if model.startswith(prefix):
                return Found(route, prefix + "*", model) if route.serves(model) else None
        return None

    def shadows_of(self, model: str) -> Iterator[tuple[Route, str]]:
        """The shadows of a requested name, and of each the declared name that matches best."""
        exact = self._shadow_exact.get(model, ())
        for route in exact:
            yield route, model
        seen = set(exact)
        for prefix, route in self._shadow_prefixes:
            if model.startswith(prefix) and route not in seen and route.serves(model):
                seen.add(route)
                yield route, prefix + "*"

    def open_to(self, key_digest: bytes | None) -> frozenset[Route]:
        """The routes that may be asked with this key, or without one."""
        return frozenset(each for each in self.deciding if each.callers is None or each.callers.knows(key_digest))

    def names(self, among: Collection[Route]) -> list[str]:
        """What may be asked for of these routes: exact names, and for a wildcard the matching models of its pools."""
        found = {name for name, route in self.exact.items() if route in among and not route.elsewhere}
        for prefix, route in self.prefixes:
            if route not in among:
                continue
            for tiers in route.rules:
                for tier in tiers:
                    for target in tier.targets:
                        found.update(name for name in target.pool.models if name.startswith(prefix))
        return sorted(found)
