"""How numbers are written for a person: units that fit their size, and a dash for what is not known."""

from __future__ import annotations

from decimal import Decimal

UNKNOWN = "-"


def milliseconds(seconds: float | None) -> str:
    """A short time: `87 ms`, `1.24 s`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s"


def percent(share: float | None) -> str:
    """`7 %`; a trace is not rounded to nothing."""
    if share is None:
        return UNKNOWN
    if 0 < share < 0.005:
        return "<1 %"
    return f"{share * 100:.0f} %"


def count(number: float | None) -> str:
    """`12,345`."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def rate(per_second: float | None) -> str:
    """`18.2`."""
    return UNKNOWN if per_second is None else f"{per_second:.1f}"


def money(dollars: Decimal | None) -> str:
    """`$0.0183`: a demonstration spends little."""
    return UNKNOWN if dollars is None else f"${dollars:,.4f}"


def times(factor: float) -> str:
    """`2.3 times`."""
    return f"{factor:.1f} times" if factor < 10 else f"{factor:.0f} times"
