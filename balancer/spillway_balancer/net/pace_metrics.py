"""How fast models answer, as tiers that select by it see them: read at the scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from ..core.pool import Pool

LABELS = ("pool", "model")


def read_paces(pools: Iterable[Pool], now: float) -> Iterator[Metric]:
    """Of pools that some tier selects by speed; nothing of a model that has not answered yet."""
    ttft = GaugeMetricFamily(
        "spillway_model_time_to_first_token_seconds",
        "For who comes now, as tiers that select by speed believe.",
        labels=LABELS,
    )
    rate = GaugeMetricFamily(
        "spillway_model_output_tokens_per_second", "Of one answer, as they believe.", labels=LABELS
    )
    for pool in pools:
        paces = pool.learned.paces
        for name, upstream in pool.models.items() if paces else ():
            pace = paces.get(upstream) if paces else None
            if pace is not None and (first := pace.first_token_in(now)) is not None:
                ttft.add_metric([pool.name, name], first)
            if pace is not None and pace.rate is not None:
                rate.add_metric([pool.name, name], pace.rate)
    yield ttft
    yield rate
