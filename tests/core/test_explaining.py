"""The words of `x-spillway-explain`, and the costs that are told beside a choice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import Dispatch
from spillway_balancer.core.strategies import Ask, Candidate
from spillway_balancer.core.strategies.adaptive import Adaptive
from spillway_balancer.core.telling import MOST_CHARS, line

amounts = st.floats(0, 1e6)
candidates = st.builds(
    Candidate,
    name=st.just("e"),
    weight=st.integers(1, 1000),
    requests=st.integers(0, 500),
    miss=amounts,
    cached=amounts,
    queue=amounts,
    pending=st.floats(0, 500),
    context=amounts,
    speed=st.floats(1 / 64, 64),
    trusted=st.just(True),
)


@given(st.lists(candidates, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_costs_that_are_told_are_those_that_decide(many: list[Candidate], dice: random.Random) -> None:
    named = [at._replace(name=f"e{number}") for number, at in enumerate(many)]
    chosen = Adaptive({at.name: at.weight for at in named}, Dispatch()).choose(Ask(None, 1.0), named, dice)
    assert chosen is not None
    costs = dict(zip([at.name for at in named], Adaptive.costs(named), strict=True))
    assert costs[chosen.name] <= min(costs.values()) * (1 + 1e-9)


def test_no_candidates_have_no_costs() -> None:
    assert Adaptive.costs([]) == []


@given(st.dictionaries(st.text("abc-", min_size=1, max_size=20), st.text(max_size=400), max_size=20))
def test_the_line_is_bounded_and_ends_with_a_whole_pair(said: dict[str, str]) -> None:
    made = line(said)
    assert len(made) <= MOST_CHARS
    assert made.isascii()
    whole = "; ".join(f"{name}={value}".encode("ascii", "replace").decode() for name, value in said.items())
    assert whole.startswith(made)
    assert made == whole or whole[len(made) :].startswith("; ") or not made
