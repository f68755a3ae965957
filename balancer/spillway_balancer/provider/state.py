"""One provider without its sockets: accounts, limits, caches, faults, books."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

from ..engine.faults import Scope, Switches
from .asked import Asked, Prompt, prompt
from .books import Books, Prices
from .counting import Cache, Counted
from .families import FAMILIES, Family
from .faults import Fault, where
from .keys import Key
from .quotas import Limits, Meter
from .refusals import Refusal
from .replies import Reply, reply


class Pace(NamedTuple):
    """How long an answer takes, in seconds: until its first token, and for each one."""

    first: float = 0.0
    token: float = 0.0


class Settings(NamedTuple):
    """What a provider is. Without `models` it has every one; `context` is the most tokens of a prompt."""

    type: str
    keys: tuple[Key, ...] = (Key("main", "fake-key"),)
    models: tuple[str, ...] = ()
    prices: tuple[tuple[str, Prices], ...] = ()
    limits: Limits = Limits()
    pace: Pace = Pace()
    context: int = 200_000
    faults: tuple[Fault, ...] = ()


class Served(NamedTuple):
    """A request that is going to be answered."""

    key: str
    asked: Asked
    reply: Reply
    counted: Counted
    reserved: int


class ProviderState:
    """Needs no loop: time is an argument, seconds of a clock that does not go back."""

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        self.family: Family = FAMILIES[settings.type]
        names = tuple(key.name for key in settings.keys)
        self.books = Books(names, dict(settings.prices))
        self.meters = {name: Meter(settings.limits, now) for name in names}
        self._caches = {name: Cache(self.family.cache) for name in names}
        self.switches: Switches[Fault] = Switches(settings.faults, now)
        self._ids = count(1)

    def next_id(self) -> str:
        number = next(self._ids)
        return f"req_{number:08d}" if self.family.auth != "amazon" else f"00000000-0000-4000-8000-{number:012d}"

    def strike(self, key: str, model: str, now: float) -> Fault | None:
        return self.switches.strike(Scope.REQUEST, where(key, model), now)

    def check(self, model: str) -> None:
        """A Refusal for a model that it does not have."""
        if self.settings.models and model not in self.settings.models:
            raise Refusal("model", f"The model `{model}` does not exist or you do not have access to it.")

    def prepare(self, key: str, asked: Asked, now: float) -> Served:
        """Count it, take it from the account's limits, and make its answer. Raises a Refusal."""
        made = prompt(asked)
        if made.tokens > self.settings.context:
            raise Refusal("context", self._too_long(made, asked))
        said = reply(asked, made)
        reserved = made.tokens + (said.output if asked.limit is None else min(asked.limit, 4096))
        self.meters[key].enter(reserved, now)
        counted = self._caches[key].count(asked.model, made, now)
        counted = counted._replace(output=said.output, reasoning=said.reasoning)
        return Served(key, asked, said, counted, reserved)

    def settle(self, served: Served, made: int, told: bool, now: float) -> None:
        """An answer of which `made` tokens were made is over. With none of them it is free."""
        if made or not served.reply.output:
            counted = served.counted._replace(output=made, reasoning=min(made, served.counted.reasoning))
            self.books.bill(served.key, served.asked.model, counted, told)
        else:
            self.books.refuse(served.key)
        self.meters[served.key].settle(served.reserved, served.counted.prompt + made, now)

    def clear(self) -> None:
        """Books and caches as at the start; limits and faults stay."""
        self.books.clear()
        self._caches = {name: Cache(self.family.cache) for name in self._caches}

    def set_faults(self, faults: Sequence[Fault], now: float) -> None:
        self.switches.set(faults, now)

    def shown_faults(self, now: float) -> list[dict[str, Any]]:
        return self.switches.shown(now)

    def _too_long(self, made: Prompt, asked: Asked) -> str:
        have, most = made.tokens, self.settings.context
        match self.family.type:
            case "anthropic":
                return f"prompt is too long: {have} tokens > {most} maximum"
            case "bedrock":
                return "Input is too long for requested model."
            case "gemini" | "vertex":
                return f"The input token count ({have}) exceeds the maximum number of tokens allowed ({most})."
            case "xai":
                return f"This model's maximum prompt length is {most} but the request contains {have} tokens."
            case "mistral":
                return f"Prompt contains {have} tokens, too large for model with {most} maximum context length"
        return (
            f"This model's maximum context length is {most} tokens. However, your messages resulted in {have} tokens."
        )
