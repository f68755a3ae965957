"""Balancers as the operator sees them: what they acknowledged, refused and report."""

from __future__ import annotations

from typing import NamedTuple

from spillway_api.stream import PoolReport, Report, TierReport


class Balancer(NamedTuple):
    """A subscriber of the config stream."""

    balancer: str = "gateway-1"
    digest: str | None = None
    refused: tuple[str, str] | None = None
    report: Report | None = None


def serving(*digests: str | None) -> tuple[Balancer, ...]:
    return tuple(Balancer(f"gateway-{number}", digest) for number, digest in enumerate(digests))


def says(*parts: PoolReport | TierReport) -> Report:
    pools = tuple(part for part in parts if isinstance(part, PoolReport))
    return Report(pools, tuple(part for part in parts if isinstance(part, TierReport)))
