"""A balancer's books around one peer's policy, and requests made of a few numbers."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence

from spillway_balancer.engine.profiles import PROFILES
from spillway_balancer.simulate.peers import PEERS, Peer, View
from spillway_balancer.simulate.request import Request

BLOCK = 64
H100 = PROFILES["h100-llama3-8b"]


def nothing(request: Request) -> int:
    """An engine's cache that is always empty."""
    return 0


class Pool:
    """One peer over a few endpoints, with the books that the world keeps."""

    def __init__(self, name: str, size: int = 4, seed: int = 1, truth: Callable[[Request], int] = nothing) -> None:
        self.views = [self._view(index, truth) for index in range(size)]
        self.peer: Peer = PEERS[name]()
        self.peer.begin(self.views, random.Random(seed), BLOCK)
        self.now = 0.0
        self.sent: list[tuple[Request, View, float]] = []

    def _view(self, index: int, truth: Callable[[Request], int]) -> View:
        view = View(index, f"endpoint-{index}", H100, truth)
        view.kv_blocks = H100.kv_tokens // BLOCK
        return view

    @property
    def alive(self) -> list[View]:
        return [view for view in self.views if view.alive]

    def choose(self, request: Request) -> View:
        return self.peer.choose(request, self.alive, self.now)

    def send(self, request: Request, view: View | None = None) -> View:
        """Dispatches as the world does; to `view` where the test, not the peer, decides."""
        chosen = self.choose(request)
        view = chosen if view is None else view
        cached = self.peer.estimate(request, view)
        assert 0 <= cached < request.prompt_tokens
        view.in_flight += 1
        view.pending += 1
        view.pending_tokens += request.prompt_tokens - cached
        view.context_tokens += request.prompt_tokens
        request.dispatched_at = self.now
        self.peer.dispatched(request, view, self.now)
        self.sent.append((request, view, cached))
        return view

    def answer(self) -> None:
        """All that are on their way get their first token and end."""
        for request, view, cached in self.sent:
            if not view.alive:
                continue
            self.now += 0.01
            request.first_token_at = self.now
            view.pending -= 1
            view.pending_tokens -= request.prompt_tokens - cached
            self.peer.first_token(request, view, self.now)
            view.in_flight -= 1
            view.context_tokens -= request.prompt_tokens
            self.peer.finished(request, view, self.now + 0.5)
        self.sent.clear()

    def remove(self, view: View) -> None:
        view.alive = False
        self.sent = [sent for sent in self.sent if sent[1] is not view]
        self.peer.removed(view)

    def add(self) -> View:
        view = self._view(len(self.views), nothing)
        self.views.append(view)
        self.peer.added(view)
        return view


def ask(number: int, blocks: Sequence[int], tail: int = 10, session: int | None = None, system: int = 0) -> Request:
    return Request(
        number,
        0.0,
        len(blocks) * BLOCK + tail,
        100,
        array("Q", blocks),
        BLOCK,
        session=session,
        user_key=number if session is None else session,
        system_key=system,
    )


def traffic(count: int, seed: int = 5) -> list[Request]:
    """Sessions that grow, with a few shared beginnings."""
    dice = random.Random(seed)
    known: dict[int, list[int]] = {}
    requests = []
    for number in range(count):
        session = dice.randrange(12)
        known.setdefault(session, [session % 3, 100 + session]).extend(dice.getrandbits(63) for _ in range(3))
        with_session = session if session % 4 else None
        requests.append(ask(number, tuple(known[session]), session=with_session, system=session % 3))
    return requests


def play(pool: Pool, requests: Sequence[Request]) -> list[int]:
    chosen = []
    for number, request in enumerate(requests):
        pool.now += 0.2
        chosen.append(pool.send(request).index)
        if number % 7 == 6:
            pool.answer()
            for view in pool.alive:
                view.waiting = view.index % 3
                view.kv_usage = 0.1 * view.index
            pool.peer.scraped(pool.now)
    return chosen
