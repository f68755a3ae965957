"""The results as one HTML page: tables and plots, nothing loaded from anywhere, nothing to run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from .plots import Series, bars, colour, lines
from .tables import COLUMNS, capacity_title, load_title, setup_line, written

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1d2b34; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } figure { margin: 1em 0 }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 2px 9px; text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left } tr:nth-child(even) { background: #f3f6f7 }
tr.ours td:first-child { font-weight: 600; color: #0b7a75 } .wide { overflow-x: auto }
svg { width: 100%; max-width: 720px; font: 11px system-ui, sans-serif; fill: #4a5a64 }
.grid { stroke: #dfe5e8 } .mark { stroke: #d1495b; stroke-dasharray: 4 3 } .error { stroke: #1d2b34 }
.legend { font-size: 12px; max-width: 720px } .legend span { display: inline-block; margin-right: 1em }
.legend i { display: inline-block; width: 12px; height: 4px; margin-right: 4px; vertical-align: middle }
.small { font-size: 12px; color: #4a5a64 }
"""


def page(results: dict[str, Any]) -> str:
    """All of results.json that a person wants to see."""
    names = list(results["strategies"])
    workload = results["workload"]
    parts = [
        f"<h1>Dispatch compared: {escape(workload['name'])}</h1>",
        f"<p>{escape(workload['about'])}. {escape(setup_line(results))}. Objective: 90 % of first tokens within "
        f"{workload['objective']:g} s. Times are simulated; their order is the result.</p>",
    ]
    if results["capacity"] is not None:
        parts.append(_capacity(results))
    loads = results["loads"]
    if len(loads) > 1:
        parts.append("<h2>Time to the first token, by rate</h2>")
        for figure, said in (("ttft_mean", "mean"), ("ttft_p90", "p90")):
            series = [
                _series(names, name, [(load["rate"], _mean(load, name, figure)) for load in loads], results)
                for name in names
            ]
            parts.append(
                _figure(lines(series, workload["unit"], f"TTFT {said}, s"), f"{said}; the objective is on p90")
            )
    parts.extend(_load(load, names, results) for load in loads)
    parts.append(_sources(results))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Spillway: {escape(workload['name'])}</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def _capacity(results: dict[str, Any]) -> str:
    found = sorted(results["capacity"]["strategies"].items(), key=lambda item: -float(item[1]["mean"]))
    values = [(name, each["mean"], each["margin"], _ours(results, name)) for name, each in found]
    title = capacity_title(results["workload"]["objective"])
    drawing = bars(values, lambda value: f"{value:.3g}")
    return f"<h2>{escape(title)}</h2>{_figure(drawing, results['workload']['unit'])}"


def _load(load: dict[str, Any], names: Sequence[str], results: dict[str, Any]) -> str:
    unit = results["workload"]["unit"]
    parts = [f"<h2>{escape(load_title(load, unit))}</h2>", _table(load, results)]
    strategies = load["strategies"]
    curves = [_series(names, name, strategies[name]["curve"], results) for name in names]
    caption = "time to the first token that a share of the requests does not exceed"
    parts.append(_figure(lines(curves, "share of requests", "TTFT, s"), caption))
    events = [float(event.rpartition("@")[2]) for event in results["setup"]["events"]]
    if events:
        for at, said in ((2, "mean"), (3, "p99")):
            series = [
                _series(names, name, [(each[0], each[at]) for each in strategies[name]["windows"]], results)
                for name in names
            ]
            parts.append(_figure(lines(series, "s of the run", f"TTFT {said}, s", events), f"{said}, first seed"))
        parts.extend(_balancers(load, name, events) for name in names if strategies[name]["balancers"])
    return "".join(parts)


def _balancers(load: dict[str, Any], name: str, events: Sequence[float]) -> str:
    """Hits by balancer: how long one that was restarted knows less than its sisters."""
    each = load["strategies"][name]["balancers"]
    series = [
        Series(f"balancer {index}", [(window[0], window[4]) for window in windows], colour(index))
        for index, windows in enumerate(each)
    ]
    return _figure(lines(series, "s of the run", "hit share", events), f"{name}: hits by balancer, first seed")


def _table(load: dict[str, Any], results: dict[str, Any]) -> str:
    rows = sorted(load["strategies"].items(), key=lambda item: float(item[1]["figures"]["ttft_mean"]["mean"]))
    head = "".join(f"<th>{escape(heading)}</th>" for heading, _, _ in COLUMNS)
    body = "".join(
        f"<tr{' class=ours' if _ours(results, name) else ''}><td>{escape(name)}</td>"
        + "".join(f"<td>{escape(written(found['figures'][figure], write))}</td>" for _, figure, write in COLUMNS)
        + "</tr>"
        for name, found in rows
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{body}</table></div>'


def _sources(results: dict[str, Any]) -> str:
    peers = [(name, each) for name, each in results["strategies"].items() if not each["ours"]]
    if not peers:
        return ""
    items = "".join(
        f"<li><b>{escape(name)}</b>: {escape(each['source'])}; {escape(each['parameters'])}</li>"
        for name, each in peers
    )
    return f'<h2>Where the policies of peers were read</h2><ul class="small">{items}</ul>'


def _series(names: Sequence[str], name: str, points: Sequence[tuple[float, float]], results: dict[str, Any]) -> Series:
    return Series(name, points, colour(names.index(name)), _ours(results, name) and name == names[0])


def _mean(load: dict[str, Any], name: str, figure: str) -> float:
    return float(load["strategies"][name]["figures"][figure]["mean"])


def _ours(results: dict[str, Any], name: str) -> bool:
    return bool(results["strategies"][name]["ours"])


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption class=small>{escape(caption)}</figcaption></figure>" if drawing else ""
