"""What several balancers say of the same pools and tiers, put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.balancers import says

from spillway_api.stream import PoolReport, Report, TierReport
from spillway_operator.opinions import NO_OPINION, Opinions

POOL = "default/llama"


def pool(*reports):
    return Opinions(reports).pool(POOL)


def of(**what):
    return says(PoolReport(POOL, **what))


def tier(state, share=0):
    return says(TierReport("default/chat", "default", "local", state, 1, share))


def seen(*reports, ready=3):
    sight = Opinions(reports).tier("default/chat", "default", "local", ready)
    return sight.state, sight.ready, sight.share_percent


def test_of_nobody_nothing_is_known():
    assert pool() == NO_OPINION
    assert pool(says(PoolReport("default/other"))) == NO_OPINION


def test_one_of_three_may_be_the_one_at_fault():
    assert pool(of(unhealthy=("a",)), of(), of()).unhealthy == frozenset()


def test_half_of_the_balancers_is_enough():
    assert pool(of(unhealthy=("a",)), of()).unhealthy == {"a"}
    assert pool(of(unhealthy=("a", "b")), of(unhealthy=("a",)), of(), of(unhealthy=("b",))).unhealthy == {"a", "b"}


def test_who_does_not_speak_of_a_pool_finds_nothing_amiss_with_it():
    assert pool(of(ejected=("a",)), says(), says()).ejected == frozenset()


def test_who_says_it_twice_says_it_once():
    assert pool(of(ejected=("a", "a")), of(), of()).ejected == frozenset()


def test_an_endpoint_is_counted_once_and_for_the_worst():
    opinion = pool(of(unhealthy=("a", "b"), ejected=("a", "b", "c"), refused=("a",)))
    assert (opinion.refused, opinion.unhealthy, opinion.ejected) == ({"a"}, {"b"}, {"c"})


def test_the_engine_is_what_most_have_found():
    assert pool(of(engine="vLLM"), of(engine="SGLang"), of(engine="vLLM"), of()).engine == "vLLM"
    assert pool(of(engine="vLLM"), of(engine="SGLang")).engine == "SGLang"
    assert pool(of(), of()).engine is None


def test_metrics_are_as_bad_as_anybody_says():
    opinion = pool(of(metrics="Ok"), of(metrics="UnknownNames", metrics_message="no waiting"), of(metrics="Stale"))
    assert (opinion.metrics, opinion.metrics_message) == ("UnknownNames", "no waiting")
    assert pool(of(metrics="Off"), of(metrics="Ok")).metrics == "Ok"


def test_a_tier_of_which_nobody_speaks_is_judged_by_its_endpoints():
    assert seen() == ("Open", 3, 0)
    assert seen(ready=0) == ("Unavailable", 0, 0)


def test_the_share_that_leaves_is_the_mean_of_all_balancers():
    assert seen(tier("Spilling", 40), tier("Open"), tier("Open"), says()) == ("Spilling", 3, 10)


def test_a_tier_is_unavailable_when_all_who_speak_of_it_say_so():
    assert seen(tier("Unavailable", 100), tier("Unavailable", 100)) == ("Unavailable", 0, 100)
    assert seen(tier("Unavailable", 100), tier("Open")) == ("Open", 3, 50)


def test_a_tier_is_closed_when_half_of_the_balancers_have_spent_its_budget():
    assert seen(tier("Closed"), tier("Open")) == ("Closed", 3, 0)
    assert seen(tier("Closed"), tier("Open"), tier("Spilling", 30))[0] == "Spilling"


def test_a_tier_is_full_when_half_of_the_balancers_see_no_room_and_none_spills():
    assert seen(tier("Saturated"), says()) == ("Saturated", 3, 0)
    assert seen(tier("Saturated"), says(), says()) == ("Open", 3, 0)
    assert seen(tier("Saturated"), tier("Spilling", 30)) == ("Spilling", 3, 15)


@pytest.mark.parametrize(
    ("said", "spent"),
    [((), ""), (("",), ""), (("0.10", "0.205", ""), "0.305"), (("1", "much", "NaN", "-3", "1e99"), "1")],
)
def test_what_is_spent_is_the_sum_of_what_balancers_say(said, spent):
    each = [says(TierReport("default/chat", "default", "local", "Open", 1, 0, text)) for text in said]
    assert Opinions(each).tier("default/chat", "default", "local", 1).spent == spent


names = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)
reports = st.lists(
    st.builds(
        lambda unhealthy, ejected, refused, speaks: (
            of(unhealthy=unhealthy, ejected=ejected, refused=refused) if speaks else Report()
        ),
        names,
        names,
        names,
        st.booleans(),
    ),
    max_size=5,
)


@given(reports, st.randoms(use_true_random=False))
def test_the_three_kinds_of_bad_are_disjoint_and_no_order_of_balancers_matters(reports, dice):
    opinion = pool(*reports)
    kinds = (opinion.refused, opinion.unhealthy, opinion.ejected)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
    dice.shuffle(reports)
    assert pool(*reports) == opinion


@given(reports)
def test_nothing_is_said_that_less_than_half_say(reports):
    opinion = pool(*reports)
    for kind in ("refused", "unhealthy", "ejected"):
        for name in getattr(opinion, kind):
            votes = sum(name in getattr(each, kind) for report in reports for each in report.pools)
            assert votes * 2 >= len(reports)
