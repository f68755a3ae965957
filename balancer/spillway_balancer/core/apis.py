"""Which APIs the endpoints of a pool speak, and into which one a conversation is translated that comes in another.

Where an endpoint speaks the client's API the request passes through as it came; translation is what is left. Endpoints
of our own speak OpenAI's chat completions, and Anthropic's Messages where their model's capabilities name it.
"""

from __future__ import annotations

from typing import Final

from spillway_api.providers import PRESETS, Api, served_by
from spillway_api.snapshot import Pool
from spillway_api.types import Capability, Model

CHAT: Final = "/v1/chat/completions"
MESSAGES: Final = "/v1/messages"
COUNTING: Final = "/v1/messages/count_tokens"
"""Is asked of those alone who are known to have it: the balancer can answer it itself."""

CLIENTS: Final[dict[str, Api]] = {CHAT: "chat", MESSAGES: "messages"}
"""What clients speak on the paths whose requests can be translated."""

TALKS: Final[frozenset[Capability]] = frozenset({"Chat", "Messages"})
"""A model that has one of them can be asked in either of their APIs."""


class Apis:
    """What one pool's endpoints speak."""

    __slots__ = ("_into", "_known", "paths")

    def __init__(self, spec: Pool) -> None:
        preset = None if spec.provider is None else PRESETS.get(spec.provider)
        self.paths = None if spec.provider is None else served_by(spec.provider)
        """What its provider serves of the API; None where it may be anything."""
        self._known = preset is not None
        own: Api = "chat" if preset is None else preset.api
        self._into: dict[tuple[str, str], Api] = {}
        for model in spec.models:
            speaks = self._spoken(own, model)
            for path, api in CLIENTS.items():
                if api not in speaks:
                    self._into[path, model.upstream_name or model.name] = speaks[0]

    def _spoken(self, own: Api, model: Model) -> tuple[Api, ...]:
        """What the model is asked in, what is translated into first."""
        if own != "chat" or "Messages" not in model.capabilities:
            return (own,)
        if self.paths is not None and MESSAGES not in self.paths:
            return (own,)
        return ("chat", "messages") if "Chat" in model.capabilities else ("messages",)

    def serves(self, path: str) -> bool:
        """Whether the provider has this part of the API, or one that it can be translated into."""
        if self.paths is None:
            return path != COUNTING
        return path in self.paths or (self._known and path in CLIENTS)

    def into(self, path: str, upstream_model: str) -> Api | None:
        """What a request on this path has to be translated into for a model; None where it goes as it came."""
        return self._into.get((path, upstream_model))
