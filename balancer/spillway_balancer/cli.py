"""The `spillway` command. `run` is in every Pod that has a sidecar, so it loads none of what makes up the others."""

from __future__ import annotations

import sys


def main() -> None:
    if sys.argv[1:2] == ["run"]:
        from .running import run

        run(sys.argv[2:])
    else:
        from .commands import app

        app()


if __name__ == "__main__":
    main()
