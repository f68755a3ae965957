"""Reads a few numbers out of a page in Prometheus' text format without parsing the rest of it.

An engine's page has hundreds of lines, mostly histograms; five of them matter, once a second for every endpoint.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

_SELECTOR = re.compile(r"\s*([A-Za-z_:][\w:]*)\s*(?:\{(.*)\}\s*)?", re.ASCII | re.DOTALL)
_MATCHER = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.ASCII | re.DOTALL)

_LABELS = re.compile(rb'\{([^"}\n]*(?:"[^"\\\n]*(?:\\.[^"\\\n]*)*"[^"}\n]*)*)\}')
_LABEL = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"')
_VALUE = re.compile(rb"[ \t]*([^ \t\n\r#]+)")

_SPACES: Final = (0x20, 0x09)
_OPEN: Final = ord("{")
_BACKSLASH: Final = ord("\\")
_ESCAPES: Final = {b"\\n": b"\n", b"\\\\": b"\\", b'\\"': b'"'}


class Selector(NamedTuple):
    """Samples of one metric: its name with `:` written as `_`, and labels that must be there with these values."""

    name: bytes
    labels: tuple[tuple[bytes, bytes], ...] = ()


class Sample(NamedTuple):
    labels: dict[bytes, bytes]
    value: float


@lru_cache(maxsize=1024)
def selector(text: str) -> Selector:
    """`name` or `name{label="value", …}`; raises ValueError on anything else, such as `!=` and `=~`."""
    found = _SELECTOR.fullmatch(text)
    if found is None:
        raise ValueError("not a metric name")
    labels: list[tuple[bytes, bytes]] = []
    inner = found[2] or ""
    at = 0
    while inner[at:].strip():
        matcher = _MATCHER.match(inner, at)
        if matcher is None:
            raise ValueError('labels must be written label="value", label="value"')
        labels.append((matcher[1].encode(), _unescaped(matcher[2].encode())))
        at = matcher.end()
    return Selector(found[1].replace(":", "_").encode(), tuple(labels))


class Page:
    """One page, made searchable once."""

    __slots__ = ("_canonical", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = b"\n" + text
        # Same length, so that a place in one is the place in the other; label values are read from the original.
        self._canonical = self._text.replace(b":", b"_")

    def samples(self, wanted: Selector) -> list[Sample]:
        """All samples of a metric, in the page's order. Lines that do not parse, NaN and infinities are left out."""
        name, matchers = wanted
        text, canonical = self._text, self._canonical
        needle = b"\n" + name
        found: list[Sample] = []
        at = canonical.find(needle)
        while at >= 0:
            at += len(needle)
            sample = self._sample(text, at)
            if sample is not None and all(sample.labels.get(label) == value for label, value in matchers):
                found.append(sample)
            at = canonical.find(needle, at)
        return found

    def names_begin_with(self, prefix: bytes) -> bool:
        """Whether the page has a metric of this prefix (`:` written as `_`), be it only by its HELP or TYPE line."""
        canonical = self._canonical
        return any(start + prefix in canonical for start in (b"\n", b"\n# TYPE ", b"\n# HELP "))

    def _sample(self, text: bytes, at: int) -> Sample | None:
        """The sample whose name ends at `at`; None when the name goes on there, or the line does not parse."""
        labels: dict[bytes, bytes] = {}
        here = text[at] if at < len(text) else 0
        if here == _OPEN:
            block = _LABELS.match(text, at)
            if block is None:
                return None
            at = block.end()
            for label, content in _LABEL.findall(block[1]):
                labels[label] = _unescaped(content)
        elif here not in _SPACES:
            return None
        number = _VALUE.match(text, at)
        if number is None:
            return None
        try:
            value = float(number[1])
        except ValueError:
            return None
        return Sample(labels, value) if math.isfinite(value) else None


def total(samples: Iterable[Sample], rank: bytes | None) -> float | None:
    """Sum over data-parallel ranks, told apart by the label `rank`; None without samples.

    Within a rank the largest counts: tensor-parallel workers and priority classes repeat a rank's number or parts of
    it. With `rank` None all samples are summed.
    """
    ranks: dict[bytes, float] = {}
    for number, (labels, value) in enumerate(samples):
        key = b"%d" % number if rank is None else labels.get(rank, b"")
        ranks[key] = max(value, ranks.get(key, value))
    return math.fsum(ranks.values()) if ranks else None


def largest(samples: Iterable[Sample]) -> float | None:
    return max((sample.value for sample in samples), default=None)


def _unescaped(value: bytes) -> bytes:
    if _BACKSLASH not in value:
        return value
    return re.sub(rb"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value, flags=re.DOTALL)
