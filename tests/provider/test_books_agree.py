"""Costs that the balancer reports are the providers' own books: families, kinds of requests and faults mixed.

The big run is `python -m benchmarks providers`; docs/providers.md has its figures.
"""

from __future__ import annotations

from decimal import Decimal

from benchmarks.mixed import KINDS, LOTS, mixed
from benchmarks.providers import TYPES, play

REQUESTS = 600


async def test_costs_are_the_books_to_the_last_digit_where_answers_came_whole() -> None:
    """Where they were cut, or the client left, the usage never came: those are estimates, and stand apart."""
    played = await play(REQUESTS, seed=7)
    whole = [sums for (_, lot), sums in played.sums.items() if lot == "whole"]
    assert len(whole) == len(TYPES)
    for sums in whole:
        assert sums.untold == 0
        assert sums.billed > 0
        assert sums.reported == sums.books
    statuses = {status: many for (lot, status), many in played.answers.items() if lot == "whole"}
    asked = sum(statuses.values())
    assert statuses[200] >= 0.97 * asked, statuses
    assert set(statuses) <= {200, 429, 498, 502, 503}, statuses
    left = played.of("left")
    assert left.untold > 0
    assert left.books * Decimal("0.7") < left.reported < left.books * Decimal("1.3")
    cut = played.of("cut")
    assert cut.untold > 0
    assert cut.told < cut.reported
    assert cut.books * Decimal("0.7") < cut.reported < cut.books * Decimal("1.1")


def test_every_kind_of_request_is_sent_to_every_family_in_every_way() -> None:
    found = {(each.family, each.lot, each.kind, each.path, each.stream) for each in mixed(10_000, 1, tuple(TYPES))}
    ways = {(path, stream) for _, lot, _, path, stream in found if lot == "whole"}
    assert len(ways) == 4
    for family in TYPES:
        for kind in KINDS:
            assert {(path, stream) for one, lot, other, path, stream in found
                    if (one, lot, other) == (family, "whole", kind)} == ways  # fmt: skip
        assert {lot for one, lot, *_ in found if one == family} == set(LOTS)
