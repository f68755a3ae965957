"""Which targets can serve a request at all: what it needs, against what their models declare to have.

A model that names no capability is taken to have all; one that names some has these and no others, so that `Chat` alone
is a model without tools. What a request needs is read from its body, and only where some model declares what it has.

The length of a prompt is an estimate, so it refuses nobody. A target that may be too small is one that a request is not
sent on to, with margin; but where it begins it goes, and the engine answers itself, unless a target beside it has more
room or the next tier may be entered for `ContextLength`.

What a provider does not serve of the API, no model of its pool is asked for. Where a request is translated for a pool,
a field that the pool's API has no words for leaves it out in the same way.

What a tier asks of its models (`minQualityPercent`, `maxCost`) leaves targets out in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Protocol

from spillway_api.providers import Api
from spillway_api.snapshot import RouteTier
from spillway_api.types import Capability, Model, Price

from . import selecting
from .apis import TALKS
from .errors import BadRequest, NoCapableTarget
from .narrowing import alone
from .pool import Pool
from .routing import Target, Tier

KINDS: Final[dict[str, Capability]] = {
    "/v1/chat/completions": "Chat",
    "/v1/completions": "Completions",
    "/v1/responses": "Responses",
    "/v1/messages": "Messages",
    "/v1/messages/count_tokens": "Messages",
    "/v1/embeddings": "Embeddings",
    "/v1/rerank": "Rerank",
    "/v1/score": "Score",
    "/v1/audio/transcriptions": "Transcription",
    "/v1/audio/translations": "Transcription",
    "/v1/audio/speech": "Speech",
    "/v1/images/generations": "Images",
    "/v1/images/edits": "Images",
    "/v1/images/variations": "Images",
}
"""What a model must have to be asked there. A path that is not here (moderations) needs nothing."""

_OF_ONE_PROMPT: Final = frozenset({"Chat", "Completions", "Responses", "Messages"})
"""Others send many texts at once, whose sum says nothing of the window each has to fit."""

MARGIN: Final = 1.25
"""By as much may an estimated prompt be longer than it seems, or shorter."""

Room = Literal["enough", "doubtful", "too small"]


class Asks(selecting.Sized, Protocol):
    """What a request tells of its needs. The methods read its body."""

    @property
    def path(self) -> str: ...
    def tools(self) -> bool: ...
    def images(self) -> bool: ...
    def json(self) -> bool: ...
    @property
    def thorough(self) -> bool:
        """Whether all tiers are to be looked at for what can be told there, and not only the first: see `untold`."""
        ...

    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        """Fields that cannot be said in this API to this type of provider; None is an endpoint of our own. Raises a
        BadRequest where the request cannot be understood."""
        ...


_READERS: Final[dict[Capability, Callable[[Asks], bool]]] = {
    "Tools": lambda asks: asks.tools(),
    "Vision": lambda asks: asks.images(),
    "StructuredOutput": lambda asks: asks.json(),
}


class Needs:
    """What a request needs of a model, found out when a model's declaration makes it matter, and once."""

    __slots__ = ("_asks", "_limit", "_most", "_read")

    def __init__(self, asks: Asks, most: int | None = None) -> None:
        self._asks = asks
        self._most = most
        self._read: dict[Capability, bool] = {}
        self._limit: int | None = None

    def beyond(self, declared: Collection[Capability]) -> tuple[Capability, ...]:
        """What it needs that is not among these: the API that it speaks first, then what it asks for there. Only what
        they lack is looked for in its body."""
        kind = KINDS.get(self._asks.path)
        talks = kind in TALKS and not TALKS.isdisjoint(declared)
        missing: list[Capability] = [] if kind is None or kind in declared or talks else [kind]
        return (*missing, *(each for each in _READERS if each not in declared and self._asks_for(each)))

    def unsaid(self, model: Model, pool: Pool) -> tuple[str, ...]:
        """Fields of the request that are lost on the way to this model; none where it goes there as it came. Raises a
        BadRequest for what cannot be translated at all."""
        name = model.upstream_name or model.name
        into = pool.apis.into(self._asks.path, name)
        return () if into is None else self._asks.uncarried(into, pool.spec.provider, name)

    def _asks_for(self, capability: Capability) -> bool:
        if capability not in self._read:
            self._read[capability] = _READERS[capability](self._asks)
        return self._read[capability]

    def room(self, model: Model, pool: Pool) -> Room:
        """Whether prompt and answer fit into the model's window, as tokens of this pool are known to be. An answer
        without a limit takes what is left: engines see to that themselves."""
        window = model.context_window
        if window is None or KINDS.get(self._asks.path) not in _OF_ONE_PROMPT:
            return "enough"
        prompt, answer = selecting.prompt_tokens(pool, self._asks), self.limit
        if prompt * MARGIN + answer <= window:
            return "enough"
        return "doubtful" if prompt / MARGIN + answer <= window else "too small"

    @property
    def limit(self) -> int:
        """Tokens of an answer, as the request or its rule limits them; 0 where neither does."""
        if self._limit is None:
            asked = self._asks.max_tokens()
            self._limit = asked if self._most is None else min(asked or self._most, self._most)
        return self._limit

    def cost(self, price: Price, pool: Pool) -> Decimal:
        """Expected of it, and nothing of its prompt cached."""
        return selecting.full_cost(price, pool, self._asks, self.limit)


def lacks(model: Model, needs: Needs) -> tuple[Capability, ...]:
    """What the request needs and the model declares not to have."""
    return needs.beyond(model.capabilities) if model.capabilities else ()


def beyond(pool: Pool, model: Model, needs: Needs) -> tuple[str, ...]:
    """All that keeps the request from the model. Raises a BadRequest for what cannot be translated for it."""
    return lacks(model, needs) or needs.unsaid(model, pool)


def _short(tier: RouteTier, target: Target, model: Model, needs: Needs) -> str | None:
    """What the tier asks of its models beside, and this one does not have."""
    least, most = tier.min_quality_percent, tier.max_cost
    if least is not None and (model.quality_percent is None or model.quality_percent < least):
        return "quality unknown" if model.quality_percent is None else f"quality {model.quality_percent} below {least}"
    if most is not None:
        if model.price is None or model.price.currency != most.currency:
            return f"no price in {most.currency}"
        if needs.cost(model.price, target.pool) > Decimal(most.amount):
            return f"expected cost above {most.amount} {most.currency}"
    return None


class LeftOut(NamedTuple):
    """A target that a request must not reach, and why."""

    tier: str
    pool: str
    why: str

    def __str__(self) -> str:
        return f"{self.tier} {self.pool}: {self.why}"


class Able(NamedTuple):
    """What is left of a rule's tiers for a request."""

    tiers: tuple[Tier, ...]
    left_out: tuple[LeftOut, ...] = ()
    refused: BadRequest | None = None
    """Where none is left."""


def able(tiers: tuple[Tier, ...], asks: Asks, cut: Cut, most: int | None = None) -> Able:
    """The tiers with those targets only that can serve the request; a tier of which none is left is not there. Where
    every one declares that it cannot, no tier is.

    `cut` makes a tier of some of its targets. `most`: tokens of an answer, whatever the request asks for.
    """
    needs = Needs(asks, most)
    out: list[LeftOut] = []
    missing: dict[str, None] = {}
    unread: BadRequest | None = None
    kept: _Rooms = []
    for tier in tiers:
        rooms: list[tuple[Target, Room]] = []
        for target in tier.targets:
            if not target.pool.apis.serves(asks.path):
                missing[KINDS.get(asks.path, asks.path)] = None
                who = "its provider has no" if target.pool.apis.paths is not None else "its endpoints are not asked for"
                out.append(LeftOut(tier.spec.name, target.pool.name, f"{who} {asks.path}"))
                continue
            model = target.pool.model(asks.model, target.model)
            if model is None:
                rooms.append((target, "enough"))
                continue
            why: str | None
            try:
                lacking: tuple[str, ...] = lacks(model, needs)
                if lacking:
                    why = f"has no {', '.join(lacking)}"
                elif (not kept or asks.thorough) and (lacking := needs.unsaid(model, target.pool)):
                    why = f"cannot be told {', '.join(lacking)}"
                else:
                    why = _short(tier.spec, target, model, needs)
                missing |= dict.fromkeys(lacking)
            except BadRequest as error:
                unread, why = error, f"cannot be translated for: {error.code}"
            if why is None:
                rooms.append((target, needs.room(model, target.pool)))
            else:
                out.append(LeftOut(tier.spec.name, target.pool.name, why))
        if takes(tier, (target for target, _ in rooms)):
            kept.append((tier, rooms))
    if any(room != "enough" for _, rooms in kept for _, room in rooms):
        kept = _roomy(kept, out)
    if not kept and unread is not None and not missing:
        return Able((), tuple(out), unread)
    return Able(_tiers(kept, tiers, cut), tuple(out), None if kept else _refusal(tuple(missing), out))


def _refusal(missing: tuple[str, ...], out: list[LeftOut]) -> NoCapableTarget:
    if missing:
        why = f"can do all that the request needs: {', '.join(missing)}"
    elif any(each.why.startswith("expected cost") for each in out):
        why = "is expected to serve the request for as little as its policy asks for"
    else:
        why = "has the quality and the price that its policy asks for"
    return NoCapableTarget(f"no model behind this name {why}", param="model", attempts=tuple(map(str, out)))


Cut = Callable[[Tier, tuple[Target, ...]], Tier]
_Rooms = list[tuple[Tier, list[tuple[Target, Room]]]]


def _roomy(kept: _Rooms, out: list[LeftOut]) -> _Rooms:
    """Those that a request of this length may be sent on to, behind where it begins."""

    def narrowed(tier: Tier, rooms: list[tuple[Target, Room]], fit: tuple[Room, ...]) -> list[tuple[Target, Room]]:
        out.extend(
            LeftOut(tier.spec.name, target.pool.name, f"context window {room}")
            for target, room in rooms
            if room not in fit
        )
        return [each for each in rooms if each[1] in fit]

    (home, at_home), *behind = kept
    onward = [(tier, narrowed(tier, rooms, ("enough",))) for tier, rooms in behind]
    onward = [(tier, rooms) for tier, rooms in onward if takes(tier, (target for target, _ in rooms))]
    beside = [each for each in at_home if each[1] != "too small"]
    elsewhere = bool(onward) and "ContextLength" in onward[0][0].spec.enter_on
    if takes(home, (target for target, _ in beside)) or elsewhere:
        at_home = narrowed(home, at_home, ("enough", "doubtful"))
    return [(home, at_home), *onward] if takes(home, (target for target, _ in at_home)) else onward


def takes(tier: Tier, targets: Iterable[Target]) -> bool:
    """Whether these of its targets are any that take requests. Where the tier's own had no weight, or order alone
    decides, none needs it."""
    left = list(targets)
    weighs = tier.spec.select != "InOrder" and any(each.weight for each in tier.targets)
    return any(target.weight for target in left) if weighs else bool(left)


def _tiers(kept: _Rooms, all_of_them: tuple[Tier, ...], cut: Cut) -> tuple[Tier, ...]:
    left = [
        tier if len(rooms) == len(tier.targets) else cut(tier, tuple(target for target, _ in rooms))
        for tier, rooms in kept
    ]
    if kept and kept[-1][0] is not all_of_them[-1]:  # with those behind it gone, it has nowhere to spill to
        left[-1:] = alone(left[-1])
    return tuple(left)
