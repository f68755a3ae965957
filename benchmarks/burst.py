"""Twice what a pool can do, in virtual time: what `docs/spillover.md` says of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from spillway_api.compile import compile_snapshot
from spillway_api.files import load
from spillway_api.snapshot import Snapshot
from spillway_balancer.engine.profiles import PROFILES
from spillway_balancer.simulate.judging import judge

from .snapshots import Table

POOLS = {"h100-llama3-8b": (4, 45.0), "a100-llama3-8b": (4, 25.0), "l4-llama3-8b": (8, 18.0)}
"""Endpoints of each kind, and about how many requests a second they sustain of these conversations."""
SEEDS = (1, 2, 3)


def policy(endpoints: int, spill: dict[str, Any], **more: Any) -> Snapshot:
    """A pool of its own, and one of a provider's to spill over to; `more` is set on the second tier."""
    listed = [{"name": f"e{number}", "url": f"http://e{number}"} for number in range(endpoints)]
    price = {"input": "0.25", "cachedInput": "0.03", "output": "2.00"}
    account = {"name": "c", "url": "http://c"}
    tiers = [
        {"name": "home", "pools": [{"name": "a-home"}], "spill": spill},
        {"name": "cloud", "pools": [{"name": "b-cloud"}], **more},
    ]
    specs: list[tuple[str, str, dict[str, Any]]] = [
        ("ModelPool", "a-home", {"models": [{"name": "m"}], "source": {"static": {"endpoints": listed}}}),
        (
            "ModelPool",
            "b-cloud",
            {"models": [{"name": "m", "price": price}], "source": {"static": {"endpoints": [account]}}},
        ),
        ("RoutePolicy", "chat", {"models": ["chat"], "rules": [{"name": "all", "tiers": tiers}]}),
    ]
    docs = [
        {"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, name, spec in specs
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_text(yaml.safe_dump_all(docs))
        loaded = load([file])
    assert not loaded.problems, loaded.problems
    compiled = compile_snapshot(loaded.objects, "default", lambda _secret, _key: True)
    assert not compiled.problems, compiled.problems
    return compiled.snapshot


def burst() -> Table:
    rows = []
    spill = {"predictedTTFT": {"start": "2s", "full": "6s"}}
    limits = {"maxSharePercent": 70, "budget": {"amount": "10.00", "period": "Day"}}
    for name, (size, capacity) in POOLS.items():
        spec = policy(size, spill, limits=limits)
        for seed in SEEDS:
            profiles = [*[PROFILES[name]] * size, PROFILES["provider"]]
            found = judge(spec, profiles, "chat", capacity, 2.0, seed)
            assert found.spent == found.charged, "the balancer's books are the provider's, to the last digit"
            rows.append(
                [
                    f"{size} {name.partition('-')[0]}",
                    str(seed),
                    f"{found.home_p50:.2f} / {found.home_p99:.2f}",
                    f"{found.all_p99:.2f}",
                    f"{100 * found.spilled:.0f} / {100 * found.most_in_a_minute:.0f}",
                    f"{100 * found.lowest:.0f} to {100 * found.highest:.0f}",
                    f"{100 * found.whole:.1f}",
                    f"{found.home_after:.0f}",
                    f"{found.spent:.4f}",
                ]
            )
    head = [
        "pool",
        "seed",
        "TTFT home p50/p99, s",
        "all p99, s",
        "left, %: in all / most in a minute",
        "share once settled, %",
        "moved at most once, %",
        "home after, s",
        "spent, USD",
    ]
    title = "A burst of twice the capacity, virtual time; predictedTTFT 2s to 6s, maxSharePercent 70, budget 10.00"
    return title, head, rows
