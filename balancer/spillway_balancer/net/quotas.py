"""What is left of a caller's limits, in headers that OpenAI's clients know; what consumers have used, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import time
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..core.allowance import Allowance
from ..core.routing import Route
from .answer import QUOTA, Told

_WHO: Final = ["route", "consumer"]


def quota(allowance: Allowance, now: float) -> Told:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, as OpenAI says them; of the rates that there are."""
    said: list[tuple[bytes, bytes]] = []
    for what, left in allowance.quotas(now):
        name = what.encode()
        said += [
            (QUOTA + b"limit-" + name, b"%d" % left.limit),
            (QUOTA + b"remaining-" + name, b"%d" % left.remaining),
            (QUOTA + b"reset-" + name, _duration(left.reset)),
        ]
    return tuple(said)


def _duration(seconds: float) -> bytes:
    """As OpenAI writes it: 340ms, 12s, 1m5s. Rounded up, for a time that is told must be enough."""
    if seconds < 1:
        return b"%dms" % -int(-seconds * 1000 // 1)
    whole = -int(-seconds // 1)
    return b"%ds" % whole if whole < 60 else b"%dm%ds" % divmod(whole, 60)


def read_consumers(routes: Iterable[Route], now: float) -> Iterator[Metric]:
    """What consumers have asked and used; their names are declared ones. Series go with the consumer."""
    unix = time()
    requests = CounterMetricFamily(
        "spillway_consumer_requests", "Requests of consumers, by how they ended.", labels=[*_WHO, "result"]
    )
    used = GaugeMetricFamily(
        "spillway_consumer_limit_used_percent", "How much of a consumer's limit is used, what is under way included.",
        labels=[*_WHO, "limit"],
    )  # fmt: skip
    spent = CounterMetricFamily(
        "spillway_consumer_spent", "Money spent by a consumer that has a budget, over all periods.",
        labels=[*_WHO, "currency"],
    )  # fmt: skip
    for route in routes:
        for each in () if route.callers is None else route.callers.members:
            names = [route.name, each.name]
            for result, number in each.results.items():
                requests.add_metric([*names, result], number)
            if each.allowance is None:
                continue
            for limit, percent in each.allowance.used_percent(now, unix).items():
                used.add_metric([*names, limit], percent)
            if each.allowance.money is not None:
                spent.add_metric([*names, each.allowance.currency], float(each.allowance.money.total))
    yield from (requests, used, spent)
