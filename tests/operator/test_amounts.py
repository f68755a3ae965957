"""What sidecars may use: never what the API server would refuse their Pods for."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.amounts import ANNOTATIONS, Resources, amount, resources

DEFAULTS: Resources = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}


@pytest.mark.parametrize(
    ("text", "units"),
    [("100m", Fraction(1, 10)), ("2", 2), ("0.5", Fraction(1, 2)), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 3 << 29)],
)
def test_what_quantities_say(text: str, units: Fraction) -> None:
    assert amount(text) == units


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "-1", "1e3", "1E", "lots", "1.", "٣", "9" * 13])
def test_what_is_no_quantity(text: str) -> None:
    assert amount(text) is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, DEFAULTS),
        # Over the default limit: the limit makes room; under the default request: that does.
        ({"memory": "1Gi"}, {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
        ({"memory-limit": "64Mi"}, {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}),
        (
            {"cpu": "1", "cpu-limit": "2000m"},
            {"requests": {"cpu": "1", "memory": "96Mi"}, "limits": {"memory": "256Mi", "cpu": "2000m"}},
        ),
    ],
)
def test_what_the_pod_says_leads(said: dict[str, str], found: Resources) -> None:
    assert resources({f"spillway.dev/{name}": value for name, value in said.items()}, DEFAULTS) == found


@pytest.mark.parametrize(
    ("name", "little", "least"),
    [("memory-limit", "128m", "64Mi"), ("memory-limit", "20Mi", "64Mi"), ("cpu-limit", "1m", "10m")],
)
def test_a_limit_with_which_the_pod_would_never_start_is_none(name: str, little: str, least: str) -> None:
    why = f"spillway.dev/{name}: {little} is too little for a sidecar to start with; it takes {least}"
    assert resources({f"spillway.dev/{name}": little}, DEFAULTS) == why
    assert not isinstance(resources({f"spillway.dev/{name}": least}, DEFAULTS), str)
    assert not isinstance(resources({f"spillway.dev/{name}": "0"}, DEFAULTS), str), "to Kubernetes that is no limit"


def test_an_installation_that_lowers_the_limit_alone_is_not_given_a_higher_one() -> None:
    """`--set sidecars.resources.limits.memory=80Mi` leaves the chart's request where it is."""
    defaults: Resources = {**DEFAULTS, "limits": {"memory": "80Mi"}}
    wanted = {"requests": {"cpu": "50m", "memory": "80Mi"}, "limits": {"memory": "80Mi"}}
    assert resources({}, defaults) == wanted
    assert DEFAULTS["requests"]["memory"] == "96Mi", "what is said for all is not written to"


AMOUNTS = st.from_regex(r"[0-9]{1,4}(\.[0-9])?(m|k|Ki|M|Mi|G|Gi)?", fullmatch=True)


@given(
    st.dictionaries(st.sampled_from(sorted(ANNOTATIONS)), AMOUNTS),
    st.fixed_dictionaries(
        {}, optional={kind: st.dictionaries(st.sampled_from(["cpu", "memory"]), AMOUNTS) for kind in DEFAULTS}
    ),
)
def test_no_less_is_allowed_than_asked_for_and_what_is_said_holds(said: dict[str, str], defaults: Resources) -> None:
    coherent = all(
        (amount(least) or 0) <= (amount(defaults.get("limits", {}).get(what, least)) or 0)
        for what, least in defaults.get("requests", {}).items()
    )
    found = resources(said, defaults)
    if isinstance(found, str):
        assert "is more than" in found or "is too little" in found
        return
    for name, value in said.items():
        kind, what = ANNOTATIONS[name]
        assert found[kind][what] == value
    if coherent:
        for what, limit in found.get("limits", {}).items():
            assert (amount(found.get("requests", {}).get(what, "0")) or 0) <= (amount(limit) or 0)
