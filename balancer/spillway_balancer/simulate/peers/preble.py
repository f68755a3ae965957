"""Preble's global scheduler: exploit a cached prefix that outweighs the rest of the prompt, else explore."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import View
from .estimates import prefill_seconds
from .index import Believer


class Load:
    """What one prefix has cost within the window; it moves to the upper half when its node is split."""

    __slots__ = ("active", "cost", "cut", "hits", "node", "prompts", "requests")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.requests = 0
        self.hits = 0  # tokens
        self.prompts = 0  # tokens
        self.active: dict[int, int] = {}  # endpoint -> requests in flight
        self.cost = 0.0  # s, as it stands in the books of each of the node's endpoints
        self.cut = 0  # bit set of those endpoints


class Node:
    """A run of blocks of the radix tree, and the endpoints that it is allocated to."""

    __slots__ = ("blocks", "children", "context", "endpoints", "load", "parent", "tail")  # no parent: no root is kept

    def __init__(self, parent: Node | None, blocks: Sequence[int], context: int, tail: int) -> None:
        self.parent = parent
        self.blocks = blocks
        self.context = context  # tokens before it
        self.tail = tail  # tokens beyond its whole blocks
        self.endpoints = 0  # bit set
        self.children: list[Node] = []
        self.load: Load | None = None


class Preble(Believer):
    """E2: a request whose known prefix is longer than its rest goes to one of the endpoints that the prefix is
    allocated to, any other to any; of several the one with the least cost. Cost of an endpoint: the prefill seconds
    that its prefixes caused in the last three minutes, and the decode seconds of its requests in flight.

    Rebalancing, where it is on: while the dearest endpoint costs 1.5 times the cheapest, its cheapest prefixes are
    moved there with all that continues them; where it has only one, and that one's TTFT has doubled within the
    window, the prefix is given to both. It is on in the source and off here, because that is the better Preble: a
    short system prompt that all conversations share is the cheapest prefix, and all of them move with it.

    Simplified: blocks instead of tokens; the books are kept up to date instead of summed anew for every request;
    rebalancing is looked at once a second at most; a prompt that is wholly known counts as exploiting.
    The tree forgets nothing, as the source's does not.
    """

    name: ClassVar[str] = "preble"
    source: ClassVar[str] = (
        "WukLab/preble at 8e7906a3, preble/global_scheduler_with_time.py, global_lru_cache.py, "
        "ttft_overload_detector.py; Srivatsa et al., Preble, arXiv 2407.00023"
    )
    parameters: ClassVar[str] = (
        "window 3 min, enable_rebalancing off (on in the source), enable_eviction off, decoding length 45, "
        "time per output token: median of the last 200 answers, 0.15 s before; prefill time by the engine's own cost "
        "model"
    )
    window: ClassVar[float] = 180.0
    threshold: ClassVar[float] = 1.5
    decode_tokens: ClassVar[int] = 45
    rebalancing: ClassVar[bool] = False
    warm: ClassVar[int] = 50  # requests an endpoint before rebalancing

    def prepare(self, views: Sequence[View]) -> None:
        self.owner: dict[int, Node] = {}  # block -> its node
        self.prefill: dict[int, float] = {}  # endpoint -> s
        self.active: dict[int, int] = {}  # endpoint -> requests in flight
        self.token_times: dict[int, tuple[deque[float], list[float]]] = {}
        self.loads: dict[Load, None] = {}
        self.recent: deque[tuple[float, Load, int, int]] = deque()
        self.flights: dict[int, Load] = {}  # request -> its prefix
        self.ttfts: dict[tuple[Load, int], deque[tuple[float, float]]] = {}
        self.sent = 0
        self.looked = 0.0
        self.all = {view.index: view for view in views}

    # deciding

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        """Blocks of the tree's path that are allocated to each endpoint."""
        node, depth = self._find(request.blocks)
        found: dict[int, int] = {}
        while node is not None:
            for view in views:
                if view.index not in found and node.endpoints >> view.index & 1:
                    found[view.index] = depth
            depth = node.context // self.block_tokens
            node = node.parent
        return found

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        self._expire(now)
        self.matches(request, views, now)
        node, depth = self._find(request.blocks)
        known = depth * self.block_tokens
        allowed: Sequence[View] = views
        if node is not None and request.prompt_tokens - known < known:
            while node is not None and not node.endpoints:
                node = node.parent
            if node is not None:
                endpoints = node.endpoints
                allowed = [view for view in views if endpoints >> view.index & 1] or views
        return allowed[0] if len(allowed) == 1 else min(allowed, key=self._cost)

    def _find(self, blocks: Sequence[int]) -> tuple[Node | None, int]:
        """The node of the last known block, and how many are known. The tree is closed under prefixes."""
        owner = self.owner
        known = bisect_left(range(len(blocks)), True, key=lambda place: blocks[place] not in owner)
        return (owner[blocks[known - 1]], known) if known else (None, 0)

    def _cost(self, view: View) -> float:
        one = view.index
        return self.prefill.get(one, 0.0) + self.active.get(one, 0) * self.decode_tokens * self._token_time(one)

    def _token_time(self, endpoint: int) -> float:
        times = self.token_times.get(endpoint)
        return times[1][len(times[1]) // 2] if times else 0.15

    # the tree

    def _insert(self, blocks: Sequence[int], tail: int) -> tuple[Node | None, int]:
        """The prompt's last node, and how many blocks were known before."""
        node, known = self._find(blocks)
        if node is not None and node.blocks[-1] != blocks[known - 1]:
            node = self._split(node, known)
        if known == len(blocks):
            return node, known
        leaf = Node(node, blocks[known:], known * self.block_tokens, tail)
        if node is not None:
            node.children.append(leaf)
        for place in range(known, len(blocks)):
            self.owner[blocks[place]] = leaf
        return leaf, known

    def _split(self, lower: Node, at: int) -> Node:
        """Cuts the node's run `at` blocks from the prompt's beginning; returns the new upper half."""
        cut = at - lower.context // self.block_tokens
        upper = Node(lower.parent, lower.blocks[:cut], lower.context, 0)
        upper.endpoints = lower.endpoints
        upper.children = [lower]
        if lower.parent is not None:
            siblings = lower.parent.children
            siblings[siblings.index(lower)] = upper
        lower.parent = upper
        lower.blocks = lower.blocks[cut:]
        lower.context = at * self.block_tokens
        for block in upper.blocks:
            self.owner[block] = upper
        if lower.load is not None:
            if self._large(upper) and not self._large(lower):
                upper.load, lower.load = lower.load, None
                upper.load.node = upper
                self._book(upper)
            else:
                self._book(lower)
        return upper

    def _tokens(self, node: Node) -> int:
        return len(node.blocks) * self.block_tokens + node.tail

    def _large(self, node: Node) -> bool:
        return self._tokens(node) > node.context

    # the books

    def _book(self, node: Node) -> None:
        """Puts what the node's prefix costs now into its endpoints' books."""
        load = node.load
        if load is None:
            return
        self._spread(load, -load.cost)
        load.cost = 0.0
        load.cut = node.endpoints
        if load.requests and load.cut:
            sharers = [self.all[one] for one in self._members(load.cut)]
            own = self._tokens(node)
            seconds = prefill_seconds(sharers[0].profile, own, node.context + own)
            load.cost = (1.0 - load.hits / load.prompts) * load.requests * seconds / len(sharers)
            self._spread(load, load.cost)

    def _spread(self, load: Load, cost: float) -> None:
        if cost:
            for one in self._members(load.cut):
                self.prefill[one] = self.prefill.get(one, 0.0) + cost

    def _members(self, endpoints: int) -> list[int]:
        return [one for one in self.all if endpoints >> one & 1]

    def _expire(self, now: float) -> None:
        recent = self.recent
        while recent and recent[0][0] < now - self.window:
            _, load, hits, prompt = recent.popleft()
            load.requests -= 1
            load.hits -= hits
            load.prompts -= prompt
            if load.requests:
                self._book(load.node)
            else:
                self._spread(load, -load.cost)
                load.node.endpoints = 0
                load.node.load = None
                del self.loads[load]
                for one in self.all:
                    self.ttfts.pop((load, one), None)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        tail = request.prompt_tokens - len(request.blocks) * self.block_tokens
        leaf, known = self._insert(request.blocks, max(0, tail))
        self.sent += 1
        self.active[view.index] = self.active.get(view.index, 0) + 1
        bit = 1 << view.index
        node = leaf
        while node is not None:
            if not node.endpoints & bit:
                node.endpoints |= bit
                self._book(node)
            node = node.parent
        important = leaf
        while important is not None and not self._large(important):
            important = important.parent
        if important is None:
            return
        load = important.load
        if load is None:
            load = important.load = Load(important)
            self.loads[load] = None
        hits = min(known * self.block_tokens, request.prompt_tokens - 1)
        load.requests += 1
        load.hits += hits
        load.prompts += request.prompt_tokens
        load.active[view.index] = load.active.get(view.index, 0) + 1
        self.flights[request.id] = load
        self.recent.append((now, load, hits, request.prompt_tokens))
        self._book(important)
        if self.rebalancing and self.sent >= self.warm * len(self.all) and now >= self.looked + 1.0:
            self.looked = now
            self._rebalance(now)

    def first_token(self, request: Request, view: View, now: float) -> None:
        load = self.flights.get(request.id)
        if load is None or load not in self.loads:
            return
        seen = self.ttfts.setdefault((load, view.index), deque())
        seen.append((now, now - request.dispatched_at))
        while seen[0][0] < now - self.window:
            seen.popleft()

    def finished(self, request: Request, view: View, now: float) -> None:
        self.active[view.index] = self.active.get(view.index, 0) - 1
        load = self.flights.pop(request.id, None)
        if load is not None:
            load.active[view.index] = load.active.get(view.index, 0) - 1
        if request.first_token_at is None or request.output_tokens < 2:
            return
        order, ranked = self.token_times.setdefault(view.index, (deque(), []))
        took = (now - request.first_token_at) / (request.output_tokens - 1)
        order.append(took)
        insort(ranked, took)
        if len(order) > 200:
            del ranked[bisect_left(ranked, order.popleft())]

    # rebalancing

    def _rebalance(self, now: float) -> None:
        """From the dearest endpoint to the cheapest, then from the next dearest, until they are near each other."""
        costs = {one: self.active.get(one, 0) * self.decode_tokens * self._token_time(one) for one in self.all}
        for load in self.loads:
            if load.requests > 1:
                for one in self._members(load.cut):
                    costs[one] += load.cost
        order = sorted(self.all, key=lambda one: -costs[one])
        cheapest = order[-1]
        for dearest in order[:-1]:
            if costs[dearest] < self.threshold * costs[cheapest]:
                return
            movable = sorted(
                ((self._worth(load, dearest), load) for load in self.loads if self._may_move(load, dearest)),
                key=lambda pair: pair[0],
            )
            if len(movable) == 1:
                worth, load = movable[0]
                if not load.node.endpoints >> cheapest & 1 and self._overloaded(load, dearest, now):
                    costs[dearest] -= worth / 2
                    costs[cheapest] += worth / 2
                    self._allocate(load.node, load.node.endpoints | 1 << cheapest)
                    self.ttfts.pop((load, dearest), None)
                continue
            for worth, load in movable:
                if costs[dearest] - worth < costs[cheapest] + worth:
                    break
                costs[dearest] -= worth
                costs[cheapest] += worth
                self._move(load.node, 1 << cheapest)
                if costs[dearest] < self.threshold * costs[cheapest]:
                    break

    def _may_move(self, load: Load, endpoint: int) -> bool:
        return load.requests > 1 and bool(load.cut >> endpoint & 1) and self._large(load.node)

    def _worth(self, load: Load, endpoint: int) -> float:
        return load.cost + load.active.get(endpoint, 0) * self.decode_tokens * self._token_time(endpoint)

    def _overloaded(self, load: Load, endpoint: int, now: float) -> bool:
        seen = self.ttfts.get((load, endpoint), ())
        middle = now - self.window / 2
        before = [ttft for at, ttft in seen if at < middle]
        since = [ttft for at, ttft in seen if at >= middle]
        return bool(before and since) and sum(since) / len(since) >= 2 * sum(before) / len(before)

    def _allocate(self, node: Node, endpoints: int) -> None:
        node.endpoints = endpoints
        self._book(node)

    def _move(self, node: Node, endpoints: int) -> None:
        """The node and all below it."""
        left = [node]
        while left:
            one = left.pop()
            self._allocate(one, endpoints)
            left.extend(one.children)

    # membership

    def removed(self, view: View) -> None:
        bit = 1 << view.index
        for node in set(self.owner.values()):
            if node.endpoints & bit:
                self._allocate(node, node.endpoints & ~bit)
        self.all.pop(view.index, None)
        self.prefill.pop(view.index, None)
        self.active.pop(view.index, None)
        self.token_times.pop(view.index, None)
        for load in self.loads:
            load.active.pop(view.index, None)

    def added(self, view: View) -> None:
        self.all[view.index] = view
