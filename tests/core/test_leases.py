"""A balancer's half of leases: it spends up to its ceiling and no further, whatever policies and grants come and go."""

from __future__ import annotations

from decimal import Decimal

import pytest

from spillway_api.ledger import Grant, Grants
from spillway_balancer.core.leases import RECENT, Ledger
from spillway_balancer.core.meters import SOON, Spend

NAME = "pool/default/cloud/USD/Hour"
UNIX = 1000.0
ENDS = 3600.0


def money(text: str) -> Decimal:
    return Decimal(text)


class Holder:
    """A ledger with one budget of 10 an hour."""

    def __init__(self) -> None:
        self.spend = Spend(money("10"), "Hour")
        self.ledger = Ledger("me")
        self.ledger.follow({NAME: self.spend}, UNIX)

    def granted(self, ceiling: str, serial: int, ends: float = ENDS, dry: bool = False, unix: float = UNIX) -> None:
        self.ledger.take(Grants("me", (Grant(NAME, ends, ceiling, serial, dry),)), unix)

    def spends(self, amount: str, unix: float = UNIX) -> bool:
        held = self.spend.reserve(unix, money(amount))
        if held is not None:
            self.spend.settle(held, unix, money(amount))
        return held is not None

    def told(self, unix: float = UNIX) -> tuple[str, str, str, int]:
        said = self.ledger.books(0.0, unix).budgets[0]
        return said.spent, said.held, said.ceiling, said.serial


def test_nothing_is_spent_before_the_first_grant_and_what_was_granted_after() -> None:
    one = Holder()
    assert one.spend.until_free(UNIX, money("1")) == SOON
    assert not one.spends("0.01")
    one.granted("2", 1)
    assert one.spends("2")
    assert not one.spends("0.01")
    assert one.told() == ("2", "0", "2", 1)


@pytest.mark.parametrize("grant", [("5", 1), ("5", 2)])
def test_of_two_grants_the_later_one_holds_however_they_come(grant: tuple[str, int]) -> None:
    one = Holder()
    one.granted("3", 2)
    one.granted(*grant)
    assert one.told()[2:] == ("3", 2)


def test_what_is_used_cannot_be_taken_back() -> None:
    one = Holder()
    one.granted("3", 1)
    assert one.spends("1")
    held = one.spend.reserve(UNIX, money("0.5"))
    assert held is not None
    one.granted("0", 2)
    assert one.told() == ("1", "0.5", "1.5", 2)
    assert one.spend.reserve(UNIX, money("0.01")) is None
    one.spend.settle(held, UNIX, money("0.25"))
    assert one.spends("0.25")


def test_a_lease_never_goes_beyond_the_limit_of_the_policy() -> None:
    one = Holder()
    one.granted("50", 1)
    assert one.spend.reserve(UNIX, money("10.01")) is None
    one.spend.limit = money("4")
    assert one.spend.reserve(UNIX, money("4.01")) is None
    assert one.spends("4")


def test_each_period_has_its_own_grant_and_the_next_one_is_asked_for_ahead() -> None:
    one = Holder()
    one.granted("2", 1)
    assert one.spends("2")
    assert len(one.ledger.books(0.0, ENDS - 61).budgets) == 1
    _, ahead = one.ledger.books(0.0, ENDS - 59).budgets
    assert (ahead.ends, ahead.spent, ahead.ceiling, ahead.serial) == (7200.0, "0", "0", 0)
    one.granted("3", 1, ends=7200.0, unix=ENDS - 59)
    assert not one.spends("0.01", ENDS - 1)
    assert one.spends("3", ENDS)
    assert not one.spends("0.01", ENDS + 1)
    one.granted("9", 5, ends=ENDS, unix=ENDS + 1)  # of the period that is over
    assert not one.spends("0.01", ENDS + 2)


def test_dry_is_until_the_period_ends() -> None:
    one = Holder()
    one.granted("1", 1)
    assert one.spends("1")
    assert one.spend.until_free(UNIX, money("0.5")) == SOON
    one.granted("1", 1, dry=True)
    assert one.spend.until_free(UNIX, money("0.5")) == ENDS - UNIX
    assert one.spend.until_free(UNIX, money("10.01")) == float("inf")


def test_what_requests_need_is_told_for_a_minute_or_two() -> None:
    one = Holder()
    one.ledger.books(0.0, UNIX)
    one.spend.until_free(UNIX, money("0.75"))
    one.spend.until_free(UNIX, money("0.25"))
    asked = [one.ledger.books(at, UNIX).budgets[0].asked for at in (0.0, RECENT, 2 * RECENT - 1, 2 * RECENT)]
    assert asked == ["0.75", "0.75", "0.75", "0"]
    assert not one.ledger.short


def test_of_thousands_of_budgets_those_are_told_at_once_where_something_happens() -> None:
    ledger = Ledger("me")
    spends = {f"pool/default/{number}/USD/Hour": Spend(money("10"), "Hour") for number in range(1000)}
    ledger.follow(spends, UNIX)
    assert len(ledger.books(0.0, UNIX).budgets) == 1000
    spends["pool/default/777/USD/Hour"].until_free(UNIX, money("0.5"))
    told = {each.budget: each.asked for each in ledger.books(0.0, UNIX).budgets}
    assert {name for name, asked in told.items() if asked != "0"} == {"pool/default/777/USD/Hour"}
    for _ in range(50):  # and what comes by time alone after a while
        told_ahead = ledger.books(0.0, ENDS - 10).budgets
    assert len(told_ahead) == 2000


def test_a_policy_that_comes_back_goes_on_where_it_was() -> None:
    """Its meters are new: what was spent by the old ones has been told already, and counts."""
    one = Holder()
    one.granted("3", 4)
    assert one.spends("2")
    assert one.spend.reserve(UNIX, money("0.5")) is not None
    one.ledger.follow({}, UNIX)
    assert one.ledger.books(0.0, UNIX).budgets == ()
    one.spend = Spend(money("10"), "Hour")
    one.ledger.follow({NAME: one.spend}, UNIX)
    assert one.told() == ("2.5", "0", "3", 4)
    assert one.spends("0.5")
    assert not one.spends("0.01")


def test_without_leases_each_counts_for_itself_and_what_it_has_spent_counts_again_later() -> None:
    one = Holder()
    one.ledger.lease(False, UNIX)
    assert one.spends("7")
    assert one.ledger.books(0.0, UNIX).budgets == ()
    assert one.ledger.leased(UNIX) == {}
    one.ledger.lease(True, UNIX)
    assert not one.spends("0.01")
    assert one.told() == ("7", "0", "0", 0)


def test_who_leaves_keeps_what_is_under_way_and_nothing_else() -> None:
    one = Holder()
    one.granted("5", 1)
    one.granted("5", 1, ends=7200.0)
    assert one.spends("1")
    assert one.spend.reserve(UNIX, money("2")) is not None
    one.ledger.leave(UNIX)
    books = one.ledger.books(0.0, UNIX)
    assert books.leaving
    assert [(each.ends, each.spent, each.held, each.ceiling) for each in books.budgets] == [
        (ENDS, "1", "2", "3"),
        (7200.0, "0", "0", "0"),
    ]
    one.granted("9", 2)
    assert not one.spends("0.01")
    assert not one.spends("0.01", ENDS)


def test_grants_of_others_and_of_what_is_not_known_are_not_taken() -> None:
    one = Holder()
    one.ledger.take(Grants("you", (Grant(NAME, ENDS, "5", 9),)), UNIX)
    one.ledger.take(Grants("me", (Grant("pool/x", ENDS, "5", 9), Grant(NAME, ENDS, "NaN", 9))), UNIX)
    assert one.told()[2:] == ("0", 9)
