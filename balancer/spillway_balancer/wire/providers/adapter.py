"""What a provider's adapter has to do: say where a path of OpenAI's API is found at its base URL, and with what key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Target(Protocol):
    def __call__(self, base_url: str, path: str) -> str:
        """The request target (path and query) for `path`, such as /v1/chat/completions, at `base_url`."""
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """One provider type of a ModelPool."""

    type: str
    base_url: str | None
    """Where the provider is when the pool does not say; None when it must."""
    target: Target
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer "
