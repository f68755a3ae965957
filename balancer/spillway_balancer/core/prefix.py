"""Which prompts an engine has cached: prompts as chains of block hashes, and a store of blocks that knows prefixes.

An engine keeps the keys and values of what it has computed in blocks of tokens, finds them again by their content and
all content before them, and forgets the least recently used first (vLLM's automatic prefix caching, SGLang's
RadixAttention). `CacheMirror` is what one endpoint is believed to hold, made from this balancer's own traffic alone:
prompts in flight are *pinned*, as they are in the engine, and go to the end of the line of those to be forgotten when
they end. `Runs` is the store itself; the simulated engine keeps its memory in the same one.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

BLOCK_BYTES: Final = 256
"""Bytes of canonical text in a block of a prompt: about 64 tokens, four of vLLM's blocks. A prompt of 100,000 tokens
has 1,600 of them, and what is lost at the end of a match is half a block on average."""


class Prompt(NamedTuple):
    """A prompt as dispatch sees it. Hashes are *chained*: equal hashes mean that everything before is equal as well."""

    blocks: Sequence[int]
    """64-bit hashes of the whole blocks, in order."""
    size: int
    """Bytes of the whole text, the rest behind the last whole block included."""
    block_size: int = BLOCK_BYTES
    """Bytes that one block stands for."""
    history: int = 0
    """Bytes at its beginning that the last request of the same conversation had for its prompt; 0 for a first turn."""


class _Run:
    """Neighbouring blocks with the same references."""

    __slots__ = ("hashes", "references")

    def __init__(self, hashes: Sequence[int], references: int) -> None:
        self.hashes = hashes
        self.references = references


class Runs:
    """Blocks found by their chained hashes; `held` of them are referred to, `idle` ones wait to be found again.

    Blocks that came together are kept together, as *runs*, since a long prompt has thousands of blocks and an endpoint
    sees thousands of prompts: the cost of a request is that of its runs, not of its blocks, and a block takes the eight
    bytes of its hash. The chain makes that easy. Each hash stands in one run only; a run is found by its first hash,
    with nothing like a tree; and where two prefixes part is found by bisection. What is let go together becomes one
    run, or a session would have as many as turns. What is seen from outside is exactly what it would be block by block.

    A prefix whose beginning is gone is of no use. It cannot be: who refers to a block refers to all before it, and on
    release the end of a prefix goes first into the line of those to be evicted.
    """

    __slots__ = ("_free", "_runs", "held", "idle")

    def __init__(self) -> None:
        self.held = 0
        self.idle = 0
        self._runs: dict[int, _Run] = {}  # by the first hash
        self._free: OrderedDict[_Run, None] = OrderedDict()  # without references, least recently used first

    def match(self, hashes: Sequence[int], limit: int | None = None) -> int:
        """How many of the leading hashes, of the first `limit`, are here now."""
        runs = self._runs
        stop = len(hashes) if limit is None else min(limit, len(hashes))
        at = 0
        while at < stop:
            run = runs.get(hashes[at])
            if run is None:
                break
            end = at + len(run.hashes)
            if end <= stop and run.hashes[-1] == hashes[end - 1]:
                at = end
            else:
                at += _agreeing(run.hashes, hashes, at, stop)
        return at

    def unreferenced(self, hashes: Sequence[int], matched: int) -> int:
        """How many of the `matched` leading hashes, which must be here, nobody refers to."""
        return sum(length for run, length in self._walk(hashes, 0, matched) if not run.references)

    def hold(self, hashes: Sequence[int], start: int, stop: int) -> None:
        """Refer to the blocks `start` to `stop`; those that are not here come in. All before `start` must be held."""
        stop = min(stop, len(hashes))
        place = start
        for run, length in list(self._walk(hashes, start, stop)):
            self._refer(run, length)
            place += length
        if place < stop:
            self._runs[hashes[place]] = _Run(hashes[place:stop], 1)
            self.held += stop - place

    def release(self, hashes: Sequence[int], stop: int) -> None:
        """Let go of the `stop` leading blocks, all of which must be held.

        The end of a prefix goes first into the line of those to be evicted: without it the rest is still of use, the
        other way round it is not.
        """
        start = end = 0
        freed: _Run | None = None
        for run, length in list(self._walk(hashes, 0, stop)):
            run.references -= 1
            if run.references:
                start += length
            elif freed is None:
                freed = run
            else:  # nobody refers to what stands behind a free block either: all of it is free now
                del self._runs[hashes[end]]
            end += length
        if freed is not None:
            if len(freed.hashes) < end - start:
                freed.hashes = hashes[start:end]
            self._free[freed] = None
            self.held -= end - start
            self.idle += end - start

    def evict(self, room: int) -> None:
        """Forget what is idle, least recently used first, until no more than `room` blocks of it are left."""
        excess = self.idle - max(0, room)
        while excess > 0:
            run = next(iter(self._free))
            length = len(run.hashes)
            if length > excess:
                run.hashes = run.hashes[: length - excess]
                self.idle -= excess
                return
            del self._free[run], self._runs[run.hashes[0]]
            self.idle -= length
            excess -= length

    def _walk(self, hashes: Sequence[int], start: int, stop: int) -> Iterator[tuple[_Run, int]]:
        """The runs along `hashes` from `start`, each with how many of its blocks agree."""
        runs = self._runs
        stop = min(stop, len(hashes))
        while start < stop:
            run = runs.get(hashes[start])
            if run is None:
                return
            length = _agreeing(run.hashes, hashes, start, stop)
            yield run, length
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
            self.held += length
            self.idle -= length
        run.references += 1


def _agreeing(run: Sequence[int], hashes: Sequence[int], start: int, stop: int) -> int:
    """How many blocks of a run agree with `hashes[start:stop]`, the first of which does."""
    length = min(len(run), stop - start)
    if run[length - 1] == hashes[start + length - 1]:
        return length
    agree, part = 1, length  # the first `agree` do, the first `part` do not
    while part - agree > 1:
        middle = (agree + part) // 2
        if run[middle - 1] == hashes[start + middle - 1]:
            agree = middle
        else:
            part = middle
    return agree


class CacheMirror:
    """What one endpoint's prefix cache is believed to hold. Never more than the endpoint itself has room for."""

    __slots__ = ("_runs", "match")

    def __init__(self) -> None:
        self.forget()

    @property
    def pinned(self) -> int:
        """Blocks of prompts in flight, each counted once however many share it."""
        return self._runs.held

    @property
    def idle(self) -> int:
        """Blocks of prompts that have ended."""
        return self._runs.idle

    def pin(self, blocks: Sequence[int]) -> Pin:
        """A prompt is on its way there: it will be cached, and stay so until `unpin`."""
        self._runs.hold(blocks, 0, len(blocks))
        return Pin(self._runs, blocks)

    def trim(self, room: float) -> None:
        """The endpoint has no more than `room` blocks for prompts that have ended."""
        self._runs.evict(int(room))

    def forget(self) -> None:
        """The endpoint has lost its cache, as one does that restarts; pins from before are of no account any more."""
        self._runs = Runs()
        self.match: Callable[[Sequence[int]], int] = self._runs.match
        """How many leading blocks of a prompt are believed to be cached, or about to be, there. Asked of every endpoint
        for every request, so it is the store's own method."""


class Pin:
    """A prompt in flight in a mirror."""

    __slots__ = ("_blocks", "_runs")

    def __init__(self, runs: Runs, blocks: Sequence[int]) -> None:
        self._runs: Runs | None = runs
        self._blocks = blocks

    def unpin(self, answer: Sequence[int] = (), computed: bool = True) -> None:
        """The request has ended; `answer` are the blocks that its answer added behind the prompt's.

        Later calls change nothing. A prompt that was not `computed`, because the attempt failed, is let go all the
        same: what the engine made of it is not known, and the next one will tell.
        """
        runs = self._runs
        if runs is None:
            return
        self._runs = None
        blocks = self._blocks
        if answer and computed:
            whole = array("Q", blocks)  # eight bytes a block: the mirror keeps slices of it
            whole.extend(answer)
            runs.hold(whole, len(blocks), len(whole))
            blocks = whole
        runs.release(blocks, len(blocks))
