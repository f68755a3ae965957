"""The hash ring: where a key is at home, the same on every balancer without a word between them.

uhashring makes the points (a copy of its sorted ring is taken once); the walk is ours, because
`HashRing.iterate_nodes` copies the whole ring for every key.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from weakref import WeakValueDictionary

from uhashring import HashRing
from xxhash import xxh3_64_intdigest


def hash_of(text: str) -> int:
    """Where a text stands on the ring."""
    return xxh3_64_intdigest(text.encode())


class Ring:
    """Immutable; a change of membership is a new Ring. Its points are made when they are first asked for: a sidecar has
    pools that its client never asks, and a ring of ten endpoints takes 60 kB and a millisecond.

    Identity is the endpoint's name and nothing else: an endpoint that comes back under its name has its old
    arcs, and the order in which members are given changes nothing. An endpoint of weight 100 has `vnodes`
    points.
    """

    __slots__ = ("__weakref__", "_hash", "_members", "_names", "_owners", "_points", "_vnodes")

    def __init__(
        self,
        members: Mapping[str, int],
        vnodes: int,
        hash_fn: Callable[[str], int] = hash_of,
    ) -> None:
        """`members` maps names to weights (100 is the usual one); `hash_fn` gives 64-bit numbers.

        Never Python's own `hash()`: it is salted per process, and two balancers would not agree.
        """
        # Where points collide uhashring lets the later name win; sorted, "later" is the same everywhere.
        self._names = tuple(sorted(members))
        self._members = {name: members[name] for name in self._names}
        self._vnodes = vnodes
        self._hash = hash_fn
        # A list: bisect reads 14 of them per key, and an array would make a new int object of each.
        self._points: list[int] | None = None
        self._owners = array("I")

    def _made(self) -> list[int]:
        """The points, sorted, with `_owners` beside them."""
        nodes = {
            name: {"vnodes": points_of(weight, self._vnodes), "weight": 1} for name, weight in self._members.items()
        }
        ring: dict[int, str] = HashRing(nodes=nodes, hash_fn=self._hash).ring
        place = {name: index for index, name in enumerate(self._names)}
        points = sorted(ring)
        self._owners = array("I", [place[ring[point]] for point in points])
        self._points = points
        return points

    def __len__(self) -> int:
        """Number of points."""
        return len(self._made() if self._points is None else self._points)

    @property
    def names(self) -> tuple[str, ...]:
        """All members, sorted."""
        return self._names

    def home(self, key: int) -> str | None:
        """The owner of the first point after `key`; None only on an empty ring."""
        return next(self.walk(key), None)

    def walk(self, key: int) -> Iterator[str]:
        """Every member once, in the order in which the ring has them after `key` (a 64-bit hash).

        Lazy: the first costs one bisect, and nearly every caller stops there.
        """
        points = self._made() if self._points is None else self._points
        owners, names = self._owners, self._names
        start = bisect_right(points, key)
        met: set[int] = set()
        for stretch in (range(start, len(owners)), range(start)):
            for at in stretch:
                owner = owners[at]
                if owner not in met:
                    yield names[owner]
                    met.add(owner)
                    if len(met) == len(names):
                        return
        # A member all of whose points were lost to collisions still has to be reachable.
        for owner, name in enumerate(names):
            if owner not in met:
                yield name


def ring_of(members: Mapping[str, int], vnodes: int) -> Ring:
    """The ring of these members, one for all who ask: a pool has several uses for it."""
    wanted = tuple(sorted(members.items())), vnodes
    ring = _RINGS.get(wanted)
    if ring is None:
        ring = _RINGS[wanted] = Ring(members, vnodes)
    return ring


_RINGS: Final[WeakValueDictionary[tuple[tuple[tuple[str, int], ...], int], Ring]] = WeakValueDictionary()
"""As long as somebody has them."""


def points_of(weight: int, vnodes: int) -> int:
    """Points on the ring of an endpoint of this weight: in proportion, and at least one."""
    return max(1, (vnodes * weight + 50) // 100)
