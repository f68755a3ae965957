"""What this process may spend of budgets that several share: leases, and the books that it keeps of them.

The operator grants ceilings (`spillway_api.ledger`); `Spend` compares with the ceiling as it does with the limit. What
all balancers let in is never more than what was granted, and the operator never grants more than the budget, whatever
becomes of messages. Without news a balancer goes on up to its ceiling, and then treats the budget as spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from spillway_api.ledger import Books, Grants, Spent, amount
from spillway_api.periods import period_end

from .prices import EXACT, NOTHING

if TYPE_CHECKING:
    from .meters import Spend

AHEAD: Final = 60.0
"""Seconds before a period begins from which on something is asked for in it."""
ROUNDS: Final = 50
"""Of very many budgets those where nothing has happened are looked at in so many rounds: the loop of a balancer has
better to do. What changes by time alone (a new period, what was asked long ago) is told that much later."""
FEW: Final = 10
"""So many are looked at each time."""
RECENT: Final = 60.0
"""Seconds for which it is remembered, once to twice, what requests have needed."""


class Held(NamedTuple):
    """What was granted for one period."""

    ceiling: Decimal = NOTHING
    serial: int = 0
    dry: bool = False
    """There is nothing more to be had."""


NONE_HELD: Final = Held()


class Lease:
    """Of one budget, by periods. What a lease has seen outlives the policy that it is of: it may come back."""

    __slots__ = ("_asked", "_before", "_held", "_left", "_turned", "stirred")

    def __init__(self) -> None:
        self._held: dict[float, Held] = {}
        self._asked = self._before = NOTHING
        self._turned = -inf
        self._left: tuple[float, Decimal] = (-inf, NOTHING)
        self.stirred = True
        """Something has happened that is not in the books yet."""

    def at(self, ends: float) -> Held:
        """What there is for the period with that end."""
        return self._held.get(ends, NONE_HELD)

    def take(self, ends: float, held: Held) -> None:
        self._held[ends] = held
        self.stirred = True

    def asks(self, needed: Decimal) -> None:
        """A request needs so much."""
        self.stirred = True
        if needed > self._asked:
            self._asked = needed

    def asked(self, now: float) -> Decimal:
        """The most that one has needed in the last minute or two; seconds, of any clock."""
        if now - self._turned >= RECENT:
            self._before, self._asked, self._turned = self._asked, NOTHING, now
        return max(self._before, self._asked)

    def part(self, spend: Spend, unix: float) -> None:
        """The policy of this budget is gone."""
        self._left = spend.ends(unix), EXACT.add(spend.spent, spend.reserved)
        spend.follow(None)

    def meet(self, spend: Spend, unix: float) -> None:
        """From now on `spend` goes by this lease. If it is of a policy that has come back, it does not begin anew."""
        ends, used = self._left
        spend.restore(unix, ends, max(NOTHING, EXACT.subtract(used, spend.spent)))
        spend.follow(self)
        self.stirred = True

    def forget(self, unix: float) -> None:
        """Periods that are over."""
        for ends in [ends for ends in self._held if ends <= unix]:
            del self._held[ends]


class Ledger:
    """The leases of this process: it follows what there is to spend, tells the operator, and takes its grants."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.leasing = True
        """Whether budgets go by leases: not with an operator that grants none, for then each counts for itself."""
        self.left = False
        self._leases: dict[str, Lease] = {}
        self._spends: dict[str, Spend] = {}
        self._told: dict[str, tuple[Spent, ...]] = {}
        self._short: set[str] = set()
        """Budgets of which a request has needed more than the lease has left, where there may be more to be had."""
        self._round = 0

    def follow(self, spends: Mapping[str, Spend], unix: float) -> None:
        """This is what there is to spend from now on, by the names of the budgets."""
        before, self._spends = self._spends, dict(spends)
        self._told.clear()
        self._short.clear()
        for name, spend in before.items():
            if self._spends.get(name) is not spend and self.leasing:
                self._leases[name].part(spend, unix)
        for name, spend in self._spends.items():
            if before.get(name) is not spend and self.leasing:
                self._leases.setdefault(name, Lease()).meet(spend, unix)

    def lease(self, leasing: bool, unix: float) -> None:
        """Go by leases from now on, or count for oneself."""
        if leasing == self.leasing:
            return
        spends = self._spends
        self.follow({}, unix)
        self.leasing = leasing
        self.follow(spends, unix)

    def books(self, now: float, unix: float) -> Books:
        """What there is to tell; `now` in seconds of the monotonic clock."""
        rounds = max(1, min(ROUNDS, len(self._spends) // FEW))
        self._round = (self._round + 1) % rounds
        for number, (name, spend) in enumerate(self._spends.items() if self.leasing else ()):
            lease = self._leases[name]
            if lease.stirred or number % rounds == self._round or name not in self._told:
                lease.stirred = False
                self._told[name] = tuple(self._of(name, spend, lease, now, unix))
        return Books(self.holder, tuple(chain.from_iterable(self._told.values())), self.left)

    def _of(self, name: str, spend: Spend, lease: Lease, now: float, unix: float) -> Iterator[Spent]:
        """What there is to tell of one budget."""
        lease.forget(unix)
        ends, asked = spend.ends(unix), lease.asked(now)
        held = lease.at(ends)
        yield _told(name, ends, spend.spent, spend.reserved, held, asked)
        later = period_end(ends, spend.period)
        if lease.at(later).serial or (ends - unix < AHEAD and not self.left):
            yield _told(name, later, NOTHING, NOTHING, lease.at(later), asked)
        short = asked > NOTHING and not held.dry and EXACT.add(spend.used(unix), asked) > held.ceiling
        (self._short.add if short else self._short.discard)(name)

    def take(self, grants: Grants, unix: float) -> None:
        """What the operator says. Of what is not ours, not known, or older than what we have, nothing is taken."""
        if grants.holder != self.holder or self.left:
            return
        for grant in grants.grants:
            lease, spend = self._leases.get(grant.budget), self._spends.get(grant.budget)
            if lease is None or spend is None or not self.leasing:
                continue
            held = lease.at(grant.ends)
            if grant.serial < held.serial or grant.ends < spend.ends(unix):
                continue
            if grant.serial == held.serial:
                lease.take(grant.ends, held._replace(dry=grant.dry))
                continue
            ceiling = amount(grant.ceiling)
            if grant.ends == spend.ends(unix):  # what is used cannot be taken back
                ceiling = max(ceiling, EXACT.add(spend.spent, spend.reserved))
            lease.take(grant.ends, Held(ceiling, grant.serial, grant.dry))
            spend.bound()

    def leave(self, unix: float) -> None:
        """Nobody is let in any more: what is not used goes back."""
        self.left = True
        for name, spend in self._spends.items() if self.leasing else ():
            lease, ends = self._leases[name], spend.ends(unix)
            later = period_end(ends, spend.period)
            lease.take(ends, lease.at(ends)._replace(ceiling=EXACT.add(spend.spent, spend.reserved)))
            lease.take(later, lease.at(later)._replace(ceiling=NOTHING))
            spend.bound()

    @property
    def short(self) -> bool:
        """Whether a request has needed more than a lease has left, and there may be more to be had; as of the books
        that were made last."""
        return bool(self._short)

    def leased(self, unix: float) -> dict[str, tuple[Decimal, Decimal]]:
        """What is spent and what may be, by budget, as far as there are leases."""
        spends = self._spends.items() if self.leasing else ()
        return {name: (spend.spent_at(unix), self._leases[name].at(spend.ends(unix)).ceiling) for name, spend in spends}


def _told(name: str, ends: float, spent: Decimal, reserved: Decimal, held: Held, asked: Decimal) -> Spent:
    return Spent(name, ends, f"{spent:f}", f"{reserved:f}", f"{held.ceiling:f}", held.serial, f"{asked:f}")
