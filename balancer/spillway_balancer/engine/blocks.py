"""The KV memory of one engine: a pool of blocks whose full ones are found again by the hash of what they
hold.

This is vLLM's automatic prefix caching (docs "Automatic Prefix Caching", v1 `KVCacheManager`): a block of
`block_tokens` tokens is known by a hash chained over everything before it, so equal hashes mean equal
prefixes. A block is *shared* once it is fully computed (it has a hash and a reference count), *private*
before. Shared blocks that nobody refers to stay, least recently used first to go, until the room is needed.

Hashes are plain ints; the pool does not care what made them. Within one sequence they should be distinct, as
chained hashes are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """`capacity` blocks: `used` ones belong to sequences (shared or private), the rest are cached or empty.

    Always: 0 <= used, and used + cached <= capacity.
    """

    __slots__ = ("_free", "_shared", "capacity", "used")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a block pool needs at least one block")
        self.capacity = capacity
        self.used = 0
        self._shared: dict[int, int] = {}  # hash -> references, at least 1
        # Hashes nobody refers to, least recently used first.
        self._free: OrderedDict[int, None] = OrderedDict()

    @property
    def cached(self) -> int:
        """Blocks that nobody uses and that a later prompt may find again."""
        return len(self._free)

    def match(self, hashes: Sequence[int], limit: int) -> int:
        """How many of the leading `limit` hashes are here now, without a gap."""
        shared, free = self._shared, self._free
        found = 0
        for value in hashes[:limit]:
            if value not in shared and value not in free:
                break
            found += 1
        return found

    def take(self, hashes: Sequence[int], matched: int, private: int) -> bool:
        """Refer to the `matched` leading hashes, which must be here, and set `private` empty blocks aside.

        False, with nothing changed, when there is no room. Evicts what is least recently used.
        """
        shared, free = self._shared, self._free
        head = hashes[:matched]
        revived = sum(1 for value in head if value not in shared)
        if self.used + revived + private > self.capacity:
            return False
        used = self.used + private
        for value in head:
            if value in shared:
                shared[value] += 1
            else:
                del free[value]
                shared[value] = 1
                used += 1
        self.used = used
        room = self.capacity - used
        while len(free) > room:
            free.popitem(last=False)
        return True

    def publish(self, hashes: Sequence[int], start: int, stop: int) -> int:
        """Blocks `start` to `stop` of a sequence are full: they go from private to shared. How many did."""
        shared, free = self._shared, self._free
        full = hashes[start:stop]
        for value in full:
            if value in shared:
                # Somebody computed the same prefix meanwhile: refer to theirs and give the own copy back.
                shared[value] += 1
                self.used -= 1
            else:
                free.pop(value, None)
                shared[value] = 1
        return len(full)

    def release(self, hashes: Sequence[int], held: int, private: int) -> None:
        """Let go of the `held` leading blocks and of `private` private ones.

        The end of a prefix goes first into the line of those to be evicted: without it the rest is still of
        use, the other way round it is not.
        """
        shared, free = self._shared, self._free
        self.used -= private
        for value in reversed(hashes[:held]):
            left = shared[value] - 1
            if left:
                shared[value] = left
            else:
                del shared[value]
                free[value] = None
                self.used -= 1
