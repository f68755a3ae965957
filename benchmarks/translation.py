"""What it costs that client and endpoint speak different APIs: CPU of the balancer, beside what passes as it came.

One balancer, one lean endpoint that speaks both APIs, the four ways between them. They take turns, so that a machine
that is busy with something else is so for each of them: the ratios hold where the microseconds do not.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from . import town
from .client import closed_loop, request
from .snapshots import Table

POLICY = """
apiVersion: v1
kind: Secret
metadata: {{name: key}}
stringData: {{key: none}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {{name: own}}
spec:
  models: [{{name: own}}]
  engine: Generic
  source: {{static: {{endpoints: [{{name: only, url: "http://127.0.0.1:{port}"}}]}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {{name: claude}}
spec:
  models: [{{name: claude}}]
  source:
    provider:
      type: Anthropic
      baseURL: http://127.0.0.1:{port}
      allowPlainHTTP: true
      accounts: [{{name: only, secretRef: {{name: key, key: key}}}}]
---
apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {{name: own}}
spec:
  models: [own]
  rules: [{{name: all, tiers: [{{name: only, pools: [{{name: own}}]}}]}}]
---
apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {{name: claude}}
spec:
  models: [claude]
  rules: [{{name: all, tiers: [{{name: only, pools: [{{name: claude}}]}}]}}]
"""
ROUNDS = 7
SECONDS = 1.0
TOKENS = 50


class Way(NamedTuple):
    """From a client's API to an endpoint's; the public name leads to the pool."""

    client: str
    endpoint: str
    name: str
    messages: bool


WAYS = (
    Way("chat", "own, chat", "own", messages=False),
    Way("Messages", "Anthropic", "claude", messages=True),
    Way("chat", "Anthropic", "claude", messages=False),
    Way("Messages", "own, chat", "own", messages=True),
)
SHAPES = {"1 KB plain": (1000, False), "32 KB plain": (32_000, False), f"stream of {TOKENS}": (1000, True)}


def translation() -> Table:
    """Medians over the rounds: of each cost, and of its ratio to that of the first way in the same round."""
    rows = []
    endpoint, port = town.free_ports(2)
    with ExitStack() as stack:
        stack.enter_context(town.endpoints([endpoint], chunk_ms=5))
        file = stack.enter_context(town.folder()) / "policy.yaml"
        file.write_text(POLICY.format(port=endpoint))
        process = stack.enter_context(town.balancer(file, port))
        for shape, (size, stream) in SHAPES.items():
            costs: dict[Way, list[float]] = {way: [] for way in WAYS}
            failed = dict.fromkeys(WAYS, 0)
            for _ in range(ROUNDS):
                for way in WAYS:
                    requests = [request(way.name, f"k{i}", size, stream, TOKENS, way.messages) for i in range(64)]
                    before = town.cpu_seconds(process.pid)
                    tally = asyncio.run(closed_loop(port, requests, 50 if stream else 16, SECONDS))
                    used = town.cpu_seconds(process.pid) - before
                    costs[way].append(used / max(1, tally.answered) * 1e6)
                    failed[way] += len(tally.failed_before_content) + tally.cut_after_content
            for way, each in costs.items():
                ratio = median(one / first for one, first in zip(each, costs[WAYS[0]], strict=True))
                rows.append([shape, way.client, way.endpoint, f"{median(each):.0f}", f"{ratio:.2f}", str(failed[way])])
    head = ["load", "client", "endpoint", "µs CPU/request", "to the first", "failed"]
    return f"Translation, {ROUNDS} rounds of {SECONDS:.0f} s each, in turns", head, rows
