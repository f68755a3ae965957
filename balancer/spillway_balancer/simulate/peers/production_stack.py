"""The production stack's prefix-aware router: the longest match ever sent anywhere, and no look at load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import View
from .index import Believer, forget, leading


class PrefixAware(Believer):
    """A trie that forgets nothing; of the endpoints at the deepest match a random one, of all where nothing matches.

    Its memory grows with every block that was ever sent, as the source's does.
    """

    name: ClassVar[str] = "production-stack-prefix"
    source: ClassVar[str] = (
        "vllm-project/production-stack at a6c01db0, src/vllm_router/routers/routing_logic.py (PrefixAwareRouter), "
        "src/vllm_router/prefix/hashtrie.py"
    )
    parameters: ClassVar[str] = "prefix_min_match_length 0, chunk_size 128 characters (here the workload's blocks)"

    def prepare(self, views: Sequence[View]) -> None:
        self.holders: dict[int, int] = {}

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        return leading(self.holders, request.blocks)

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        found = self.matches(request, views, now)
        if not found:
            return self.dice.choice(views)
        depth = max(found.values())
        return self.dice.choice([view for view in views if found.get(view.index, 0) == depth])

    def dispatched(self, request: Request, view: View, now: float) -> None:
        bit = 1 << view.index
        holders = self.holders
        for block in request.blocks:
            holders[block] = holders.get(block, 0) | bit

    def removed(self, view: View) -> None:
        bit = 1 << view.index
        for block in [block for block, held in self.holders.items() if held & bit]:
            forget(self.holders, block, bit)
