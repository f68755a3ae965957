"""Who asks: the consumers that a route knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Consumer(NamedTuple):
    """Somebody with a key of their own."""

    name: str
    namespace: str
    labels: Mapping[str, str]

    @property
    def whole(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"
