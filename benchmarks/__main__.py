"""`python -m benchmarks [NAME…]`: run the scenarios and print their tables."""

from __future__ import annotations

import platform
import sys
import sysconfig

from rich.console import Console
from rich.table import Table as View

from .dispatch import dispatch
from .scenarios import SCENARIOS as OVER_SOCKETS

SCENARIOS = {"dispatch": dispatch, **OVER_SOCKETS}


def main() -> None:
    console = Console(width=118)
    names = sys.argv[1:] or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    optimised = "with" if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else "without"
    console.print(f"CPython {platform.python_version()}, built {optimised} profile-guided optimisation")
    for name in names:
        title, head, rows = SCENARIOS[name]()
        view = View(*head, title=title, title_justify="left")
        for row in rows:
            view.add_row(*row)
        console.print(view)


main()
