"""`spillway simulate`: run what was asked for, show how far it is, and say what came out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import asked, sights
from .crew import Crew
from .faults import check, parse
from .report import page
from .runs import Bench, Experiment
from .study import Document, Question, Study
from .tables import capacity_table, capacity_title, forecast_table, load_tables, load_title, setup_line

LOADS: Final = "0.5", "0.8", "0.95"
"""Shares of the capacity to look at, where nothing else is asked."""
WIDE: Final = 200
"""Columns of a page that is no terminal."""


def run_simulation(
    *,
    trace: Path | None,
    workload: str | None,
    pool: str | None,
    endpoints: int | None,
    profile: Sequence[str],
    strategy: Sequence[str],
    balancers: int,
    exchange: float | None,
    load: Sequence[str],
    rate: Sequence[str],
    capacity: bool,
    objective: float | None,
    seeds: int,
    event: Sequence[str],
    limit: int | None,
    scrape: float | None,
    usage: bool,
    view: str,
    stay: bool,
    out: Path | None,
    jobs: int,
) -> None:
    """Raises ValueError, with what to write instead, for what cannot be simulated; OSError where `out` cannot be
    written."""
    template, profiles = asked.pool(pool, endpoints, asked.profiles(profile))
    faults = tuple(parse(each) for each in event)
    check(faults, len(template.endpoints), balancers)
    loads = asked.numbers("--load", load or (() if rate or capacity else LOADS), 0.0, 2.0)
    question = Question(
        strategies=asked.strategies(strategy, template),
        seeds=tuple(range(1, seeds + 1)),
        loads=loads,
        rates=asked.numbers("--rate", rate, 0.0, 1e6),
        capacity=capacity,
    )
    experiment = Experiment(
        trace=trace,
        workload=workload,
        pool=template,
        profiles=profiles,
        objective=objective,
        balancers=balancers,
        scrape=scrape,
        exchange=exchange,
        faults=faults,
        limit=limit,
        usage=usage,
        sight=sights.parse(view),
        stay=stay,
    )
    bench = Bench(experiment)  # reads the trace, so that a bad one is said at once and once
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    screen = Console(stderr=True)
    begun = monotonic()
    with _progress(screen) as progress:
        line = progress.add_task("", total=None, rate="")

        def said(what: str) -> None:
            progress.update(line, description=what, completed=0, total=None)

        def advanced(done: int, tasks: int, requests: int) -> None:
            speed = requests / max(monotonic() - begun, 1e-3)
            progress.update(line, completed=done, total=tasks, rate=f"{requests:,} requests, {speed:,.0f}/s")

        with Crew(experiment, jobs, advanced) as crew:
            study = Study(question, experiment, crew, said)
            results = study.answer(bench)
    elapsed = monotonic() - begun
    _show(results, out)
    processes = "1 process" if jobs == 1 else f"{jobs} processes"
    speed = study.requests / max(elapsed, 1e-9)
    screen.print(
        f"{study.requests:,} requests simulated in {elapsed:.1f} s: {speed:,.0f} a second, by {processes}",
        highlight=False,
    )


def _progress(screen: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        refresh_per_second=4,
    )


def _show(results: Document, out: Path | None) -> None:
    """Tables on standard output; files where they are wanted."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    unit, objective = results["workload"]["unit"], results["workload"]["objective"]
    groups = [(load_title(load, unit), load_tables(load, unit, console.width)) for load in results["loads"]]
    if results["capacity"] is not None:
        groups.insert(0, (capacity_title(objective), [capacity_table(results["capacity"], unit)]))
    for title, tables in groups:
        console.print(title, style="bold")
        for table in tables:
            console.print(table)
        console.print()
    for load in results["loads"]:
        predictions = forecast_table(load)
        if predictions is not None:
            console.print(f"Predicted against real first tokens, {load_title(load, unit)}", style="bold")
            console.print(predictions)
            console.print()
    if not groups:
        console.print("No strategy meets the objective at any rate: nothing to compare. Try a larger --objective.")
    console.print(setup_line(results), soft_wrap=True)
    if out is not None:
        (out / "results.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (out / "report.html").write_text(page(results), encoding="utf-8")
        console.print(f"{out / 'results.json'} and {out / 'report.html'} have all of it, with plots.", soft_wrap=True)
