"""The options of `spillway simulate`. What it needs is loaded when it is asked for: a balancer loads none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    trace: Annotated[
        Path | None,
        typer.Option(help="Recorded traffic: Mooncake JSONL, Azure CSV, BurstGPT CSV, or what run --record wrote."),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            help="tenants, agent-sessions, chat or documents, which are generated; "
            "conversation or tool-agent, which are made of a --trace."
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="FILE, or FILE:NAME, with the ModelPool to simulate: its endpoints, weights and settings."),
    ] = None,
    endpoints: Annotated[int | None, typer.Option(help="How many; 8 unless the pool says.", min=1)] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="Engine of the endpoints, such as 6xh100-llama3-8b,2xl4-llama3-8b.")
    ] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategies or peers' policies by name; all, ours, peers. Repeatable.")
    ] = None,
    balancers: Annotated[int, typer.Option(help="Each sees its part of the traffic.", min=1, max=256)] = 1,
    exchange: Annotated[
        float | None, typer.Option(help="Seconds until balancers know of each other's requests; else they never do.")
    ] = None,
    view: Annotated[
        str,
        typer.Option(
            help="Engines' metrics as balancers know them: scraped, each for itself; shared:SECONDS, read by one and "
            "known to all so much later; own, no more than one's own requests."
        ),
    ] = "scraped",
    stay: Annotated[
        bool,
        typer.Option("--sessions-stay", help="A session's requests come to the same balancer, not to any by dice."),
    ] = False,
    load: Annotated[
        list[str] | None, typer.Option(help="Shares of the best strategy's capacity: 0.5,0.8,0.95 unless told.")
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="Rates instead: times the speed of a trace, requests or sessions a second.")
    ] = None,
    capacity: Annotated[
        bool, typer.Option("--capacity", help="Find the highest rate that each strategy holds.")
    ] = False,
    objective: Annotated[
        float | None, typer.Option(help="Seconds in which 90 % of first tokens must come; each workload has its own.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions with other dice.", min=1, max=100)] = 3,
    event: Annotated[
        list[str] | None,
        typer.Option(help="fail:3@60, join@120, restart-balancer:0@60 at seconds of simulated time; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Requests of a run.", min=1)] = None,
    scrape: Annotated[
        float | None, typer.Option(help="Seconds between scrapes; 1 unless a peer's policy has its own.", min=0.01)
    ] = None,
    usage: Annotated[bool, typer.Option(help="Engines say what they counted and had cached.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json and report.html.", file_okay=False)] = None,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1, max=256)] = 2,
) -> None:
    """Compare strategies on a trace or a generated workload, in virtual time, with the balancer's own dispatch."""
    from .command import run_simulation

    try:
        run_simulation(
            trace=trace,
            workload=workload,
            pool=pool,
            endpoints=endpoints,
            profile=profile or (),
            strategy=strategy or (),
            balancers=balancers,
            exchange=exchange,
            load=load or (),
            rate=rate or (),
            capacity=capacity,
            objective=objective,
            seeds=seeds,
            event=event or (),
            limit=limit,
            scrape=scrape,
            usage=usage,
            view=view,
            stay=stay,
            out=out,
            jobs=jobs,
        )
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"{error.filename}: {error.strerror}; choose another --out", err=True)
        raise typer.Exit(1) from None
