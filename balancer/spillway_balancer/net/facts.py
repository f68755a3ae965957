"""What the core may ask of a request: its headers, its body's facts, who sent it. Found out when it is asked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Raw
from multidict import MultiMapping

from spillway_api.providers import Api
from spillway_api.types import Clamp

from ..core.apis import CLIENTS
from ..core.consumers import Consumer
from ..core.prefix import Prompt
from ..wire import asks
from ..wire.clamps import Clamped
from ..wire.client_key import client_key
from ..wire.peeked import Peeked
from ..wire.prompt_blocks import PromptBlocks, seed_of

if TYPE_CHECKING:
    from ..wire.translation.pairs import Asked

MOST_TOKENS = 1 << 53
"""As a limit on an answer: what is more counts as so many, for numbers of expressions have 64 bits."""

_ANY: Final = Raw(b"1")

_SALT: Final = secrets.token_bytes(16)
"""Of this process only: what a caller is counted by tells nobody the key, and is nothing that two balancers share."""


class Facts:
    """What the core may ask of a request: its headers, its body's facts, who sent it."""

    __slots__ = (
        "_asked",
        "_caller",
        "_headers",
        "_key",
        "_lowered",
        "_most",
        "_peeked",
        "client_ip",
        "consumer",
        "for_us",
        "model",
        "output_tokens",
        "path",
        "prompt_tokens",
        "prompts",
        "streams",
        "thorough",
    )

    def __init__(self, headers: MultiMapping[str], client_ip: str | None, peeked: Peeked, for_us: bool = True) -> None:
        """`for_us`: whether a header may be one of the balancer's own, `x-spillway-…`. Where none is, none is looked
        for."""
        self._headers = headers
        self._peeked = peeked
        self._asked: Asked | None = None
        self._lowered: tuple[Clamped, Asked] | None = None
        self._caller: str | None = None
        self._most: int | None = None
        self._key: str | None = None
        self.for_us = for_us
        self.client_ip = client_ip
        self.consumer: Consumer | None = None
        """Who asks, once the route is found, where the route knows its callers."""
        self.model = peeked.model
        self.path = peeked.path.path
        self.prompt_tokens = peeked.prompt_tokens
        self.output_tokens = peeked.output_tokens
        self.streams = peeked.stream
        self.thorough = False
        """Whether to say of all tiers, once and for all, what they cannot be told: for who asks why."""
        self.prompts: dict[str, PromptBlocks | None] = {}
        """Hashed prompts by the endpoints' name of the model, for models share no cache; made when first asked for."""

    def _shown(self) -> str:
        if self._key is None:
            self._key = client_key(self._headers)
        return self._key

    @property
    def key_digest(self) -> bytes | None:
        """SHA-256 of the key that the client shows; None where it shows none."""
        return digest_of(self._shown())

    def clamp(self, clamp: Clamp) -> Clamped:
        """The request asks for no more than this from here on. Raises AmbiguousKey where it could be read otherwise."""
        clamped = Clamped(self._peeked, clamp)
        if clamp.max_output_tokens is not None and self._peeked.path.generates:
            self.output_tokens = min(self.output_tokens, clamp.max_output_tokens)
            self._most = clamp.max_output_tokens
        return clamped

    @property
    def caller(self) -> str:
        """The consumer; for who is none a salted hash of the credential, else the address it comes from."""
        if self.consumer is not None:
            return self.consumer.whole
        if self._caller is None:
            shown = self._shown() or self._headers.get("authorization", "")
            self._caller = f"key:{_salted(shown)}" if shown else f"ip:{self.client_ip or ''}"
        return self._caller

    def prompt(self, model: str) -> Prompt | None:
        if model not in self.prompts:
            self.prompts[model] = self._peeked.prompt(seed_of(model, None))
        made = self.prompts[model]
        return None if made is None else made.prompt

    def header(self, name: str) -> str | None:
        return self._headers.get(name)

    def raw(self) -> list[tuple[bytes, bytes]]:
        """The headers as they came."""
        pairs = self._headers.items()
        return [
            (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")) for name, value in pairs
        ]

    def body(self, name: str) -> str | None:
        return self._peeked.body_field(name)

    def prefix(self, chars: int | None) -> bytes | None:
        return self._peeked.prefix(chars)

    def headers(self, names: Collection[str] | None) -> dict[str, str]:
        """Those of these names, or all, by lower-case name; one that came several times joined by commas (RFC 9110,
        section 5.3)."""
        given = self._headers
        found: dict[str, str] = {}
        for name in {name.lower() for name in given} if names is None else names:
            if values := given.getall(name, None):
                value = values[0] if len(values) == 1 else ", ".join(values)
                # Bytes that are no UTF-8 arrive as lone surrogates, which are no text.
                found[name] = value if value.isascii() else value.encode("utf-8", "replace").decode()
        return found

    def tools(self) -> bool:
        return asks.tools(self._peeked.values())

    def images(self) -> bool:
        return asks.images(self._peeked.values())

    def json(self) -> bool:
        return asks.wants_json(self._peeked.values())

    @property
    def asked(self) -> Asked:
        """The request as other APIs would have it said; read when that matters, and once."""
        if self._asked is None:
            self._asked = self._asked_with(self._said())
        return self._asked

    def _said(self) -> Mapping[str, Raw]:
        """The body of the message that is to be sent. Where its tokens are counted first it has no limit yet, which
        every message needs."""
        values = self._peeked.values()
        return {"max_tokens": _ANY, **values} if self._peeked.path.free else values

    def asked_under(self, clamped: Clamped | None) -> Asked:
        """The same with what a rule lowers."""
        if clamped is None:
            return self.asked
        if self._lowered is None or self._lowered[0] is not clamped:
            self._lowered = clamped, self._asked_with(clamped.values())
        return self._lowered[1]

    def _asked_with(self, values: Mapping[str, Raw]) -> Asked:
        from ..wire.translation.pairs import Asked  # a sidecar that translates nothing has none of it in memory

        return Asked(CLIENTS[self.path], values)

    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        return self.asked.uncarried(into, provider, model)

    def max_tokens(self) -> int:
        limit = min(max(0, asks.output_limit(self._peeked.values()) or 0), MOST_TOKENS)
        return limit if self._most is None else min(limit or self._most, self._most)

    def user(self) -> str:
        field = "metadata.user_id" if self._peeked.path.messages else "user"
        return self._peeked.body_field(field) or ""


def digest_of(key: str) -> bytes | None:
    """SHA-256 of a key that a client shows; None of an empty one."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() if key else None


def _salted(shown: str) -> str:
    return hashlib.blake2b(shown.encode("utf-8", "surrogateescape"), digest_size=16, key=_SALT).hexdigest()
