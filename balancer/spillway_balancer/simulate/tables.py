"""What came out, for a terminal: a table for each load, and one of capacities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from rich.table import Column, Table

from ..city.words import count, milliseconds, percent

COLUMNS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("TTFT mean", "ttft_mean", milliseconds),
    ("of the best", "ttft_ratio", "{:.2f} x".format),
    ("p50", "ttft_p50", milliseconds),
    ("p90", "ttft_p90", milliseconds),
    ("p99", "ttft_p99", milliseconds),
    ("end to end", "e2e_mean", milliseconds),
    ("in time", "within_objective", lambda value: f"{value:.1%}"),
    ("requests/s", "throughput", lambda value: f"{value:.1f}"),
    ("hits", "hit_share", lambda value: f"{value:.1%}"),
    ("imbalance", "imbalance", lambda value: f"{value:.2f}"),
    ("shed", "shed", count),
)
"""Heading, figure, and how it is written."""
FORECAST: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("within 20 %", "near", "{:.0%}".format),
    ("bias", "bias", "{:+.0%}".format),
    ("off by p50", "error_p50", "{:.0%}".format),
    ("p90", "error_p90", "{:.0%}".format),
    ("p99", "error_p99", "{:.0%}".format),
    ("p50", "seconds_p50", milliseconds),
    ("p90", "seconds_p90", milliseconds),
    ("p99", "seconds_p99", milliseconds),
)
"""The same, of how far predictions are off: in parts of what came, then in time."""
GAP: Final = 3
"""Columns of the terminal between two of a table."""


def written(estimate: dict[str, Any], write: Callable[[float], str]) -> str:
    """`0.43 s ±2 %`: the mean and its 95 % confidence interval, where there is one."""
    mean, margin = estimate["mean"], estimate["margin"]
    if margin is None or not mean:
        return write(mean)
    return f"{write(mean)} ±{percent(margin / mean)}" if margin else write(mean)


def load_title(load: dict[str, Any], unit: str) -> str:
    at = f"{load['rate']:.4g} {unit}"
    return at if load["share"] is None else f"{load['share']:.0%} of the best capacity: {at}"


def load_tables(load: dict[str, Any], unit: str, width: int) -> list[Table]:
    """One line for each strategy, the fastest first; in as many tables as it takes to fit into `width`."""
    rows = sorted(load["strategies"].items(), key=lambda item: float(item[1]["figures"]["ttft_mean"]["mean"]))
    cells = [[written(found["figures"][figure], write) for _, found in rows] for _, figure, write in COLUMNS]
    names = max(len(name) for name, _ in rows)
    groups: list[list[int]] = []
    left = 0
    for index, (heading, _, _) in enumerate(COLUMNS):
        wanted = max(len(heading), *(len(cell) for cell in cells[index])) + GAP
        if wanted > left:
            groups.append([])
            left = width - names - GAP
        left -= wanted
        groups[-1].append(index)
    tables = []
    for group in groups:
        shown = _table(*(Column(COLUMNS[index][0], justify="right", no_wrap=True) for index in group))
        for row, (name, _) in enumerate(rows):
            shown.add_row(name, *(cells[index][row] for index in group))
        tables.append(shown)
    return tables


def forecast_table(load: dict[str, Any]) -> Table | None:
    """How far predicted times to the first token were off, for the strategies that predict; None where none does."""
    rows = [(name, found["forecast"]) for name, found in load["strategies"].items() if found.get("forecast")]
    if not rows:
        return None
    shown = _table(*(Column(heading, justify="right", no_wrap=True) for heading, _, _ in FORECAST))
    for name, found in rows:
        shown.add_row(name, *(written(found[figure], write) for _, figure, write in FORECAST))
    return shown


def setup_line(results: dict[str, Any]) -> str:
    """What was simulated, in one line."""
    setup, seeds = results["setup"], len(results["setup"]["seeds"])
    kinds = Counter(setup["endpoints"])
    said = [results["workload"]["name"], " + ".join(f"{number} x {name}" for name, number in kinds.items())]
    if setup["balancers"] > 1:
        exchange = setup["exchangeSeconds"]
        said.append(f"{setup['balancers']} balancers, exchange {'none' if exchange is None else f'{exchange:g} s'}")
        if setup["sessionsStay"]:
            said.append("sessions stay")
    if setup["view"] != "scraped":
        said.append(f"view {setup['view']}")
    said.extend(setup["events"])
    said.append("1 seed" if seeds == 1 else f"{seeds} seeds, ± is the 95 % confidence interval")
    return "; ".join(said)


def capacity_title(objective: float) -> str:
    return f"Capacity: highest rate at which 90 % of first tokens come within {objective:g} s"


def capacity_table(capacity: dict[str, Any], unit: str) -> Table:
    """One line for each strategy, the highest rate first."""
    shown = _table(
        Column(unit, justify="right", no_wrap=True),
        Column("of the best", justify="right"),
    )
    rows = sorted(capacity["strategies"].items(), key=lambda item: -float(item[1]["mean"]))
    for name, found in rows:
        shown.add_row(name, written(found, lambda value: f"{value:.4g}"), written(found["ratio"], "{:.1%}".format))
    return shown


def _table(*columns: Column) -> Table:
    return Table(Column("", no_wrap=True), *columns, box=None, padding=(0, 2, 0, 1), header_style="dim")
