"""What balancers see of engines can be chosen, and what they see makes a difference that the figures show."""

from __future__ import annotations

import pytest

from spillway_balancer.simulate import asked
from spillway_balancer.simulate.measure import Figures
from spillway_balancer.simulate.runs import Bench, Experiment, Outcome, Run
from spillway_balancer.simulate.sights import BadSight, Sight, parse


def figures(
    view: str,
    balancers: int = 20,
    stay: bool = False,
    workload: str = "chat",
    rate: float = 1.5,
    strategy: str = "Adaptive",
) -> Figures:
    pool, profiles = asked.pool(None, 6, ())
    bench = Bench(
        Experiment(None, workload, pool, profiles, balancers=balancers, limit=800, sight=parse(view), stay=stay)
    )
    outcome = bench.do(Run(strategy, rate, 1)).result
    assert isinstance(outcome, Outcome)
    return outcome.figures


@pytest.mark.parametrize(
    ("said", "sight"),
    [
        ("own", Sight("own")),
        ("scraped", Sight("scraped")),
        ("shared", Sight("shared", 1.5)),
        (" shared:0.25 ", Sight("shared", 0.25)),
    ],
)
def test_a_view_is_said_in_a_word(said: str, sight: Sight) -> None:
    assert parse(said) == sight
    assert parse(str(sight)) == sight


@pytest.mark.parametrize("said", ["", "all", "own:1", "scraped:1", "shared:", "shared:-1", "shared:nan", "shared:soon"])
def test_what_is_no_view_is_refused_with_what_would_be_one(said: str) -> None:
    with pytest.raises(BadSight, match="shared:SECONDS"):
        parse(said)


@pytest.mark.parametrize("view", ["own", "shared:1.5"])
@pytest.mark.parametrize("stay", [False, True])
def test_the_same_seed_makes_the_same_run_whatever_is_seen(view: str, stay: bool) -> None:
    assert figures(view, stay=stay) == figures(view, stay=stay)


def test_one_balancer_that_scrapes_knows_hardly_more_than_one_that_does_not() -> None:
    assert figures("own", 1).hit_share == pytest.approx(figures("scraped", 1).hit_share, abs=0.01)


def test_sidecars_that_see_their_own_requests_only_find_nearly_what_one_balancer_finds() -> None:
    """With turns that fall on them by dice: without homes twenty of them find less than half."""
    alone = figures("own", 1).hit_share
    assert figures("own").hit_share > alone - 0.05
    assert figures("own", stay=True).hit_share > alone - 0.03


def test_what_others_do_does_not_make_a_sidecar_forget_its_own_sessions() -> None:
    assert figures("shared:1.5", stay=True).hit_share > figures("own", 1).hit_share - 0.03


@pytest.mark.parametrize("strategy", ["LeastLoad", "LowestLatency", "PowerOfTwo", "CHWBL", "Adaptive"])
def test_a_crowd_of_sidecars_does_not_rush_to_the_endpoint_that_was_the_emptiest(strategy: str) -> None:
    """What all are told at once is of use, and not the reason that all go to the same place."""
    blind, told = (figures(view, 100, False, "documents", 4.5, strategy) for view in ("own", "shared:1.5"))
    assert told.imbalance < blind.imbalance
    if strategy not in ("CHWBL", "Adaptive"):  # which pay for it with hits
        assert told.ttft_mean < blind.ttft_mean
