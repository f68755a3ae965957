"""What goes wrong in a run, or is set right, and when: `fail:3@60`, `join@120`, `restart-balancer:0@60`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from ..engine.profiles import PROFILES

DETECT: Final = 1.0
"""Seconds until the balancers know that an endpoint is dead, and send its requests again."""

FaultKind = Literal["fail", "join", "restart-balancer"]
_EVENT: Final = re.compile(r"(?P<kind>fail|join|restart-balancer)(:(?P<what>[\w.-]+))?@(?P<at>\d+(\.\d+)?)s?")


class Fault(NamedTuple):
    """One event. `target` is the index of an endpoint or a balancer, `profile` the engine of one that joins."""

    at: float
    kind: FaultKind
    target: int = 0
    profile: str | None = None

    def __str__(self) -> str:
        what = self.profile if self.kind == "join" else str(self.target)
        return f"{self.kind}{':' + what if what else ''}@{self.at:g}"


class BadFault(ValueError):
    """An event that is no event; the text says how one is written."""


def parse(text: str) -> Fault:
    """From the command line. BadFault when it is not one."""
    found = _EVENT.fullmatch(text.strip())
    if found is None:
        raise BadFault(
            f"--event {text!r}: write fail:ENDPOINT@SECONDS, join@SECONDS, join:PROFILE@SECONDS "
            "or restart-balancer:BALANCER@SECONDS, such as fail:3@60"
        )
    kind, what, at = found["kind"], found["what"], float(found["at"])
    if kind == "join":
        if what is not None and what not in PROFILES:
            raise BadFault(f"--event {text!r}: no profile {what!r}; there are: {', '.join(PROFILES)}")
        return Fault(at, "join", profile=what)
    if what is None or not what.isdigit():
        raise BadFault(f"--event {text!r}: say which one, counted from 0, such as {kind}:0@{at:g}")
    return Fault(at, "fail" if kind == "fail" else "restart-balancer", int(what))


def check(faults: Sequence[Fault], endpoints: int, balancers: int) -> None:
    """BadFault when an event is about something that is not there at its time."""
    dead: set[int] = set()
    for fault in sorted(faults):
        if fault.kind == "join":
            endpoints += 1
        elif fault.kind == "fail":
            if fault.target >= endpoints:
                raise BadFault(f"--event {fault}: there are endpoints 0 to {endpoints - 1} at that time")
            if fault.target in dead:
                raise BadFault(f"--event {fault}: that endpoint is dead already")
            dead.add(fault.target)
            if len(dead) == endpoints:
                raise BadFault(f"--event {fault}: no endpoint is left")
        elif fault.target >= balancers:
            raise BadFault(f"--event {fault}: there are balancers 0 to {balancers - 1}")
