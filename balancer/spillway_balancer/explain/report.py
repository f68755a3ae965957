"""The account of a request as text: lines that read the same in a terminal, in a log and in the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Final, NamedTuple

from ..core.account import (
    NO_MODEL,
    Attempted,
    EndpointSeen,
    Explanation,
    GuardAsked,
    Left,
    Looked,
    Queued,
    RuleAsked,
    Served,
    Shadowed,
    Signal,
    Spilled,
    Step,
    Waited,
)

MOST_ENDPOINTS: Final = 12
"""Lines of a pool; --json has all."""

WHY: Final = {
    "prefix": "it has a part of the prompt cached",
    "least-work": "the least work, with nothing of the prompt cached",
    "ring": "its place on the ring of the session's key",
    "overflow": "the key's own endpoint has more than its share of the load",
    "least-load": "the least load",
    "power-of-two": "the less loaded of two that were drawn by lot",
    "lowest-latency": "the first tokens of late came soonest there",
    "weighted-round-robin": "its turn",
    "round-robin": "its turn",
    "random": "drawn by lot",
    "panic": "every endpoint is out, and this one is due back first",
}
"""What a strategy's word means."""


class Line(NamedTuple):
    text: str
    style: str = ""


def lines(account: Explanation) -> Iterator[Line]:
    """The whole account, from the request to where it goes."""
    yield from _head(account)
    if account.guards or account.rules:
        yield Line("")
        yield from _asked(account)
    for each in account.left_out:
        yield Line(f"kept out of tier {each.tier}: {each.pool}, {each.why}")
    for tier in account.tiers:
        steps = [step for step in account.steps if step.tier == tier]
        yield Line("")
        served = isinstance(account.outcome, Served) and account.outcome.tier == tier
        yield Line(f"tier {tier}" + ("" if steps else ": not reached"), "bold" if served else "")
        for step in steps:
            yield from _step(step, account)
    yield Line("")
    yield from _end(account)
    yield from map(_shadow, account.shadows)


def _head(account: Explanation) -> Iterator[Line]:
    if not account.model:
        yield Line(f"request  POST {account.path}, which is not understood")
        return
    stream = ", streamed" if account.stream else ""
    size = f"about {account.prompt_tokens:,} prompt tokens, up to {account.output_tokens:,} to generate"
    yield Line(f"request  POST {account.path}, model {account.model}{stream}: {size}")
    if account.policy:
        yield Line(f"policy   {account.policy}, by the name {account.matched}")
        if account.consumer:
            used = ", ".join(f"{percent:.0f} % of {limit}" for limit, percent in account.used.items())
            yield Line(f"caller   {account.consumer}" + (f", {used} used" if used else ""))
        drawn = "none: what goes by key is drawn by lot"
        yield Line("key      " + (f"by {account.key}, bucket {account.bucket}" if account.key else drawn))


def _asked(account: Explanation) -> Iterator[Line]:
    """Guards and rules, one line each, the columns of all alike."""
    every: list[tuple[str, GuardAsked | RuleAsked, str]] = []
    every += [("guard", guard, _result(guard, "and so holds")) for guard in account.guards]
    every += [("rule", rule, _result(rule, "an entry is missing")) for rule in account.rules]
    names = max(len(each.name) for _, each, _ in every)
    results = max(len(result) for _, _, result in every)
    for kind, each, result in every:
        decides = kind == "rule" and each.result in ("holds", "chosen by the caller")
        when = "always" if each.when is None else " ".join(each.when.split())
        text = f"{kind:<6} {'>' if decides else ' '} {each.name:<{names}}  {result:<{results}}  {when}"
        yield Line(text, "bold" if decides else "")


def _result(each: GuardAsked | RuleAsked, missing: str) -> str:
    if each.result == "missing":
        return f"no value: {missing}"
    if each.result == "error":
        return "no value: " + ("an error" if isinstance(each, RuleAsked) else missing)
    return each.result


def _step(step: Step, account: Explanation) -> Iterator[Line]:
    match step:
        case Spilled():
            side = "this request is of them" if step.leaves else "this one stays"
            yield Line(f"  spill: {step.share:.0%} of the requests leave, by {step.by}; {side}")
            for signal in step.signals:
                yield Line(f"    {signal.name}: {_signal(signal)}")
        case Looked():
            yield from _look(step)
        case Attempted():
            yield Line(f"  attempt at {step.pool}/{step.endpoint} fails: {step.failure}", "red")
        case Waited():
            yield Line(f"  waits {step.seconds:.3f} s: {step.why}")
        case Queued(known=True, cold=True):
            yield Line(f"  is held for {step.seconds:g} s while the pool is woken from zero; then it goes on")
        case Queued(cold=True):
            yield Line(f"  is held until the pool is woken from zero, at most {step.seconds:g} s", "red")
        case Queued(known=True):
            yield Line(f"  waits in the queue for {step.seconds:.1f} s, until a limit is over")
        case Queued():
            yield Line(f"  waits in the queue for room, at most {step.seconds:g} s; in this state none comes", "red")
        case Left(onward=True):
            yield Line(f"  left for the next tier: {step.reason}")
        case Left():
            yield Line(f"  {step.reason}: no next tier that may be entered for it")


def _signal(signal: Signal) -> str:
    unit = " s" if signal.name == "predictedTTFT" else " %" if signal.name.endswith("Percent") else ""
    value = "unknown" if signal.value is None else f"{signal.value:.3g}{unit}"
    return f"{value} (leave from {signal.start:g}{unit}, all at {signal.full:g}{unit})"


def _look(look: Looked) -> Iterator[Line]:
    if look.reason == NO_MODEL:
        yield Line(f"  pool {look.pool}: has no such model")
        return
    if look.limits:
        yield Line("  limits: " + ", ".join(f"{used:.0f} % of {name}" for name, used in look.limits.items()) + " used")
    score = f", {look.select} {_score(look.score)}" if look.select else ""
    yield Line(f"  pool {look.pool}, weight {look.weight}{score}, {look.strategy}:")
    shown = sorted(look.endpoints, key=lambda each: (each.name != look.chosen, each.state != "ready", _cost(each)))
    rows = [_HEADING, *(_row(each, each.name == look.chosen) for each in shown[:MOST_ENDPOINTS])]
    wide = [max(len(row[at]) for row in rows) for at in range(len(_HEADING))]
    columns = [at for at in range(len(_HEADING)) if at < 2 or any(row[at] for row in rows[1:])]
    for number, row in enumerate(rows):
        cells = [f"{row[at]:<{wide[at]}}" if at < 2 else f"{row[at]:>{wide[at]}}" for at in columns]
        chosen = number and shown[number - 1].name == look.chosen
        yield Line("    " + "  ".join(cells).rstrip(), "bold" if chosen else "" if number else "dim")
    if len(shown) > MOST_ENDPOINTS:
        yield Line(f"    and {len(shown) - MOST_ENDPOINTS} more")
    if look.chosen is None:
        yield Line(f"    none: {look.reason}")


def _score(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.6g}" if isfinite(value) else "to be tried"


_HEADING: Final = ("  endpoint", "state", "weight", "in flight", "queued tokens", "cached", "predicted", "cost")


def _row(each: EndpointSeen, chosen: bool) -> tuple[str, ...]:
    return (
        f"{'>' if chosen else ' '} {each.name}",
        each.state,
        str(each.weight),
        str(each.requests),
        _number(each.queued_tokens),
        _number(each.cached_tokens),
        "" if each.ttft is None else f"{each.ttft:.3f} s" if each.rate else "unknown",
        _number(each.cost),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _cost(each: EndpointSeen) -> float:
    return float("inf") if each.cost is None else each.cost


def _shadow(each: Shadowed) -> Line:
    rule = f"rule {each.rule}" if each.rule else "no rule"
    where = f"to {each.pool} as {each.upstream_model} (tier {each.tier})" if each.pool else "nowhere"
    return Line(f"shadow   {each.policy} would send it {where}, by {rule}")


def _end(account: Explanation) -> Iterator[Line]:
    outcome = account.outcome
    if not isinstance(outcome, Served):
        wait = "" if outcome.retry_after is None else f", Retry-After {outcome.retry_after:.0f} s"
        yield Line(f"answer   {outcome.status} {outcome.code}{wait}: {outcome.message}", "bold red")
        return
    spilled = ", spilled" if outcome.spilled else ""
    attempt = f", attempt {outcome.attempt}" if outcome.attempt > 1 else ""
    where = f"{outcome.pool}/{outcome.endpoint} as {outcome.upstream_model}"
    yield Line(f"goes to  {where} (tier {outcome.tier}{spilled}{attempt})", "bold green")
    if outcome.translated is not None:
        yield Line(f"said as  {outcome.translated}, into which it is translated")
    yield Line(f"because  {outcome.reason}: {WHY.get(outcome.reason, 'so its strategy says')}")
    if outcome.ttft is not None:
        cached = f"{outcome.cached_tokens or 0:,.0f} of {outcome.prompt_tokens:,.0f} prompt tokens cached"
        first = f"the first token after {outcome.ttft:.3f} s"
        yield Line(f"expects  {cached}; {first if outcome.learned else 'nothing is known of its speed'}")
    if outcome.hedged_after is not None:
        yield Line(f"hedged   by a second attempt when no first token has come after {outcome.hedged_after:g} s")
    if account.clamp is not None:
        most, effort = account.clamp.max_output_tokens, account.clamp.reasoning_effort
        said = [f"{most:,} tokens of answer" if most else "", f"reasoning effort {effort}" if effort else ""]
        yield Line(f"lowered  to at most {' and '.join(each for each in said if each)}, by rule {account.rule}")
    if account.mirror:
        yield Line(f"copied   to {account.mirror}")
