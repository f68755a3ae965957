"""What a peer's policy is given to decide with, and what it must answer.

A policy sees what its balancer can see: its own books, exact, and the engines' gauges, as old as the last scrape.
Only one that is told every cache event by the engines may ask `View.truth`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from ...engine.profiles import Profile
from ..request import Request


class View:
    """What one balancer knows of one endpoint. The world keeps it; policies only read it."""

    __slots__ = (
        "alive",
        "context_tokens",
        "decoding",
        "in_flight",
        "index",
        "kv_blocks",
        "kv_usage",
        "name",
        "pending",
        "pending_tokens",
        "profile",
        "running",
        "truth",
        "waiting",
    )

    def __init__(self, index: int, name: str, profile: Profile, truth: Callable[[Request], int]) -> None:
        self.index = index  # of the endpoint in the world; never used again after it died
        self.name = name
        self.profile = profile
        self.kv_blocks = profile.kv_blocks  # the engine's cache, in blocks of the workload's size
        self.truth = truth  # leading blocks of a prompt that are in the engine's cache at this moment
        self.alive = True

        self.in_flight = 0  # own requests there
        self.pending = 0  # of those, without a first token
        self.pending_tokens = 0.0  # prompt tokens of the pending ones, less what `estimate` said is cached
        self.context_tokens = 0  # prompt tokens of all own requests there
        self.decoding = 0  # own requests past their first token

        self.waiting = 0  # requests queued in the engine, of anybody, at the last scrape
        self.running = 0  # requests that the engine computed then
        self.kv_usage = 0.0  # used part of the KV cache then, 0 to 1

    def __repr__(self) -> str:
        return f"<view of {self.name}: {self.in_flight} in flight>"


class Peer:
    """One policy in one balancer. Subclasses give the class variables and `choose`; the rest defaults to nothing.

    Of a request the calls come in this order: `choose`, `estimate`, `dispatched`, `first_token`, `finished`; the
    view's counts are up to date in each: `dispatched` sees the request counted, `finished` sees it gone. A request
    whose endpoint died gets `removed(view)` and no more calls for that attempt; it is chosen for anew.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    """Project, file, and version or commit that it was read from."""
    parameters: ClassVar[str]
    """The defaults that are used here, with their names there."""
    scrape_seconds: ClassVar[float] = 1.0
    """How often its balancer reads the engines' metrics."""

    def begin(self, views: Sequence[View], dice: random.Random, block_tokens: int) -> None:
        """Called once, before anything else. `block_tokens`: tokens that one hash of `Request.blocks` stands for."""

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        """One of `views`: those alive, at least one, in the order of their indices."""
        raise NotImplementedError

    def estimate(self, request: Request, view: View) -> float:
        """Prompt tokens believed cached at `view`, which was just chosen; asked before the request is counted."""
        return 0.0

    def dispatched(self, request: Request, view: View, now: float) -> None:
        """The request is on its way."""

    def first_token(self, request: Request, view: View, now: float) -> None:
        """Its prompt is computed."""

    def finished(self, request: Request, view: View, now: float) -> None:
        """Its answer has ended."""

    def scraped(self, now: float) -> None:
        """The gauges of all views are new."""

    def removed(self, view: View) -> None:
        """The endpoint is gone, with all that was on it."""

    def added(self, view: View) -> None:
        """A new endpoint with an empty cache; it is among the views from now on."""
