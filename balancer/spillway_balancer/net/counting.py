"""`POST /v1/messages/count_tokens`: how long a prompt would be, where nobody who knows is going to be asked.

Providers of Anthropic's API count exactly, so a request that leads to one is passed on. Elsewhere the balancer says
what it would itself go by: the bytes of the prompt's text, by how many of them a token has had in the pool's answers.
"""

from __future__ import annotations

import random
from time import monotonic, time

import msgspec

from ..core.apis import COUNTING, MESSAGES
from ..core.conditions import Moment
from ..core.planning import plan
from ..core.runtime import Runtime
from ..wire import canonical
from ..wire.peeked import Peeked
from .facts import Facts
from .telemetry import Decision

_encode = msgspec.json.encode


def estimated(runtime: Runtime, facts: Facts, peeked: Peeked, decision: Decision, dice: random.Random) -> bytes | None:
    """The answer, where the message itself would not go to a pool that counts; None where it would. Raises as the
    message's plan does."""
    facts.path = MESSAGES
    made = plan(runtime.routes, facts, Moment(monotonic(), time(), dice), facts.for_us)
    facts.path, facts.model = COUNTING, peeked.model
    decision.route, decision.model, decision.rule = made.route.name, made.model, made.rule
    if made.refused is not None:
        raise made.refused
    first = made.tiers[0].targets
    if any(target.pool.apis.serves(COUNTING) for target in first):
        return None
    whole = canonical.whole(peeked.values(), "messages")
    size = 0 if whole is None else len(whole.text.encode("utf-8", "replace"))
    tokens = round(size / first[0].pool.learned.bytes_per_token)
    decision.status = "ok"
    return _encode({"input_tokens": max(1, tokens)})
