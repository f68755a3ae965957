"""Settings of a policy that do nothing with the pools that it leads to, or keep some unused: told, not refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spillway_api.consumers import tuple_of
from spillway_api.known import Problem, named
from spillway_api.snapshot import Pool, Target
from spillway_api.types import RoutePolicy

_GOES_ON = ("Auto", "vLLM", "SGLang")
"""Engines that go on with an answer, or may turn out to be one."""


def idle(
    item: RoutePolicy, targets: Iterable[Target], pools: Mapping[tuple[str, str], Pool], problems: list[Problem]
) -> None:
    """Report `retry.maxCost` in a currency that some model is not paid in, and `streams.resume` where no pool can."""
    spec = item.spec
    led = [(target, pools[tuple_of(target.pool)]) for target in targets]
    found: dict[tuple[str, str], None] = {}
    money = spec.retry.max_cost
    if money is not None:
        for target, pool in led:
            for model in pool.models:
                price = model.price
                if target.model in (None, model.name) and price is not None and price.currency != money.currency:
                    message = (
                        f'model "{model.name}" of ModelPool "{target.pool}" is paid in {price.currency} and not in '
                        f"{money.currency}, so it gets no requests; nothing is converted"
                    )
                    found["spec.retry.maxCost", message] = None
    resumes = spec.streams is not None and spec.streams.resume != "Never"
    if resumes and not any(pool.provider is None and pool.engine in _GOES_ON for _, pool in led):
        message = "no pool of this policy has engines that go on with an answer (vLLM, SGLang): a cut stays a cut"
        found["spec.streams.resume", message] = None
    problems += [Problem(named(item), path, "Invalid", message, fatal=False) for path, message in found]
