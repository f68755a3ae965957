"""How much each balancer may spend of the budgets that they share. Pure but for remembering.

Of every budget and period it is known what each balancer has spent, and up to where it may go: its ceiling. What was
granted counts as spent until its holder says that it goes by a later, lower grant, or leaves. So all ceilings together
are never more than the budget; of a balancer that vanishes its ceiling is lost until the period is over, and no more.

Ceilings follow use. Who spends is given what it needs for about twenty seconds, and two requests of the largest sort;
who does not keeps a fiftieth of its share, so that the first request does not wait. Where not enough is left, those who
do not spend give that back, and the others half of theirs. Nothing is granted by these figures that is not there: they
decide how well a budget is used, and never whether it holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_DOWN, Context, Decimal
from math import exp, inf
from typing import Final, NamedTuple

import msgspec

from spillway_api.budgets import AnyBudget
from spillway_api.ledger import Books, Grant, Spent, amount
from spillway_api.periods import period_end

LATE: Final = 900.0
"""Seconds after the end of a period for which its account is kept: clocks differ by less."""
EARLY: Final = 900.0
"""Seconds by which a period may be asked for too early."""
LIVE: Final = 30.0
"""Seconds of silence after which a balancer is granted nothing until it speaks again."""
AGAIN: Final = 1.0
"""Seconds until a grant that was not confirmed is said again."""
MEMORY: Final = 10.0
"""Seconds in which the pace of spending is forgotten by a factor of e."""
ROUNDS: Final = 10
"""Of budgets of which nobody has said anything new one in so many is looked at each second: paces fade."""
IDLE_SHARE: Final = 50
"""Who spends nothing keeps one part in so many of what is its share of the budget."""
GONE: Final = 1000
"""Of so many that have left it is remembered that they have."""

NOTHING: Final = Decimal(0)
_EXACT: Final = Context(prec=80)
_COIN: Final = Decimal("1e-9")
"""Grants are whole numbers of these."""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A holding as it is put away."""

    spent: str
    top: str
    ceiling: str
    serial: int


class _Page(msgspec.Struct, frozen=True):
    """An account as it is put away."""

    ends: float
    closed: str
    holders: dict[str, _Kept]


_pages: msgspec.json.Decoder[dict[str, list[_Page]]] = msgspec.json.Decoder(dict[str, list[_Page]])


class Holding:
    """What one balancer has of one budget in one period."""

    __slots__ = (
        "asked",
        "at",
        "ceiling",
        "dry",
        "heard",
        "held",
        "pace",
        "said",
        "seen",
        "serial",
        "spent",
        "told",
        "told_dry",
        "top",
    )

    def __init__(self, spent: Decimal, top: Decimal, ceiling: Decimal, serial: int, seen: int) -> None:
        self.spent = spent
        self.top = top
        """The highest ceiling that it may go by."""
        self.ceiling = ceiling
        """That of the last grant."""
        self.serial = serial
        """Of that."""
        self.seen = seen
        """Of the grant that it has said it goes by."""
        self.held = self.asked = NOTHING
        self.heard = self.at = -inf
        """When it spoke last, and when `pace` was of; seconds, of the arbiter's clock."""
        self.pace = 0.0
        """Money that it has newly used in the last seconds."""
        self.told = -inf
        self.said: Spent | None = None
        """What it has said last, in these notes."""
        self.dry = self.told_dry = False

    @property
    def used(self) -> Decimal:
        return _EXACT.add(self.spent, self.held)

    @property
    def committed(self) -> Decimal:
        """What it has, or may have, spent."""
        return max(self.top, self.used)

    def pace_at(self, now: float) -> Decimal:
        """What it spends in ten seconds."""
        return Decimal(round(self.pace * exp(min(0.0, (self.at - now) / MEMORY)), 9)) if self.pace else NOTHING


class Account:
    """One budget in one period."""

    __slots__ = ("closed", "ends", "holders", "page", "stirred")

    def __init__(self, ends: float, closed: Decimal = NOTHING) -> None:
        self.ends = ends
        self.page: _Page | None = None
        """As it was put away, if it is so still."""
        self.stirred = True
        """Something has happened since it was looked at."""
        self.closed = closed
        """Spent by balancers that have left."""
        self.holders: dict[str, Holding] = {}

    @property
    def committed(self) -> Decimal:
        return sum((each.committed for each in self.holders.values()), self.closed)

    @property
    def spent(self) -> Decimal:
        return sum((each.spent for each in self.holders.values()), self.closed)


class Total(NamedTuple):
    """How a budget stands in the period that is under way."""

    limit: Decimal
    spent: Decimal
    """As far as balancers have told."""
    leased: Decimal
    """What they may spend beyond that."""


class Arbiter:
    """The granting side. `hear` and `decide`; then `dump` to where it outlives this process, and only then `grants`."""

    def __init__(self, kept: bytes | None = None) -> None:
        """`kept`: what the one before this has put away. Raises msgspec.DecodeError."""
        self._budgets: Mapping[str, AnyBudget] = {}
        self._accounts: dict[str, dict[float, Account]] = {}
        self._gone: deque[str] = deque(maxlen=GONE)
        self.urgent = False
        """Something was decided that must be put away before it is granted."""
        self.changed = False
        """Something else is worth being put away."""
        for budget, pages in ({} if kept is None else _pages.decode(kept)).items():
            self._accounts[budget] = {page.ends: _account(page) for page in pages}

    def follow(self, budgets: Mapping[str, AnyBudget]) -> None:
        """These are the budgets that there are, by their names."""
        for name, budget in budgets.items():
            if self._budgets.get(name) != budget:
                for account in self._accounts.get(name, {}).values():
                    account.stirred = True
        self._budgets = budgets

    def hear(self, holder: str, books: Books, now: float, unix: float) -> None:
        """What a balancer says; `now` in seconds of a monotonic clock, `unix` since 1970."""
        if holder in self._gone:
            return
        for said in books.budgets:
            account = self._account_of(said, unix)
            if account is None:
                continue
            known = account.holders.get(holder)
            if known is not None and known.said == said and not books.leaving:
                known.heard = now
                continue
            account.stirred, account.page = True, None
            if books.leaving:
                self._close(account, holder, said)
            else:
                self._note(account, holder, said, now)
        if books.leaving:
            self._gone.append(holder)
            for _, account in self._all():  # of what it does not speak of any more nobody knows better
                known = account.holders.pop(holder, None)
                if known is not None:
                    account.closed = _EXACT.add(account.closed, known.committed)
                    account.stirred, account.page = True, None

    def decide(self, now: float, unix: float) -> None:
        """Set ceilings anew, as far as that is called for."""
        for name, accounts in self._accounts.items():
            budget = self._budgets.get(name)
            for ends in [ends for ends in accounts if ends < unix - LATE]:
                del accounts[ends]
                self.changed = True
            due = hash(name) % ROUNDS == int(now) % ROUNDS
            for account in accounts.values() if budget is not None else ():
                assert budget is not None
                if account.stirred or due:
                    account.stirred = False
                    self._divide(account, amount(budget.amount), now)

    def grants(self, holder: str, now: float) -> tuple[Grant, ...]:
        """What is to be said to a balancer now. To be asked only when all that was decided is put away."""
        return tuple(self._grants(holder, now))

    def holders(self) -> set[str]:
        """Everybody who has something."""
        return {holder for _, account in self._all() for holder in account.holders}

    def dump(self) -> bytes:
        """To be put away."""
        pages = {
            name: [_page(each) for each in accounts.values()] for name, accounts in self._accounts.items() if accounts
        }
        return msgspec.json.encode(pages, order="deterministic")

    def totals(self, unix: float) -> dict[str, Total]:
        """How budgets stand, of those that somebody has spoken of."""
        found = {}
        for name, budget in self._budgets.items():
            account = self._accounts.get(name, {}).get(period_end(unix, budget.period))
            if account is not None:
                spent = account.spent
                found[name] = Total(amount(budget.amount), spent, _EXACT.subtract(account.committed, spent))
        return found

    def _all(self) -> Iterator[tuple[str, Account]]:
        for name, accounts in self._accounts.items():
            for account in accounts.values():
                yield name, account

    def _account_of(self, said: Spent, unix: float) -> Account | None:
        """None where nothing may be spent: of what is long over, far off, or not a period of the calendar."""
        budget = self._budgets.get(said.budget)
        accounts = self._accounts.get(said.budget, {})
        if said.ends in accounts:
            return accounts[said.ends]
        if budget is None or not unix - LATE < said.ends:
            return None
        try:
            soon = period_end(period_end(unix + EARLY, budget.period), budget.period)
            if said.ends > soon or period_end(said.ends - 1.0, budget.period) != said.ends:
                return None
        except (ValueError, OverflowError):
            return None
        account = self._accounts.setdefault(said.budget, {})[said.ends] = Account(said.ends)
        return account

    def _note(self, account: Account, holder: str, said: Spent, now: float) -> None:
        spent, ceiling = amount(said.spent), amount(said.ceiling)
        known = account.holders.get(holder)
        if known is None:
            # What it goes by was granted by somebody whose notes are lost: believed, since it is spent otherwise.
            known = account.holders[holder] = Holding(spent, ceiling, ceiling, said.serial, said.serial)
            known.pace = self._pace_before(holder, account, now)
        elif said.serial > known.serial:
            known.serial = known.seen = said.serial
            known.top, known.ceiling = max(known.top, ceiling), ceiling
        elif said.serial == known.serial and known.seen < said.serial:
            known.seen = said.serial
            known.top = known.ceiling = ceiling
        elif said.serial == known.serial:
            known.top = known.ceiling = min(known.top, ceiling)
        before = known.used
        known.spent = max(known.spent, spent)
        known.held, known.asked = amount(said.held), amount(said.asked)
        if known.at > -inf:
            known.pace = float(known.pace_at(now) + max(NOTHING, known.used - before))
        known.heard = known.at = now
        known.said = said
        self.changed = True

    def _pace_before(self, holder: str, account: Account, now: float) -> float:
        """What it has spent of late in another period of the same budget."""
        for accounts in self._accounts.values():
            if account in accounts.values():
                there = [each.holders[holder] for each in accounts.values() if holder in each.holders]
                return max((float(each.pace_at(now)) for each in there if each.at > -inf), default=0.0)
        return 0.0

    def _close(self, account: Account, holder: str, said: Spent) -> None:
        """It has left: what it has not used is free."""
        known = account.holders.pop(holder, None)
        used = max(amount(said.spent) + amount(said.held), NOTHING if known is None else known.spent)
        account.closed = _EXACT.add(account.closed, used)
        self.changed = True

    def _divide(self, account: Account, limit: Decimal, now: float) -> None:
        live = {name: each for name, each in account.holders.items() if now - each.heard < LIVE}
        if not live:
            return
        committed = account.committed
        left = _EXACT.subtract(limit, committed)
        floor = _coins(limit / (IDLE_SHARE * len(live)))
        lost = committed - sum((each.committed for each in live.values()), NOTHING)
        unspent = limit - lost - sum((each.spent for each in live.values()), NOTHING)
        active: list[tuple[Decimal, Holding]] = []
        idle: list[tuple[Decimal, Holding]] = []
        settled: list[tuple[Decimal, Holding]] = []
        for each in live.values():
            each.dry = unspent < each.asked or unspent <= NOTHING
            if each.seen != each.serial:
                continue  # it has not heard of the last word yet
            needs = _coins(2 * (each.pace_at(now) + each.asked))
            target, free = max(floor, needs), each.ceiling - each.used
            short = target - max(free, NOTHING)
            if free < needs / 2:
                active.append((short, each))
            elif free < target / 2:
                idle.append((short, each))
            else:
                if free > 2 * target:
                    self._set(account, each, each.used + target)
                settled.append((needs / 2, each))
        wanted = sum((want for want, _ in active), NOTHING)
        scarce = wanted > left
        if scarce:
            for keep, each in [*settled, *((NOTHING, each) for _, each in idle)]:
                if each.seen == each.serial and each.ceiling - each.used > keep:
                    self._set(account, each, each.used + keep)
            self._pool(account, [each for _, each in active], left)
        for at, (want, each) in enumerate(sorted(active, key=_first)):
            given = min(want, max(left / (len(active) - at), min(each.asked, left)))
            if not scarce or max(each.ceiling - each.used, NOTHING) + given >= each.asked:  # else it helps nobody
                left -= self._raise(account, each, given)
        if not scarce and left >= limit / 10:
            for want, each in idle:
                left -= self._raise(account, each, min(want, left))

    def _pool(self, account: Account, active: list[Holding], left: Decimal) -> None:
        """Where nobody has enough for one request any more and all together do, one gets what the others have."""
        least = min((each.asked for each in active), default=NOTHING)
        free = {id(each): max(each.ceiling - each.used, NOTHING) for each in active}
        if active and left < least <= max(left, NOTHING) + sum(free.values(), NOTHING):
            keeper = max(active, key=lambda each: free[id(each)])
            for each in active:
                if each is not keeper and NOTHING < free[id(each)] < each.asked:
                    self._set(account, each, each.used)

    def _raise(self, account: Account, each: Holding, more: Decimal) -> Decimal:
        """Returns by how much the ceiling is raised."""
        more = _coins(more)
        if more <= NOTHING:
            return NOTHING
        # What it is underestimated by is spent above its ceiling; that is no lease.
        before = each.committed
        self._set(account, each, max(each.ceiling, each.used) + more)
        return each.committed - before

    def _set(self, account: Account, each: Holding, ceiling: Decimal) -> None:
        each.ceiling = ceiling
        each.top = max(each.top, ceiling)
        each.serial += 1
        each.told = -inf
        account.page = None
        self.urgent = True

    def _grants(self, holder: str, now: float) -> Iterator[Grant]:
        for name, account in self._all():
            each = account.holders.get(holder)
            if each is None or name not in self._budgets:
                continue
            unconfirmed = each.seen != each.serial and now - each.told >= AGAIN
            if unconfirmed or each.dry != each.told_dry:
                each.told, each.told_dry = now, each.dry
                yield Grant(name, account.ends, f"{each.ceiling:f}", each.serial, each.dry)


def _first(wanting: tuple[Decimal, Holding]) -> Decimal:
    return wanting[0]


def _coins(money: Decimal) -> Decimal:
    return money.quantize(_COIN, ROUND_DOWN, _EXACT)


def _page(account: Account) -> _Page:
    if account.page is None:
        account.page = _Page(account.ends, f"{account.closed:f}", dict(_kept(account.holders.items())))
    return account.page


def _kept(holders: Iterable[tuple[str, Holding]]) -> Iterator[tuple[str, _Kept]]:
    for name, each in holders:
        if each.committed or each.serial:
            yield name, _Kept(f"{each.used:f}", f"{each.top:f}", f"{each.ceiling:f}", each.serial)


def _account(page: _Page) -> Account:
    account = Account(page.ends, amount(page.closed))
    for name, kept in page.holders.items():
        # Whether it has heard of the last grant is not known: it will say.
        holding = Holding(amount(kept.spent), amount(kept.top), amount(kept.ceiling), kept.serial, -1)
        account.holders[name] = holding
    return account
