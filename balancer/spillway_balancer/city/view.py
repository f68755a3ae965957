"""What is seen while the load runs: a live table in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from .figures import EndpointFigures, Window
from .words import UNKNOWN, count, milliseconds, percent, rate

STATE_STYLES = {"Ready": "green", "HalfOpen": "yellow", "Ejected": "red", "Unhealthy": "red"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What the view shows beside the figures of the balancer."""

    title: str
    pool: str  # shown first: the people's requests go there before they go elsewhere
    elapsed: float
    seconds: float
    open_chats: int
    errors: int
    crowd: bool


def live(scene: Scene, window: Window) -> RenderableType:
    """The table of endpoints and a line of totals; 80 columns are enough."""
    page = window.last
    table = Table(
        Column("endpoint", no_wrap=True, ratio=1),
        Column("state"),
        Column("requests", justify="right"),
        Column("in flight", justify="right"),
        Column("queued", justify="right"),
        Column("cache hits", justify="right"),
        Column("first token", justify="right", min_width=11),
        box=None,
        expand=True,
        padding=(0, 1),
        header_style="dim",
    )
    for each in sorted(page.endpoints, key=lambda each: each.pool != scene.pool) if page else ():
        table.add_row(*_row(each, window))
    # The empty last line is where the terminal writes ^C; at the end of a full line it would shift the picture.
    return Group(_head(scene), Text(), table, Text(), _totals(scene, window), _note(scene), Text())


def line(scene: Scene, window: Window) -> str:
    """The same in one line without control codes."""
    page = window.last
    parts = (
        f"{count(page.requests if page else 0)} requests",
        f"{rate(window.requests_per_second())} a second",
        f"cache hits {percent(page.hit_share if page else None)}",
        f"first token {milliseconds(window.first_token())}",
        f"spilled {percent(page.spilled_share if page else None)}",
        f"{scene.errors} errors",
    )
    return f"{scene.title} after {scene.elapsed:.0f} s: {', '.join(parts)}"


def _head(scene: Scene) -> RenderableType:
    grid = Table.grid(Column(no_wrap=True), Column(no_wrap=True, justify="right", ratio=1), expand=True, padding=(0, 1))
    clock = f"{min(scene.elapsed, scene.seconds):.0f} of {scene.seconds:.0f} s"
    bar = ProgressBar(total=scene.seconds, completed=min(scene.elapsed, scene.seconds), width=24)
    right = Table.grid(padding=(0, 1))
    right.add_row(bar, Text(clock, style="dim"))
    grid.add_row(Text(f" {scene.title}", style="bold"), right)
    return grid


def _row(each: EndpointFigures, window: Window) -> tuple[RenderableType, ...]:
    return (
        Text.assemble((f"{each.pool}/", "dim"), each.name),
        Text(each.state, style=STATE_STYLES.get(each.state, "")),
        count(each.attempts),
        count(each.in_flight),
        count(each.waiting),
        percent(each.hit_share),
        milliseconds(window.first_token(each.pool, each.name)),
    )


def _totals(scene: Scene, window: Window) -> Text:
    page = window.last
    errors = Text(f"{scene.errors} errors", style="bold red" if scene.errors else "")
    spilled = percent(page.spilled_share) if page else UNKNOWN
    parts: list[Text] = [
        Text(f" {rate(window.requests_per_second())} requests/s"),
        Text.assemble("spilled ", (spilled, "bold")),
        errors,
        Text(f"{scene.open_chats} chats open"),
    ]
    return Text("   ").join(parts)


def _note(scene: Scene) -> Text:
    """One line that is always there, so that the table does not jump."""
    if scene.crowd:
        return Text(" a crowd asks at once: what the engines cannot take spills over to the provider", "yellow")
    return Text(" first token: the mean of the last seconds, as the balancer saw it", "dim")
