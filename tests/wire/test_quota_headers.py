"""Headers that say what is left of an account's quota: the families, what is nonsense, and that nothing raises."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.quotas import KINDS, Said
from spillway_balancer.wire.quota_headers import LONGEST, MOST, limited_for, quotas

NOW = datetime(2026, 1, 27, 17, 0, 0, tzinfo=UTC).timestamp()


def openai(kind: str = "requests", **values: str) -> list[tuple[bytes, bytes]]:
    return [(f"x-ratelimit-{what}-{kind}".encode(), value.encode()) for what, value in values.items()]


def anthropic(kind: str = "requests", **values: str) -> list[tuple[bytes, bytes]]:
    return [(f"anthropic-ratelimit-{kind}-{what}".encode(), value.encode()) for what, value in values.items()]


def test_openai_as_its_documentation_has_them() -> None:
    headers = [
        (b"content-type", b"application/json"),
        *openai("requests", limit="60", remaining="59", reset="1s"),
        *openai("tokens", limit="150000", remaining="149984", reset="6m0s"),
    ]
    assert quotas(headers, NOW) == (Said("requests", 59, 1.0, 60), Said("tokens", 149984, 360.0, 150000))


def test_anthropic_as_its_documentation_has_them() -> None:
    headers = [
        *anthropic("requests", limit="50", remaining="49", reset="2026-01-27T17:00:12Z"),
        *anthropic("input-tokens", limit="30000", remaining="29000", reset="2026-01-27T17:00:02Z"),
        *anthropic("output-tokens", limit="8000", remaining="8000", reset="2026-01-27T18:00:30+01:00"),
    ]
    assert quotas(headers, NOW) == (
        Said("requests", 49, 12.0, 50),
        Said("input-tokens", 29000, 2.0, 30000),
        Said("output-tokens", 8000, 30.0, 8000),
    )


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("20ms", 0.02),
        ("1s", 1.0),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("500us", 0.0005),
        ("12", 12.0),
        ("0.5", 0.5),
        (f"{NOW + 30:.0f}", 30.0),
        ("2026-01-27T17:01:00.500Z", 60.5),
        ("2026-01-27T17:01:00", 60.0),
    ],
)
def test_when_it_is_reset(reset: str, seconds: float) -> None:
    (said,) = quotas(openai(limit="60", remaining="3", reset=reset), NOW)
    assert said.reset == pytest.approx(seconds)


@pytest.mark.parametrize(
    "values",
    [
        {"remaining": "3"},
        {"limit": "60", "reset": "1s"},
        {"limit": "60", "remaining": "-1", "reset": "1s"},
        {"limit": "-1", "remaining": "5", "reset": "1s"},
        {"limit": "0", "remaining": "0", "reset": "1s"},
        {"remaining": "0", "reset": "1s"},
        {"limit": "60", "remaining": "3.5", "reset": "1s"},
        {"limit": "60", "remaining": "٣", "reset": "1s"},
        {"limit": "60", "remaining": "1" * 16, "reset": "1s"},
        {"limit": "60", "remaining": "1" * 5000, "reset": "1s"},
        {"limit": "60", "remaining": "3", "reset": "0s"},
        {"limit": "60", "remaining": "3", "reset": "-1s"},
        {"limit": "60", "remaining": "3", "reset": "25h"},
        {"limit": "60", "remaining": "3", "reset": "1s" * 40},
        {"limit": "60", "remaining": "3", "reset": "soon"},
        {"limit": "60", "remaining": "3", "reset": "nan"},
        {"limit": "60", "remaining": "3", "reset": "2026-01-27T16:59:59Z"},
        {"limit": "60", "remaining": "3", "reset": "9999-12-31T23:59:59Z"},
        {"limit": "60", "remaining": "3", "reset": "2026-13-40"},
    ],
)
def test_what_is_absurd_or_half_is_unknown(values: dict[str, str]) -> None:
    assert quotas(openai(**values), NOW) == ()
    assert limited_for(openai(**values), NOW) is None


def test_more_than_the_limit_is_not_left() -> None:
    (said,) = quotas(openai(limit="60", remaining="600", reset="1s"), NOW)
    assert said.remaining == 60


def test_a_429_without_retry_after_is_over_when_what_is_used_up_is_back() -> None:
    headers = [
        *openai("requests", limit="60", remaining="0", reset="12s"),
        *openai("tokens", limit="1000", remaining="1", reset="40s"),
    ]
    assert limited_for(headers, NOW) == 12.0
    assert limited_for(headers[3:], NOW) is None


NAMES = [name for kind in KINDS for name, _ in (*openai(kind, **dict.fromkeys(("limit", "remaining", "reset"), "")),)]
NAMES += [name for kind in KINDS for name, _ in anthropic(kind, **dict.fromkeys(("limit", "remaining", "reset"), ""))]
VALUES = (
    st.binary(max_size=40)
    | st.text("0123456789.hmsuµn-+:TZe ", max_size=40).map(str.encode)
    | st.integers(-10, 10**18).map(lambda number: str(number).encode())
    | st.datetimes().map(lambda at: at.isoformat().encode())
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=20), st.floats(0, 4e9))
def test_nothing_raises_and_all_that_is_said_is_sane(headers: list[tuple[bytes, bytes]], now: float) -> None:
    said = quotas(headers, now)
    assert len({each.kind for each in said}) == len(said)
    for each in said:
        assert 0 <= each.remaining <= MOST
        assert 0 < each.reset <= LONGEST
        assert each.limit is None or each.remaining <= each.limit
        assert each.remaining or each.limit


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 86_399), st.sampled_from(KINDS))
def test_what_is_written_is_read(remaining: int, limit: int, reset: int, kind: str) -> None:
    at = datetime.fromtimestamp(NOW + reset, UTC).isoformat().replace("+00:00", "Z")
    (said,) = quotas(anthropic(kind, limit=str(limit), remaining=str(remaining), reset=at), NOW)
    assert said == (kind, min(remaining, limit), reset, limit)
