"""Every metric stands on docs/metrics.md, and every name of one that stands anywhere in docs is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from spillway_balancer.net.accepting import Accepting
from spillway_balancer.net.telemetry import Telemetry
from spillway_balancer.net.vouching import Vouching
from spillway_operator.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
NAME = re.compile(r"(?<![\w/.])spillway_[a-z0-9_]*[a-z0-9](?![\w/.…])")
SHORT = re.compile(r"…(_[a-z0-9_]+)")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def registries() -> list[CollectorRegistry]:
    telemetry = Telemetry()
    Accepting(Vouching(), telemetry.registry)
    return [telemetry.registry, Metrics().registry]


def families() -> dict[str, str]:
    """Names as they are scraped, without the parts of histograms, with their types."""
    found = [family for registry in registries() for family in registry.collect()]
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in found}


@pytest.mark.parametrize("name", sorted(families()))
def test_it_is_on_the_page(name: str) -> None:
    short = [part for part in SHORT.findall(PAGE) if name.endswith(part)]
    assert f"`{name}`" in PAGE or short, f"{name} is not in docs/metrics.md"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_what_a_page_names_there_is(page: Path) -> None:
    known = {name + part for name, kind in families().items() for part in ("", *SUFFIXES.get(kind, ()))}
    assert set(NAME.findall(page.read_text())) <= known
