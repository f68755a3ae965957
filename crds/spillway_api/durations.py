"""Durations as the API writes them (`1m30s`): text to seconds, in one place."""

from __future__ import annotations

import re

_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(text: str) -> float:
    """Seconds that `text` stands for: one to four parts of up to five digits with h, m, s or ms.

    The form is that of the API's pattern `^([0-9]{1,5}(h|m|s|ms)){1,4}$`, a subset of Go's ParseDuration.
    Raises ValueError on anything else.
    """
    total, at, parts = 0.0, 0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or parts == 4:
            raise ValueError(f"not a duration: {text!r}; write it like 300ms, 5s or 1m30s")
        total += int(part[1]) * _UNITS[part[2]]
        at, parts = part.end(), parts + 1
    if not parts:
        raise ValueError("not a duration: ''; write it like 300ms, 5s or 1m30s")
    return total
