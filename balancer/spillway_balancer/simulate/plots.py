"""Plots as inline SVG: enough for lines and bars, small, and readable without anything being loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 40
COLOURS: Final = (
    *("#0b7a75", "#d1495b", "#edae49", "#3d5a80", "#8e6c8a", "#66a182", "#b5651d", "#2e4057"),
    *("#9bc53d", "#c3423f", "#5bc0eb", "#7d4e57", "#404e4d", "#e07a5f", "#81b29a", "#6d597a"),
)


class Series(NamedTuple):
    """One line."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    strong: bool = False
    """Drawn thicker: what the reader looks for."""


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def lines(series: Sequence[Series], across: str, up: str, marks: Sequence[float] = ()) -> str:
    """A line for each series over a common x; the y axis is logarithmic where values differ by more than 30 times.

    `marks` are x values with a dashed line, such as that of an event.
    """
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points if y > 0]
    if not xs or not ys:
        return ""
    to_x = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    log = max(ys) > 30 * min(ys)
    low, high = (log10(min(ys)), log10(max(ys))) if log else (0.0, max(ys) * 1.05)
    to_y = _scale(low, high, HEIGHT - BOTTOM, TOP)

    def y_of(value: float) -> float:
        return to_y(log10(max(value, min(ys))) if log else value)

    parts = [_frame(across, up)]
    ticks = _decades(low, high) if log else _ticks(low, high)
    parts.extend(_grid(y_of(tick), f"{tick:.3g}") for tick in (ticks if len(ticks) > 1 else [min(ys), max(ys)]))
    parts.extend(
        f'<text x="{to_x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:.3g}</text>'
        for tick in _ticks(min(xs), max(xs))
    )
    parts.extend(
        f'<line x1="{to_x(mark):.1f}" x2="{to_x(mark):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="mark"/>'
        for mark in marks
        if min(xs) <= mark <= max(xs)
    )
    for each in series:
        points = " ".join(f"{to_x(x):.1f},{y_of(y):.1f}" for x, y in each.points)
        width = 3 if each.strong else 1.4
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{each.colour}" stroke-width="{width}">'
            f"<title>{escape(each.name)}</title></polyline>"
        )
    return _svg(HEIGHT, parts) + legend(series)


def bars(values: Sequence[tuple[str, float, float | None, bool]], write: Callable[[float], str]) -> str:
    """Horizontal bars: name, value, half the width of the confidence interval, whether it is one of ours."""
    most = max((value + (margin or 0.0) for _, value, margin, _ in values), default=0.0)
    if most <= 0:
        return ""
    row, left = 22, 200
    to_x = _scale(0.0, most, left, WIDTH - 70)
    parts = []
    for index, (name, value, margin, ours) in enumerate(values):
        y = index * row + 4
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        fill = COLOURS[0] if ours else "#a9b4bd"
        parts.append(f'<rect x="{left}" y="{y}" width="{to_x(value) - left:.1f}" height="15" fill="{fill}"/>')
        end = to_x(value + (margin or 0.0))
        if margin:
            start = to_x(max(0.0, value - margin))
            parts.append(f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y + 7.5}" y2="{y + 7.5}" class="error"/>')
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 12}">{write(value)}</text>')
    return _svg(len(values) * row + 8, parts)


def legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<span><i style="background:{each.colour}"></i>{"<b>" if each.strong else ""}{escape(each.name)}'
        f"{'</b>' if each.strong else ''}</span>"
        for each in series
    )
    return f'<p class="legend">{items}</p>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    width = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / width


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers."""
    step = 10.0 ** floor(log10((high - low) or 1.0))
    for finer in (1.0, 0.5, 0.25, 0.2, 0.1):
        if (high - low) / (step * finer) >= 4:
            step *= finer
            break
    return [step * number for number in range(ceil(low / step), floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [step * 10.0**power for power in range(floor(low), ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if low <= log10(tick) <= high]


def _frame(across: str, up: str) -> str:
    return (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>'
        f'<text x="14" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2})">{escape(up)}</text>'
    )


def _grid(y: float, text: str) -> str:
    return (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
