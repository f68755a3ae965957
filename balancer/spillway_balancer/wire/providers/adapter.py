"""What the balancer has to know to speak with a provider: its preset, and where a path of the API is found there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from spillway_api.providers import Api, Preset


class Target(Protocol):
    def __call__(self, base_url: str, path: str) -> str:
        """The request target (path and query) for `path`, such as /v1/chat/completions, at `base_url`."""
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """One provider type of a ModelPool."""

    type: str
    preset: Preset
    target: Target
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Names of the preset's headers, and the lines to send."""

    @property
    def api(self) -> Api:
        """What it is spoken to in; conversations in another API are translated for it."""
        return self.preset.api
