"""Who asks: the consumers that a route knows, each by the digest of its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from spillway_api import snapshot

from .allowance import Allowance
from .errors import InvalidKey

Result = Literal["ok", "limited", "left", "failed"]
"""How a consumer's request ended: served, refused for a limit of theirs, left by the client, or anything else."""
RESULTS: Final[tuple[Result, ...]] = ("ok", "limited", "left", "failed")

_NOBODY: Final[Mapping[bytes, Consumer]] = {}


class Consumer:
    """Somebody with a key of their own. What they have used outlives a reload."""

    def __init__(self, spec: snapshot.Consumer, namespace: str, previous: Consumer | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        self.namespace = namespace
        self.labels: Mapping[str, str] = spec.labels
        self.whole = f"{namespace}/{spec.name}"
        """namespace/name."""
        before = None if previous is None else previous.allowance
        self.allowance: Allowance | None = None if spec.limits is None else Allowance(spec.limits, before)
        """None for who has no limits."""
        self.results: dict[Result, int] = previous.results if previous else dict.fromkeys(RESULTS, 0)
        """Requests so far, by how they ended."""


class Callers:
    """The consumers of one route. A route that has none of them lets nobody in."""

    def __init__(self, spec: snapshot.Consumers, namespace: str, previous: Callers | None = None) -> None:
        self.spec = spec
        before = {} if previous is None else {each.name: each for each in previous.members}
        self.members: tuple[Consumer, ...] = tuple(
            Consumer(each, namespace, before.get(each.name)) for each in spec.members
        )
        self._keys: Mapping[bytes, Consumer] | None = None

    @classmethod
    def of(cls, route: snapshot.Route, previous: Callers | None) -> Callers | None:
        """Those of a route, None where it is open. They outlive a reload that leaves them as they are."""
        if route.consumers is None:
            return None
        if previous is not None and previous.spec == route.consumers:
            return previous
        return cls(route.consumers, route.name.partition("/")[0], previous)

    def apply(self) -> None:
        """Put these limits in force, where others may have been on the same meters."""
        for member in self.members:
            if member.allowance is not None:
                member.allowance.apply()

    @property
    def keyed(self) -> bool:
        """Whether their keys have been told."""
        return self._keys is not None

    def tell(self, keys: Mapping[bytes, Consumer]) -> None:
        """Their keys, as SHA-256 digests: to find one in a table of digests takes no time that tells of the others."""
        self._keys = keys

    def knows(self, digest: bytes | None) -> bool:
        return digest is not None and digest in (self._keys or _NOBODY)

    def identify(self, digest: bytes | None) -> Consumer | InvalidKey:
        """Whose key has this digest; None is of who shows no key."""
        found = None if digest is None else (self._keys or _NOBODY).get(digest)
        return unknown(digest) if found is None else found


def unknown(digest: bytes | None) -> InvalidKey:
    """The refusal of somebody who shows no key, or one that nobody has."""
    if digest is None:
        return InvalidKey("no API key was given; send it as 'Authorization: Bearer KEY'")
    return InvalidKey("this API key is not known here")
