"""What is said of a request that has found its endpoint, in names and numbers: one set of words for all who tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .planning import Plan
from .shadows import Look
from .steps import Try

MOST_CHARS: Final = 1024
"""Of the line: proxies bound what the headers of an answer may take together."""


def told(made: Plan, step: Try, number: int, log: Sequence[str], shadows: Sequence[Look] = ()) -> dict[str, str]:
    """Why a request goes where it goes, in the order in which it is told. No content of the request is in it.

    `number` is that of the attempt, from 1; `log` says why tiers were left, and what became of attempts before it;
    `shadows` what policies in Shadow would do.

    Tokens are estimates, times are seconds. docs/explain.md says what each means; names and order are stable, and what
    has nothing to say is left out.
    """
    pool, endpoint, forecast = step.pool, step.endpoint, step.picked.forecast
    seen, learned = endpoint.learned, pool.learned
    said = {
        "rule": made.rule,
        "tier": step.tier,
        "pool": pool.name,
        "endpoint": endpoint.name,
        "strategy": pool.spec.dispatch.strategy,
        "reason": step.picked.choice.reason,
        "attempt": str(number),
        "prompt-tokens": f"{forecast.prompt_tokens:.0f}",
        "requests": str(endpoint.load.in_flight),
    }
    if made.left_out:
        said["left-out"] = ",".join(f"{each.tier}:{each.pool}({each.why})" for each in made.left_out)
    if step.shares:
        said["spill"] = ",".join(f"{tier}:{share:.2f}" for tier, share in step.shares)
    if forecast.ttft is not None:
        said |= {
            "cached-tokens": f"{forecast.cached_tokens:.0f}",
            "queued-tokens": f"{endpoint.load.pending_tokens:.0f}",
            "ttft": f"{forecast.ttft:.3f}",
            "bytes-per-token": f"{learned.bytes_per_token:.2f}",
            "prefill-rate": "unknown" if seen.rate is None else f"{seen.rate:.0f}",
            "speed": f"{seen.speed:.2f}",
            "cache-tokens": f"{seen.cache_tokens:.0f}",
        }
    said |= {"policy": made.route.name, "matched": made.model, "model": step.upstream_model}
    if step.into is not None:
        said["translated"] = step.into
    if shadows:
        said["shadow"] = ",".join(map(str, shadows))
    if made.clamp is not None:
        limits = {"max-output-tokens": made.clamp.max_output_tokens, "reasoning-effort": made.clamp.reasoning_effort}
        said["set"] = ",".join(f"{name}:{value}" for name, value in limits.items() if value is not None)
    if made.held is not None:
        said["guards"] = ",".join(guard.name for guard in made.held.guards)
    if log:
        said["before"] = ", ".join(log)
    return said


def line(said: Mapping[str, str]) -> str:
    """`name=value` pairs with `; ` between them, whole ones, as many as there is room for."""
    text = ""
    for name, value in said.items():
        pair = f"{name}={value}".encode("ascii", "replace").decode()
        more = f"{text}; {pair}" if text else pair
        if len(more) > MOST_CHARS:
            break
        text = more
    return text
