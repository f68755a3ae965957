"""The KV memory of one engine: a pool of blocks whose full ones are found again by the hash of what they hold.

This is vLLM's automatic prefix caching (docs "Automatic Prefix Caching", v1 `KVCacheManager`): a block of
`block_tokens` tokens is known by a hash chained over everything before it, so equal hashes mean equal prefixes. A
block is *shared* once it is fully computed (it has a hash and a reference count), *private* before. Shared blocks
that nobody refers to stay, least recently used first to go, until the room is needed.

Hashes are ints that must be chained: two sequences with the same hash in a place have the same ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.prefix import Runs


class BlockPool:
    """`capacity` blocks: `used` ones belong to sequences (shared or private), `cached` ones to nobody, waiting to be
    found again; the rest are empty.

    Always: 0 <= used, 0 <= cached, and used + cached <= capacity.
    """

    __slots__ = ("_private", "_shared", "capacity")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a block pool needs at least one block")
        self.capacity = capacity
        self._shared = Runs()
        self._private = 0

    @property
    def used(self) -> int:
        return self._shared.held + self._private

    @property
    def cached(self) -> int:
        return self._shared.idle

    def match(self, hashes: Sequence[int], limit: int) -> int:
        """How many of the leading `limit` hashes are here now."""
        return self._shared.match(hashes, limit)

    def take(self, hashes: Sequence[int], matched: int, private: int) -> bool:
        """Refer to the `matched` leading hashes, which must be here, and set `private` empty blocks aside.

        False, with nothing changed, when there is no room. Evicts what is least recently used.
        """
        shared = self._shared
        if self.used + shared.unreferenced(hashes, matched) + private > self.capacity:
            return False
        shared.hold(hashes, 0, matched)
        self._private += private
        shared.evict(self.capacity - self.used)
        return True

    def publish(self, hashes: Sequence[int], start: int, stop: int) -> int:
        """Blocks `start` to `stop` of a sequence are full: they go from private to shared. How many did.

        Where somebody has computed the same meanwhile, theirs is referred to and the own copy given back.
        """
        stop = max(start, min(stop, len(hashes)))
        self._shared.hold(hashes, start, stop)
        self._private -= stop - start
        return stop - start

    def release(self, hashes: Sequence[int], held: int, private: int) -> None:
        """Let go of the `held` leading blocks and of `private` private ones."""
        self._private -= private
        self._shared.release(hashes, held)
