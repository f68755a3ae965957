"""A request as the core sees it, in as few words as a test has to say about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from spillway_api.providers import Api
from spillway_balancer.core.consumers import Consumer
from spillway_balancer.core.prefix import Prompt


class Asked:
    """Asks for the model chat and has nothing more to tell, but for what is `told`: any of what it has below."""

    model: str = "chat"
    path: str = "/v1/chat/completions"
    streams: bool = True
    thorough: bool = False
    prompt_tokens: int = 100
    output_tokens: int = 50
    limit: int = 0
    """Tokens that the client lets the answer have, as `max_tokens` says; 0 is none."""
    client_ip: str | None = None
    caller: str = "somebody"
    consumer: Consumer | None = None
    key_digest: bytes | None = None
    text: Prompt | None = None

    def __init__(self, session: str | None = None, given: Mapping[str, str] | None = None, **told: Any) -> None:
        """`session` is its header x-session-id; `given` are its other headers."""
        self._session = session
        self._given = given or {}
        for name, value in told.items():
            getattr(self, name)  # a slip of the pen would be told to nobody
            setattr(self, name, value)

    def header(self, name: str) -> str | None:
        return self._session if name == "x-session-id" else self._given.get(name)

    def headers(self, names: Collection[str] | None) -> Mapping[str, str]:
        return self._given

    def body(self, name: str) -> str | None:
        return None

    def prefix(self, chars: int | None) -> bytes | None:
        return None

    def prompt(self, model: str) -> Prompt | None:
        return self.text

    def tools(self) -> bool:
        return False

    def images(self) -> bool:
        return False

    def json(self) -> bool:
        return False

    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        return ()

    def max_tokens(self) -> int:
        return self.limit

    def user(self) -> str:
        return ""
