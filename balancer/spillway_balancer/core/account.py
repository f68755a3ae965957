"""The account of one request as values: what was asked, what was decided at each step, and where it went.

Names and numbers, and no content of the request. `explanation` makes it, `spillway explain --json` prints it.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from spillway_api.types import Clamp

NO_MODEL: Final = "no-such-model"
"""Why a pool is passed over that has no model for the request."""

Held = Literal["holds", "does not hold", "missing", "error", "not asked", "chosen by the caller"]


class RuleAsked(Struct, frozen=True, rename="camel"):
    """What became of a rule: `missing` is an entry that is not there, such as an absent header; `error` any other."""

    name: str
    when: str | None
    result: Held


SIGNALS: Final = {
    "queued": "queuedPerEndpoint",
    "in_flight": "inFlightPerEndpoint",
    "ttft": "predictedTTFT",
    "kv_percent": "kvCachePercent",
    "error_percent": "errorPercent",
}
"""As `spill` of a tier names them."""


class GuardAsked(Struct, frozen=True, rename="camel"):
    """What became of a guard. All are asked, unless the key is refused; with `missing` and `error` it has no value, and
    so holds."""

    name: str
    when: str | None
    result: Held


class NotUsed(Struct, frozen=True, rename="camel"):
    """A pool of a tier that the request must not reach."""

    tier: str
    pool: str
    why: str


class Signal(Struct, frozen=True, rename="camel"):
    """One reason to spill: nothing leaves up to `start`, everything from `full` on."""

    name: str
    value: float | None
    """Seconds for a time; None is unknown, and sends nobody away."""
    start: float
    full: float


class Spilled(Struct, frozen=True, rename="camel", tag="spill"):
    """The share of the requests that load was sending away from a tier."""

    tier: str
    share: float
    by: str
    leaves: bool
    """Whether this request is of the share."""
    signals: tuple[Signal, ...]


class EndpointSeen(Struct, frozen=True, rename="camel"):
    """One endpoint of a pool at the moment of the choice."""

    name: str
    state: str
    """`ready`, or why it cannot be chosen."""
    weight: int
    requests: int
    """In flight there."""
    queued_tokens: float | None = None
    """Prompt tokens to be computed before this request; this and the next two where the strategy reads caches."""
    cached_tokens: float | None = None
    ttft: float | None = None
    """Predicted seconds to the first token of this request."""
    rate: float | None = None
    """Prompt tokens a second, as learned; None before any was seen, when a first guess stands in."""
    cost: float | None = None
    """What the strategy compares, where that is one number."""


class Looked(Struct, frozen=True, rename="camel", tag="look"):
    """A pool was asked for an endpoint."""

    tier: str
    pool: str
    weight: int
    """Of the pool in its tier."""
    strategy: str
    select: str = ""
    """How the tier chooses among its pools, where it does by a score."""
    score: float | None = None
    """Of this pool: what it costs, in its currency; seconds; seconds a token; or what its quality lacks to 100. Less is
    better, None is unknown."""
    endpoints: tuple[EndpointSeen, ...] = ()
    chosen: str | None = None
    limits: dict[str, float] = {}
    """Of the tier: how much of each is used, in percent."""
    reason: str = ""
    """Why that endpoint, in the strategy's word; else why none."""


class Left(Struct, frozen=True, rename="camel", tag="leave"):
    """A tier was left, or would have been if there were a next one that may be entered for this reason."""

    tier: str
    reason: str
    onward: bool


class Attempted(Struct, frozen=True, rename="camel", tag="attempt"):
    """The request was sent there, and failed as was assumed."""

    tier: str
    pool: str
    endpoint: str
    failure: str


class Waited(Struct, frozen=True, rename="camel", tag="wait"):
    """It waits before it goes on."""

    tier: str
    seconds: float
    why: str


class Queued(Struct, frozen=True, rename="camel", tag="queue"):
    """Every way is closed, and one of them will open: it waits in the queue."""

    tier: str
    seconds: float
    """Until the first way opens, where that is known; else the longest that it waits."""
    known: bool
    cold: bool = False
    """It waits for a pool that is scaled to zero."""


Step = Spilled | Looked | Left | Attempted | Waited | Queued


class Served(Struct, frozen=True, rename="camel", tag="served"):
    """Where the request goes."""

    tier: str
    pool: str
    endpoint: str
    upstream_model: str
    spilled: bool
    """To another tier than the first."""
    reason: str
    attempt: int
    prompt_tokens: float
    """An estimate, by what the pool has learned of its tokens."""
    cached_tokens: float | None
    ttft: float | None
    learned: bool
    """Whether `ttft` rests on first tokens that were seen; else on a first guess of the rate."""
    hedged_after: float | None = None
    """Seconds without a first token after which a second attempt is sent beside it, within the tier's `hedge`."""
    translated: str | None = None
    """The API into which it is translated; None where it goes as it came."""


class Refused(Struct, frozen=True, rename="camel", tag="refused"):
    """What the client is told instead."""

    status: int
    code: str
    """Of the error in OpenAI's shape; the reason where an endpoint's own answer goes on to the client."""
    message: str
    retry_after: float | None = None
    attempts: tuple[str, ...] = ()


class Shadowed(Struct, frozen=True, rename="camel"):
    """What a policy in Shadow would do; empty from where on it would do nothing."""

    policy: str
    rule: str
    tier: str
    pool: str
    upstream_model: str


class Explanation(Struct, frozen=True, rename="camel"):
    """The whole account of one request."""

    model: str
    path: str
    stream: bool
    prompt_tokens: int
    """An estimate: bytes of text / 4."""
    output_tokens: int
    """The most that may be generated, as far as the request says."""
    outcome: Served | Refused
    policy: str = ""
    """Empty where no policy has the model."""
    matched: str = ""
    """The name or pattern of the policy that the model matched."""
    key: str = ""
    """Where the key of the session was found, as the policy's first pool reads it; empty when the request has none."""
    bucket: int | None = None
    """Of the key; a request without one draws one."""
    guards: tuple[GuardAsked, ...] = ()
    rules: tuple[RuleAsked, ...] = ()
    rule: str = ""
    tiers: tuple[str, ...] = ()
    """Of the rule, as far as the request may use them, in order."""
    left_out: tuple[NotUsed, ...] = ()
    """Pools of the rule that are kept from it, before anything is chosen."""
    clamp: Clamp | None = None
    """What the rule lowers of the request, where it asks for more."""
    consumer: str = ""
    """Who asks, where the policy knows its callers: namespace/name."""
    used: dict[str, float] = {}
    """Of the limits of who asks: how much of each, in percent, before this request."""
    mirror: str = ""
    """The pool that a copy goes to."""
    shadows: tuple[Shadowed, ...] = ()
    """What policies in Shadow for this model would do."""
    steps: tuple[Step, ...] = ()
    header: str = ""
    """What `x-spillway-explain: 1` would answer."""
