"""Durations: the texts of the API and the seconds that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.durations import seconds

TABLE = {"0s": 0, "1ms": 0.001, "100ms": 0.1, "1s": 1, "1m30s": 90, "2h": 7200, "1h1m1s1ms": 3661.001, "1s1s": 2}


@pytest.mark.parametrize(("text", "expected"), TABLE.items())
def test_seconds(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "s", "1.5s", "-1s", " 1s", "1s ", "1d", "123456s", "1s1s1s1s1s", "1S"])
def test_what_the_api_refuses_has_no_seconds(text):
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


@given(st.lists(st.tuples(st.integers(0, 99999), st.sampled_from(["h", "m", "s", "ms"])), min_size=1, max_size=4))
def test_parts_add_up(parts):
    whole = seconds("".join(f"{count}{unit}" for count, unit in parts))
    assert whole == pytest.approx(sum(seconds(f"{count}{unit}") for count, unit in parts))
