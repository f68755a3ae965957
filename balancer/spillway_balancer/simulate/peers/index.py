"""What peers believe of the engines' prefix caches: block -> bit set of endpoints, fed by their own decisions.

A prompt's blocks are chained hashes, so one walk along them finds every endpoint's match. How the belief ages is
each peer's own: an LRU per endpoint, one LRU for all, a time to live, or never.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice

from ..request import Request
from .base import Peer, View


def leading(holders: dict[int, int], blocks: Sequence[int], limit: int | None = None) -> dict[int, int]:
    """Endpoint -> how many leading blocks it holds; only endpoints that hold the first one. `limit`: blocks to read."""
    found: dict[int, int] = {}
    get = holders.get
    still = -1  # the endpoints that held every block so far; at first all
    depth = 0
    for block in blocks if limit is None else islice(blocks, limit):
        held = still & get(block, 0)
        if held != still:
            if depth:
                _note(found, still & ~held, depth)
            if not held:
                return found
            still = held
        depth += 1
    if depth:
        _note(found, still, depth)
    return found


def _note(found: dict[int, int], endpoints: int, depth: int) -> None:
    while endpoints:
        lowest = endpoints & -endpoints
        found[lowest.bit_length() - 1] = depth
        endpoints ^= lowest


def forget(holders: dict[int, int], block: int, bit: int) -> None:
    """The endpoint with that bit no longer holds the block."""
    left = holders[block] & ~bit
    if left:
        holders[block] = left
    else:
        del holders[block]


class LruIndex:
    """An LRU of blocks per endpoint.

    With `ends_first` a prompt loses its last blocks first, as the engines and radix trees do; without it the first,
    as an LRU does that is filled in the prompt's order.
    """

    __slots__ = ("_orders", "ends_first", "holders")

    def __init__(self, ends_first: bool = True) -> None:
        self.ends_first = ends_first
        self.holders: dict[int, int] = {}
        self._orders: dict[int, OrderedDict[int, None]] = {}

    def record(self, blocks: Sequence[int], endpoint: int, capacity: int, limit: int | None = None) -> None:
        """The endpoint will have these blocks (the first `limit` of them); its oldest go beyond `capacity` blocks."""
        order = self._orders.get(endpoint)
        if order is None:
            order = self._orders[endpoint] = OrderedDict()
        bit = 1 << endpoint
        holders = self.holders
        if limit is not None:
            blocks = blocks[:limit]
        for block in reversed(blocks) if self.ends_first else blocks:
            if block in order:
                order.move_to_end(block)
            else:
                order[block] = None
                holders[block] = holders.get(block, 0) | bit
        while len(order) > capacity:
            forget(holders, order.popitem(last=False)[0], bit)

    def drop(self, endpoint: int) -> None:
        bit = 1 << endpoint
        for block in self._orders.pop(endpoint, ()):
            forget(self.holders, block, bit)


class SharedLruIndex:
    """One LRU of blocks for all endpoints together, with a time to live since the last dispatch."""

    __slots__ = ("_order", "capacity", "holders", "seconds")

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.holders: dict[int, int] = {}
        self._order: OrderedDict[int, float] = OrderedDict()  # block -> when it was last dispatched, oldest first

    def record(self, blocks: Sequence[int], endpoint: int, now: float) -> None:
        bit = 1 << endpoint
        holders, order = self.holders, self._order
        for block in blocks:
            holders[block] = holders.get(block, 0) | bit
            order[block] = now
            order.move_to_end(block)
        while len(order) > self.capacity:
            holders.pop(order.popitem(last=False)[0], None)

    def expire(self, now: float) -> None:
        order = self._order
        while order:
            block = next(iter(order))
            if now - order[block] <= self.seconds:
                return
            del order[block]
            self.holders.pop(block, None)

    def drop(self, endpoint: int) -> None:
        bit = 1 << endpoint
        for block in [block for block, held in self.holders.items() if held & bit]:
            forget(self.holders, block, bit)


class TimedIndex:
    """Blocks that are forgotten a fixed time after their last dispatch to an endpoint, however many they are."""

    __slots__ = ("_due", "_until", "holders", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.holders: dict[int, int] = {}
        self._until: dict[int, dict[int, float]] = {}  # endpoint -> block -> end of its life
        self._due: deque[tuple[float, int, Sequence[int]]] = deque()

    def record(self, blocks: Sequence[int], endpoint: int, now: float) -> None:
        bit = 1 << endpoint
        until = self._until.setdefault(endpoint, {})
        end = now + self.seconds
        for block in blocks:
            if block not in until:
                self.holders[block] = self.holders.get(block, 0) | bit
            until[block] = end
        self._due.append((end, endpoint, blocks))

    def expire(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            end, endpoint, blocks = due.popleft()
            until = self._until.get(endpoint)
            if until is None:
                continue
            for block in blocks:
                if until.get(block) == end:
                    del until[block]
                    forget(self.holders, block, 1 << endpoint)

    def drop(self, endpoint: int) -> None:
        for block in self._until.pop(endpoint, ()):
            forget(self.holders, block, 1 << endpoint)


class ActiveBlocks:
    """The distinct blocks of the requests in flight on each endpoint."""

    __slots__ = ("_counts", "holders")

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self._counts: dict[int, dict[int, int]] = {}  # endpoint -> block -> requests that use it

    def size(self, endpoint: int) -> int:
        return len(self._counts.get(endpoint, ()))

    def add(self, blocks: Sequence[int], endpoint: int) -> None:
        bit = 1 << endpoint
        counts = self._counts.setdefault(endpoint, {})
        for block in blocks:
            users = counts.get(block)
            if users is None:
                counts[block] = 1
                self.holders[block] = self.holders.get(block, 0) | bit
            else:
                counts[block] = users + 1

    def remove(self, blocks: Sequence[int], endpoint: int) -> None:
        bit = 1 << endpoint
        counts = self._counts.get(endpoint, {})
        for block in blocks:
            users = counts.get(block)
            if users is None:
                continue
            if users > 1:
                counts[block] = users - 1
            else:
                del counts[block]
                forget(self.holders, block, bit)

    def drop(self, endpoint: int) -> None:
        for block in self._counts.pop(endpoint, ()):
            forget(self.holders, block, 1 << endpoint)


class Believer(Peer):
    """A peer that decides by what it believes cached: one look for `choose`, kept for `estimate`."""

    def begin(self, views: Sequence[View], dice: random.Random, block_tokens: int) -> None:
        self.dice = dice
        self.block_tokens = block_tokens
        self._asked: Request | None = None
        self._answer: dict[int, int] = {}
        self.prepare(views)

    def prepare(self, views: Sequence[View]) -> None:
        """For subclasses: what `begin` has to make."""

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        """Endpoint -> leading blocks of the request believed cached there."""
        raise NotImplementedError

    def matches(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        self._answer = self.look(request, views, now)
        self._asked = request
        return self._answer

    def cached(self, request: Request, blocks: int) -> int:
        """Tokens of that many leading blocks; the last prompt token is computed in any case."""
        return min(blocks * self.block_tokens, request.prompt_tokens - 1)

    def estimate(self, request: Request, view: View) -> float:
        found = self._answer if request is self._asked else self.look(request, (view,), request.dispatched_at)
        return self.cached(request, found.get(view.index, 0))


class Indexed(Believer):
    """A believer with an LRU per endpoint as large as the engine's cache, which most peers keep."""

    def prepare(self, views: Sequence[View]) -> None:
        self.index = LruIndex()

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        return leading(self.index.holders, request.blocks)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        self.index.record(request.blocks, view.index, view.kv_blocks)

    def removed(self, view: View) -> None:
        self.index.drop(view.index)


class Informed(Believer):
    """A believer that the engines tell every cache event, at once and without loss."""

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        return {view.index: view.truth(request) for view in views}
