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

_DRIFT: Final = 2048
"""Bytes by which a metric may move between two pages: numbers grow by a digit, and a series comes in now and then."""

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


class Layout:
    """What one endpoint's pages look like, remembered from page to page: looking for things is most of a reading."""

    __slots__ = ("names", "places")

    def __init__(self) -> None:
        self.names: dict[tuple[str, ...], str] = {}
        """Of several names for a number, the one that was there."""
        self.places: dict[bytes, int] = {}
        """Where in the page a metric began."""


class Page:
    """One page, made searchable once."""

    __slots__ = ("_canonical", "_text", "layout")

    def __init__(self, text: bytes, layout: Layout | None = None) -> None:
        self._text = b"\n" + text
        # Same length, so that a place in one is the place in the other; label values are read from the original.
        self._canonical = self._text.replace(b":", b"_")
        self.layout = layout if layout is not None else Layout()

    def samples(self, wanted: Selector) -> list[Sample]:
        """All samples of a metric, in the page's order. Lines that do not parse, NaN and infinities are left out.

        They stand together, as the format has it: what follows the last of them is not searched for more.
        """
        name, matchers = wanted
        needle = b"\n" + name
        canonical, places = self._canonical, self.layout.places
        near = max(0, places.get(needle, 0) - _DRIFT)
        at = canonical.find(needle, near, near + 2 * _DRIFT) if near else -1
        # Not from the middle of a group on, should it have moved so far.
        inside = at >= 0 and canonical.startswith(needle, canonical.rfind(b"\n", 0, at))
        found = self._group(needle, at) if at >= 0 and not inside else []
        found = found or self._group(needle, canonical.find(needle))
        return [each for each in found if _fits(each, matchers)] if matchers else found

    def _group(self, needle: bytes, at: int) -> list[Sample]:
        """The samples that stand together behind the first place where a name has been found, `at` (-1: nowhere)."""
        canonical = self._canonical
        found: list[Sample] = []
        while at >= 0:
            end = at + len(needle)
            sample = self._sample(self._text, end)
            if sample is None:
                at = canonical.find(needle, end)
                continue
            if not found:
                self.layout.places[needle] = at
            found.append(sample)
            at = canonical.find(b"\n", end)
            if not canonical.startswith(needle, at):
                break
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


def _fits(sample: Sample, matchers: tuple[tuple[bytes, bytes], ...]) -> bool:
    return all(sample.labels.get(label) == value for label, value in matchers)


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


def product(samples: Iterable[Sample], labels: tuple[str, ...]) -> list[Sample]:
    """The samples with the product of these labels for a value; those where one of them is no number are left out."""
    if not labels:
        return list(samples)
    found: list[Sample] = []
    for sample in samples:
        try:
            value = math.prod(float(sample.labels[label.encode()]) for label in labels)
        except (KeyError, ValueError):
            continue
        if math.isfinite(value):
            found.append(Sample(sample.labels, value))
    return found


def _unescaped(value: bytes) -> bytes:
    if _BACKSLASH not in value:
        return value
    return re.sub(rb"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value, flags=re.DOTALL)
