"""Why a request went where it did, in one header: for people who ask, by curl."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.attempts import Try
from ..core.capabilities import LeftOut


def explained(rule: str, step: Try, log: Sequence[str], left_out: Sequence[LeftOut] = ()) -> bytes:
    """The value of `x-spillway-explain`: `name=value` pairs with `; ` between them. Names and numbers, no content.

    Tokens are estimates, times are seconds. docs/dispatch.md says what each means.
    """
    pool, endpoint, forecast = step.pool, step.endpoint, step.picked.forecast
    seen, learned = endpoint.learned, pool.learned
    said = {
        "rule": rule,
        "tier": step.tier,
        "pool": pool.name,
        "endpoint": endpoint.name,
        "strategy": pool.spec.dispatch.strategy,
        "reason": step.picked.choice.reason,
        "attempt": str(len(log) + 1),
        "prompt-tokens": f"{forecast.prompt_tokens:.0f}",
        "requests": str(endpoint.load.in_flight),
    }
    if left_out:
        said["left-out"] = ",".join(f"{each.tier}:{each.pool}({each.why})" for each in left_out)
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
    return "; ".join(f"{name}={value}" for name, value in said.items()).encode("ascii", "replace")
