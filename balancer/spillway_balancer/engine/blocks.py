"""The KV memory of one engine: a pool of blocks whose full ones are found again by the hash of what they hold.

This is vLLM's automatic prefix caching (docs "Automatic Prefix Caching", v1 `KVCacheManager`): a block of
`block_tokens` tokens is known by a hash chained over everything before it, so equal hashes mean equal prefixes. A
block is *shared* once it is fully computed (it has a hash and a reference count), *private* before. Shared blocks
that nobody refers to stay, least recently used first to go, until the room is needed.

Blocks that came together are kept together, as *runs*, since a long prompt has thousands of blocks of 16 tokens and
a simulation millions of prompts: the cost of a request is that of its runs, not of its blocks. The chain makes that
easy. Each hash stands in one run only; a run is found by its first hash, with nothing like a tree; and where two
prefixes part is found by bisection. What is seen from outside is exactly what it would be block by block.

Hashes are ints that must be chained: two sequences with the same hash in a place have the same ones before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence


class _Run:
    """Neighbouring blocks with the same references."""

    __slots__ = ("hashes", "references")

    def __init__(self, hashes: Sequence[int], references: int) -> None:
        self.hashes = hashes
        self.references = references


class BlockPool:
    """`capacity` blocks: `used` ones belong to sequences (shared or private), `cached` ones to nobody, waiting to be
    found again; the rest are empty.

    Always: 0 <= used, 0 <= cached, and used + cached <= capacity.
    """

    __slots__ = ("_free", "_runs", "cached", "capacity", "used")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a block pool needs at least one block")
        self.capacity = capacity
        self.used = 0
        self.cached = 0
        self._runs: dict[int, _Run] = {}  # by the first hash
        self._free: OrderedDict[_Run, None] = OrderedDict()  # without references, least recently used first

    def match(self, hashes: Sequence[int], limit: int) -> int:
        """How many of the leading `limit` hashes are here now."""
        return sum(length for _, length in self._walk(hashes, 0, limit))

    def take(self, hashes: Sequence[int], matched: int, private: int) -> bool:
        """Refer to the `matched` leading hashes, which must be here, and set `private` empty blocks aside.

        False, with nothing changed, when there is no room. Evicts what is least recently used.
        """
        found = list(self._walk(hashes, 0, matched))
        revived = sum(length for run, length in found if not run.references)
        if self.used + revived + private > self.capacity:
            return False
        for run, length in found:
            self._refer(run, length)
        self.used += private
        self._evict()
        return True

    def publish(self, hashes: Sequence[int], start: int, stop: int) -> int:
        """Blocks `start` to `stop` of a sequence are full: they go from private to shared. How many did.

        Where somebody has computed the same meanwhile, theirs is referred to and the own copy given back.
        """
        stop = min(stop, len(hashes))
        place = start
        for run, length in list(self._walk(hashes, start, stop)):
            self._refer(run, length)
            self.used -= length
            place += length
        if place < stop:
            self._runs[hashes[place]] = _Run(hashes[place:stop], 1)
        return max(0, stop - start)

    def release(self, hashes: Sequence[int], held: int, private: int) -> None:
        """Let go of the `held` leading blocks and of `private` private ones.

        The end of a prefix goes first into the line of those to be evicted: without it the rest is still of use, the
        other way round it is not.
        """
        self.used -= private
        for run, length in reversed(list(self._walk(hashes, 0, held))):
            run.references -= 1
            if not run.references:
                self._free[run] = None
                self.used -= length
                self.cached += length

    def _walk(self, hashes: Sequence[int], start: int, stop: int) -> Iterator[tuple[_Run, int]]:
        """The runs along `hashes` from `start`, each with how many of its blocks agree."""
        runs = self._runs
        stop = min(stop, len(hashes))
        while start < stop:
            run = runs.get(hashes[start])
            if run is None:
                return
            theirs = run.hashes
            length = min(len(theirs), stop - start)
            if theirs[length - 1] != hashes[start + length - 1]:
                agree, part = 1, length  # the first `agree` do, the first `part` do not
                while part - agree > 1:
                    middle = (agree + part) // 2
                    if theirs[middle - 1] == hashes[start + middle - 1]:
                        agree = middle
                    else:
                        part = middle
                length = agree
            yield run, length
            if length < len(theirs):
                return
            start += length

    def _refer(self, run: _Run, length: int) -> None:
        """One more reference to the first `length` blocks of a run; the others become a run of their own."""
        if length < len(run.hashes):
            # The rest stays the object it is, and so keeps its place in the line of the free.
            head = _Run(run.hashes[:length], run.references)
            run.hashes = run.hashes[length:]
            self._runs[run.hashes[0]] = run
            self._runs[head.hashes[0]] = head
            run = head
        elif not run.references:
            del self._free[run]
        if not run.references:
            self.used += length
            self.cached -= length
        run.references += 1

    def _evict(self) -> None:
        excess = self.used + self.cached - self.capacity
        while excess > 0:
            run = next(iter(self._free))
            length = len(run.hashes)
            if length > excess:
                run.hashes = run.hashes[: length - excess]
                self.cached -= excess
                return
            del self._free[run], self._runs[run.hashes[0]]
            self.cached -= length
            excess -= length
