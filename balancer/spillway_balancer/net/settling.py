"""What an attempt is charged, and to whom: its account, its tier and consumer, its request's bill, and the metrics."""

from __future__ import annotations

from time import monotonic

from ..core.attempts import Try
from ..core.billing import Bill
from ..core.learning import Usage
from ..core.prices import NOTHING_USED, used
from ..core.visits import Visit
from .telemetry import Decision, Telemetry


def counts_tokens(step: Try, decision: Decision) -> bool:
    """Whether it matters how many tokens the attempt uses: to its tier, its account, its consumer, or its pool, where
    it is known what that costs."""
    quota = step.endpoint.quota
    if quota is not None and quota.counts_tokens:
        return True
    if step.permit is not None and step.permit.counts_tokens:
        return True
    if step.pool.upkeep is not None:
        return True
    return decision.passed is not None and decision.passed.counts_tokens


def settle(
    telemetry: Telemetry,
    decision: Decision,
    step: Try,
    visit: Visit,
    usage: Usage | None,
    estimated: bool,
) -> None:
    """Charge an attempt. `usage` is None where nothing was had: it has failed before anything of an answer came.
    `estimated`: it matters, and the answer did not say all of it."""
    pool, permit, had = step.pool, step.permit, NOTHING_USED
    price = None if permit is None else permit.price
    if usage is not None:
        had = used(usage, step.picked.forecast.prompt_tokens)
        if estimated:
            telemetry.costs.estimated(pool.name)
        if decision.passed is not None:
            decision.passed.charge(price, had)
    now = monotonic()
    visit.charge(had.prompt + had.output, now)
    bill = decision.bill
    if permit is not None:
        paid = permit.settle(now, had)
        if price is not None and not decision.free:
            names = decision.route, decision.rule, step.tier, pool.name, permit.model.name
            telemetry.costs.paid(*names, price.currency, paid)
            bill = decision.bill = bill or Bill()
            bill.add(price.currency, paid)
    if pool.upkeep is not None:
        pool.upkeep.look(pool, now)
        if usage is not None:
            bill = decision.bill = bill or Bill()
            kept = pool.upkeep.served(now, had)
            bill.own = had
            if price is None:
                bill.add(pool.upkeep.currency, kept)


def unpriced(telemetry: Telemetry, decision: Decision, step: Try) -> None:
    """An attempt at a provider has been had of which nobody knows what it costs."""
    models = step.pool.spec.models
    name = next((each.name for each in models if (each.upstream_name or each.name) == step.upstream_model), "")
    telemetry.costs.unpriced(decision.route, step.pool.name, name)
