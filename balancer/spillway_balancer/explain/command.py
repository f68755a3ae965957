"""`spillway explain`: what becomes of one request, said in lines or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from ..core.account import Served
from .asking import from_file, header
from .document import Unusable, read
from .given import State
from .report import lines
from .world import Policies, World, slips

SERVED: Final = 0
REFUSED: Final = 1


def run_explain(
    *,
    request: Path,
    file: Sequence[Path],
    gateway: str,
    secrets: Path | None,
    prices: Path | None = None,
    headers: Sequence[str],
    path: str,
    state: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """The exit code: 0 where the request would be served, 1 where the client would be told an error. Raises Unusable
    for what cannot be explained."""
    assumed = None if state is None else read(state, State)
    policies = Policies(file, gateway, secrets, None if assumed is None else assumed.value, prices)
    if assumed is not None and (found := list(slips(assumed, policies.snapshot))):
        raise Unusable(*found)
    world = World(policies, None if assumed is None else assumed.value, seed)
    account = world.ask(from_file(request, [header(each) for each in headers], path))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(account), indent=2).decode() + "\n")
    else:
        console = Console(highlight=False, soft_wrap=True)
        for note in policies.notes:
            Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"note: {note}"))
        for line in lines(account):
            console.print(Text(line.text, line.style))
    return SERVED if isinstance(account.outcome, Served) else REFUSED
