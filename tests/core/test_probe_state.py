"""Active health: thresholds in both directions, and an endpoint that nobody has asked yet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import ActiveHealth
from spillway_balancer.core.health import ProbeState

POLICY = ActiveHealth(unhealthy_threshold=3, healthy_threshold=2)


def after(answers: str, policy: ActiveHealth = POLICY) -> ProbeState:
    state = ProbeState()
    for answer in answers:
        state = state.passed(policy) if answer == "+" else state.failed(policy)
    return state


@pytest.mark.parametrize(
    ("answers", "healthy"),
    [
        ("", None),
        ("+", True),  # nothing to recover from
        ("--", None),
        ("---", False),
        ("+--", True),
        ("+--+--", True),  # failures in a row are meant
        ("+---", False),
        ("---+", False),
        ("---+-+", False),  # passes in a row as well
        ("---++", True),
        ("---++--", True),
    ],
)
def test_verdict_turns_after_its_threshold(answers: str, healthy: bool | None) -> None:
    assert after(answers).healthy is healthy


def test_unprobed_endpoint_is_usable() -> None:
    """So start-up waits for no probe; a request to one that is not there goes elsewhere."""
    assert after("").usable
    assert after("--").usable
    assert not after("---").usable
    assert after("+").usable


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None)
def test_verdict_only_turns_on_answers_in_a_row(answers: str, unhealthy: int, healthy: int) -> None:
    policy = ActiveHealth(unhealthy_threshold=unhealthy, healthy_threshold=healthy)
    before = ProbeState()
    for at in range(1, len(answers) + 1):
        state = after(answers[:at], policy)
        if state.usable != before.usable:
            needed = healthy if state.usable else unhealthy
            assert answers[:at].endswith(("+" if state.usable else "-") * needed)
        assert 0 <= state.streak < max(unhealthy, healthy)
        before = state
