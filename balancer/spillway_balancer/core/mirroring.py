"""Copies of requests: which are made, and which endpoint gets one. What becomes of a copy changes nothing for its
caller; it occupies its endpoint and teaches its load like any other request."""

from __future__ import annotations

import random
from typing import Final

from xxhash import xxh3_64_intdigest

from .apis import COUNTING, MESSAGES
from .capabilities import Needs, beyond
from .conditions import Asked
from .entering import share_of_fund
from .errors import BadRequest
from .limits import Permit
from .pool import Picked, Want
from .reasons import Reason
from .routing import Route, Target
from .steps import Facts, Try

NAME: Final = "mirror"
"""In the place of a tier's name."""

KEPT: Final = frozenset({"/v1/responses", COUNTING})
"""Paths on which a server may keep what it is asked, or act on it by itself (stored responses, tools that it calls).
What is to happen once must not be copied, and what refers to something kept would not find it at the mirror. And how
long a prompt is no copy has to find out."""

_COPIED: Final = xxh3_64_intdigest(b"mirror")


def copied(route: Route, asked: Asked, dice: random.Random) -> Target | None:
    """Where a copy of this request goes; None when none is made of it.

    Sessions are copied whole, by their key as the mirror's pool reads it, or else its prefix caches would be asked for
    turns of which they have not seen the ones before. A greater percentage copies those of a smaller one and more.
    Requests without a key fall to the dice.
    """
    target, spec = route.mirror, route.spec.mirror
    if target is None or spec is None or spec.percent <= 0 or asked.path in KEPT:
        return None
    if spec.percent < 100:
        key = target.pool.key(asked)
        place = dice.random() if key is None else place_of(key)
        if place * 100 >= spec.percent:
            return None
    says = target.pool.declares or asked.path == MESSAGES
    return None if says and _beyond(target, asked) else target


def _beyond(target: Target, asked: Asked) -> bool:
    """Whether the mirror's model says itself that it cannot serve this request: it would measure its refusals."""
    if not target.pool.apis.serves(asked.path):
        return True
    model = target.pool.model(asked.model, target.model)
    needs = Needs(asked)
    if model is None:
        return False
    try:
        return bool(beyond(target.pool, model, needs)) or needs.room(model, target.pool) == "too small"
    except BadRequest:
        return True


def place_of(key: int) -> float:
    """0 to 1. Hashed once more, so that it has nothing in common with the key's `bucket`, ring place or pool."""
    return xxh3_64_intdigest(key.to_bytes(8, "little"), _COPIED) / 2.0**64


def aim(target: Target, facts: Facts, now: float, epoch: float, dice: random.Random) -> Try | Reason:
    """The endpoint for a copy, or why there is none. It is sent once, and tried nowhere else. `epoch` makes Unix time
    of `now`. No limit of a tier counts copies; a budget of the pool does, for a copy costs what a request does.

    Endpoints that are ejected or just coming back get none: the trial that lets them back is a caller's to make.
    """
    pool = target.pool
    model = pool.model(facts.model, target.model)
    if model is None:
        return "model-not-found"
    name = model.upstream_name or model.name
    prompt = facts.prompt(name) if pool.wants_prompt else None
    want = Want(pool.key(facts), facts.prompt_tokens, facts.output_tokens, prompt, facts.streams, name)
    fund, cost = pool.fund, share_of_fund(facts, pool, model)
    if fund is not None and fund.until_free(now + epoch, cost) > 0:
        return "budget"
    suspect = {each for each in pool.endpoints.values() if each.circuit.ejected_until is not None}
    picked = pool.pick(want, suspect, now, dice)
    if not isinstance(picked, Picked):
        return picked
    permit = None if model.price is None else Permit(model, epoch)
    if fund is not None and permit is not None:
        permit.draws(fund.money, fund.hold(now + epoch, cost))
    return Try(NAME, pool, picked, name, spilled=False, permit=permit, into=pool.apis.into(facts.path, name))
