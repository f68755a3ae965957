"""What is measured of copies of requests, apart from what is measured for callers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from ..core.learning import Usage

DURATIONS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
FIRST_BYTES = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60)
"""Seconds; the buckets of the callers' own metrics, so that one can be held against the other."""


class CopyMetrics:
    """Labels are declared names: the route of the request, the pool of the copy."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._results = Counter(
            "spillway_mirror_requests", "Copies of requests by how they ended, or why none was sent.",
            ["route", "pool", "result"], registry=registry,
        )  # fmt: skip
        self._first_bytes = Histogram(
            "spillway_mirror_time_to_first_byte_seconds", "From sending a copy to its first content byte.",
            ["route", "pool"], buckets=FIRST_BYTES, registry=registry,
        )  # fmt: skip
        self._durations = Histogram(
            "spillway_mirror_duration_seconds", "From sending a copy to the end of its answer, of those that ended ok.",
            ["route", "pool"], buckets=DURATIONS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "spillway_mirror_tokens", "Tokens of copies that ended ok: prompt, cached (of those) and output.",
            ["route", "pool", "kind"], registry=registry,
        )  # fmt: skip

    def ended(self, route: str, pool: str, result: str) -> None:
        self._results.labels(route, pool, result).inc()

    def measured(self, route: str, pool: str, first_byte: float | None, took: float, usage: Usage) -> None:
        """An answer that has ended well; seconds since it was asked for."""
        if first_byte is not None:
            self._first_bytes.labels(route, pool).observe(first_byte)
        self._durations.labels(route, pool).observe(took)
        kinds = ("prompt", usage.prompt_tokens), ("cached", usage.cached_tokens), ("output", usage.output_tokens)
        for kind, tokens in kinds:
            if tokens is not None:
                self._tokens.labels(route, pool, kind).inc(tokens)
