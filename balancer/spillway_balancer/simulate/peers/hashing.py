"""Policies that hash a key onto a ring, each with its own ring."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar

from uhashring import HashRing
from xxhash import xxh64_intdigest

from ..request import Request
from .base import Peer, View
from .ties import first_least_busy


def hash_text(text: str, seed: int = 0) -> int:
    return xxh64_intdigest(text.encode(), seed)


class Ring:
    """Points of endpoints on a circle of 64-bit hashes. Never core/ring.py: a peer is measured with its own points."""

    __slots__ = ("_orders", "_owners", "_points")

    def __init__(self, names: Iterable[tuple[int, str]], points: int, separator: str = "", seed: int = 0) -> None:
        """`names`: endpoint and its name. A point is the hash of name, separator and the point's number."""
        ring = sorted(
            (hash_text(f"{name}{separator}{number}", seed), endpoint)
            for endpoint, name in names
            for number in range(points)
        )
        self._points = [point for point, _ in ring]
        self._owners = [endpoint for _, endpoint in ring]
        self._orders: dict[int, tuple[int, ...]] = {}

    def order(self, key: int) -> tuple[int, ...]:
        """All endpoints in the order in which they are met clockwise from the first point at or after the key."""
        place = bisect_left(self._points, key)
        if place == len(self._points):
            place = 0
        known = self._orders.get(place)
        if known is None:
            known = tuple(dict.fromkeys(self._owners[place:] + self._owners[:place]))
            self._orders[place] = known
        return known


def members(views: Iterable[View]) -> list[tuple[int, str]]:
    return [(view.index, view.name) for view in views if view.alive]


class Ringed(Peer):
    """A ring that is made anew when an endpoint comes or goes."""

    points: ClassVar[int]
    separator: ClassVar[str] = ""

    def begin(self, views: Sequence[View], dice: random.Random, block_tokens: int) -> None:
        self.dice = dice
        self.all = {view.index: view for view in views}
        self._build()

    def _build(self) -> None:
        self.ring = Ring(members(self.all.values()), self.points, self.separator)

    def removed(self, view: View) -> None:
        self.all.pop(view.index, None)
        self._build()

    def added(self, view: View) -> None:
        self.all[view.index] = view
        self._build()


class KubeAI(Ringed):
    """Consistent hashing with bounded loads: on from the key's home to the first endpoint that is not over the bound.

    The bound is the load factor times what the mean would be with this request. A request in an empty group goes
    home; one for which everybody is over the bound too.
    """

    name: ClassVar[str] = "kubeai-chwbl"
    source: ClassVar[str] = (
        "substratusai/kubeai at 2f32ef49, internal/loadbalancer/balance_chwbl.go; defaults in api/k8s/v1/model_types.go"
    )
    parameters: ClassVar[str] = (
        "PrefixHash: meanLoadFactor 125, replication 256, prefixCharLength 100 (of the first user message); "
        "xxHash64 of name and number, no separator"
    )
    points: ClassVar[int] = 256
    factor: ClassVar[float] = 1.25

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        order = self.ring.order(hash_text(str(request.user_key)))
        total = 0
        for view in views:
            total += view.in_flight
        bound = (total + 1) / len(views) * self.factor
        for endpoint in order:
            view = self.all[endpoint]
            if view.alive and (not total or view.in_flight <= bound):
                return view
        return views[0]  # unreachable: somebody is at or below the mean, and the factor is above 1


class PrefixHash(Ringed):
    """The hash of the first 256 tokens has a home; over 125 % of the mean, the least loaded that is below takes it."""

    name: ClassVar[str] = "sglang-prefix-hash"
    source: ClassVar[str] = (
        "sgl-project/sglang, sgl-model-gateway/src/policies/prefix_hash.rs (stored at 065f331f); "
        "ring in src/core/worker_registry.rs"
    )
    parameters: ClassVar[str] = (
        "prefix_token_count 256, load_factor 1.25, 150 virtual nodes a worker (xxHash64 here, BLAKE3 there)"
    )
    points: ClassVar[int] = 150
    separator: ClassVar[str] = "#"
    factor: ClassVar[float] = 1.25

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        home = next(
            self.all[one] for one in self.ring.order(hash_text(f"{request.system_key:016x}")) if self.all[one].alive
        )
        total = 0
        for view in views:
            total += view.in_flight
        bound = (total + 1) / len(views) * self.factor
        if not total or home.in_flight <= bound:
            return home
        least = first_least_busy(views)
        return least if least.in_flight <= bound else home


class SessionHash(Ringed):
    """A ring on the session, without a bound. A request without a session goes where the last minute had the fewest."""

    name: ClassVar[str] = "session-hash"
    source: ClassVar[str] = (
        "vllm-project/production-stack at a6c01db0, src/vllm_router/routers/routing_logic.py (SessionRouter)"
    )
    parameters: ClassVar[str] = "uhashring.HashRing() as it comes (MD5, 160 virtual nodes); request-stats-window 60 s"
    window: ClassVar[float] = 60.0

    def begin(self, views: Sequence[View], dice: random.Random, block_tokens: int) -> None:
        self.sent: dict[int, deque[float]] = {}
        super().begin(views, dice, block_tokens)

    def _build(self) -> None:
        self.homes = HashRing(nodes=[name for _, name in members(self.all.values())])
        self.names = {view.name: view for view in self.all.values()}

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        if request.session is not None:
            name: str = self.homes.get_node(str(request.session))
            home = self.names[name]
            return home if home.alive else views[0]
        fewest = views[0]
        least: int | None = None
        for view in views:
            rate = self._rate(view.index, now)
            if least is None or rate < least:
                fewest, least = view, rate
        return fewest

    def _rate(self, endpoint: int, now: float) -> int:
        """Requests in the window."""
        sent = self.sent.get(endpoint)
        if sent is None:
            return 0
        while sent and sent[0] < now - self.window:
            sent.popleft()
        return len(sent)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        sent = self.sent.setdefault(view.index, deque())
        sent.append(now)
        while sent[0] < now - self.window:
            sent.popleft()
