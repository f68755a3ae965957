"""What the endpoints are asked to do: recorded traces played back, and generators for what no public trace shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from .generators import documents, tenants
from .plan import BLOCK, Arrivals, Plan
from .playback import play, tool_agent
from .sessions import AGENT, CHAT, sessions
from .traces import Trace


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of traffic, made anew for each run from a rate and a seed."""

    name: str
    about: str
    unit: str
    """Of the rate."""
    block_tokens: int
    objective: float
    """Seconds to the first token that 90 % of the requests should meet, unless the user says otherwise."""
    profile: str
    """What serves it, unless the user says otherwise."""
    arrivals: Callable[[Plan], Arrivals]


H100: Final = "h100-llama3-8b"
L4: Final = "l4-llama3-8b"
SPEED: Final = "times the recorded speed"

GENERATORS: Final = {
    workload.name: workload
    for workload in (
        Workload(
            "tenants",
            "customers of one service, each with its own system prompt; popularity by Zipf",
            "requests/s",
            BLOCK,
            1.0,
            H100,
            tenants,
        ),
        Workload(
            "agent-sessions",
            "long growing sessions of agents with tools",
            "sessions/s",
            BLOCK,
            2.0,
            H100,
            sessions(AGENT),
        ),
        Workload("chat", "people who chat: short turns, long pauses", "sessions/s", BLOCK, 1.0, L4, sessions(CHAT)),
        Workload(
            "documents", "several questions on each of many long documents", "requests/s", BLOCK, 2.0, H100, documents
        ),
    )
}
"""Workloads that need no file."""

FROM_TRACE: Final = {
    "conversation": "a trace as it was recorded; needs --trace",
    "tool-agent": "conversations of a trace mixed with two classes of agents; needs --trace",
}
"""Workloads that are made of a trace."""

NAMES: Final = (*FROM_TRACE, *GENERATORS)


class NoWorkload(ValueError):
    """What was asked for cannot be made; the text says what can."""


def workload(name: str | None, trace: Trace | None) -> Workload:
    """The workload of that name; of the trace alone when there is no name. NoWorkload when that does not go."""
    if name is not None and name not in NAMES:
        raise NoWorkload(f"no workload {name!r}; there are: {', '.join(NAMES)}")
    if name is None and trace is None:
        raise NoWorkload(f"say what to simulate: --trace FILE, or --workload with one of {', '.join(GENERATORS)}")
    if name in GENERATORS:
        if trace is not None:
            raise NoWorkload(f"workload {name} is generated and reads no trace; leave out --trace or --workload")
        return GENERATORS[name]
    if trace is None:
        raise NoWorkload(
            f"workload {name} is made of a trace: give one with --trace, such as conversation_trace.jsonl of "
            "github.com/kvcache-ai/Mooncake (FAST25-release/traces)"
        )
    source = tool_agent if name == "tool-agent" else play
    title = name if name == "tool-agent" else trace.name
    return Workload(
        title, FROM_TRACE[name or "conversation"], SPEED, trace.block_tokens, 2.0, H100, partial(source, trace)
    )
