"""What balancers see beside their own requests: engines' gauges, read by each, by one for all, or by nobody.

A gateway reads the metrics of its endpoints itself. A sidecar does not, or an engine would be asked by hundreds: it has
its own requests, and what a gateway has read, as late as that comes through the operator's stream.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

View: TypeAlias = Literal["own", "scraped", "shared"]
DELAY: Final = 1.5
"""Seconds that shared metrics are on their way, unless told."""


class Sight(NamedTuple):
    view: View = "scraped"
    delay: float = 0.0
    """Seconds from the reading until all know of it, where it is shared."""

    def __str__(self) -> str:
        return f"shared:{self.delay:g}" if self.view == "shared" else self.view


SCRAPING: Final = Sight()


class BadSight(ValueError):
    """No view; the text says how one is written."""


def parse(text: str) -> Sight:
    """From the command line. BadSight when it is not one."""
    view, colon, seconds = text.strip().partition(":")
    if not colon and view == "own":
        return Sight("own")
    if not colon and view == "scraped":
        return SCRAPING
    if view == "shared":
        try:
            delay = float(seconds) if colon else DELAY
        except ValueError:
            delay = -1.0
        if 0.0 <= delay <= 3600.0:
            return Sight("shared", delay)
    raise BadSight(
        f"--view {text!r}: write own, scraped, shared or shared:SECONDS, such as shared:{DELAY:g}, which are the "
        "seconds until all know what one has read"
    )
