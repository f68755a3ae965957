"""Periods of the calendar, in UTC: the same for everybody who counts money."""

from __future__ import annotations

from datetime import UTC, datetime

from spillway_api.types import Period


def period_end(unix: float, period: Period) -> float:
    """When the period ends in which `unix` lies, in seconds since 1970; weeks begin on Monday."""
    day = 86400
    if period == "Hour":
        return float((unix // 3600 + 1) * 3600)
    if period == "Day":
        return float((unix // day + 1) * day)
    if period == "Week":
        return float(((unix // day + 3) // 7 + 1) * 7 * day - 3 * day)  # 1 January 1970 was a Thursday
    at = datetime.fromtimestamp(unix, UTC)
    following = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    return following.timestamp()
