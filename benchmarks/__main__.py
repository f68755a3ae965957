"""`python -m benchmarks [NAME…]`: run the scenarios and print their tables.

`live`, `cluster`, `providers`, `sidecars` and `footprint` take minutes and are run only when they are named.
"""

from __future__ import annotations

import argparse
import platform
import sysconfig
from functools import partial

from rich.console import Console
from rich.table import Table as View

from spillway_balancer.core.strategies import STRATEGIES

from . import live
from .burst import burst
from .dispatch import dispatch
from .footprint import footprint
from .providers import providers
from .scenarios import SCENARIOS as OVER_SOCKETS
from .sidecars import sidecars
from .snapshots import Table, snapshots
from .translation import translation
from .validation import validation

SCENARIOS = {
    "burst": burst, "dispatch": dispatch, "snapshots": snapshots, "validation": validation, "translation": translation,
    **OVER_SOCKETS,
}  # fmt: skip
NAMED = ("live", "cluster", "providers", "sidecars", "footprint")


def _cluster() -> Table:
    from .cluster import cluster  # it needs what the tests with a real API server need

    return cluster()


def main() -> None:
    console = Console(width=118)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*SCENARIOS, *NAMED])}")
    only = parser.add_argument_group("live")
    only.add_argument("--seconds", type=float, default=live.SECONDS, help="of load, for each strategy")
    only.add_argument("--requests", type=int, help="about as many and no more, for each strategy")
    only.add_argument("--strategies", default=",".join(live.STRATEGIES), help="names with commas")
    asked = parser.parse_args()
    strategies = tuple(asked.strategies.split(","))
    if strangers := set(strategies) - set(STRATEGIES):
        parser.error(f"no strategy {', '.join(sorted(strangers))}; there are {', '.join(STRATEGIES)}")
    told = partial(live.live, asked.seconds, asked.requests, strategies)
    named = {"live": told, "cluster": _cluster, "providers": providers, "sidecars": sidecars, "footprint": footprint}
    scenarios = SCENARIOS | named
    names = asked.names or list(SCENARIOS)
    unknown = [name for name in names if name not in scenarios]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(scenarios)}")
    optimised = "with" if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else "without"
    console.print(f"CPython {platform.python_version()}, built {optimised} profile-guided optimisation")
    for name in names:
        title, head, rows = scenarios[name]()
        view = View(*head, title=title, title_justify="left")
        for row in rows:
            view.add_row(*row)
        console.print(view)


main()
