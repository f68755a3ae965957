"""What a request does next: send itself somewhere, wait a moment, or give up; and what such a step needs to know."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from spillway_api.providers import Api
from spillway_api.types import Price

from .endpoint import EndpointState
from .errors import SpillwayError
from .keys import KeyFacts
from .limits import Permit
from .pool import Picked, Pool
from .prefix import Prompt
from .reasons import Reason


class Facts(KeyFacts, Protocol):
    """What an attempt needs to know of a request."""

    @property
    def model(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def streams(self) -> bool: ...
    def prompt(self, model: str) -> Prompt | None: ...
    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]: ...
    def max_tokens(self) -> int:
        """The client's own limit on the answer; 0 without one. Reads the body."""
        ...


class Try(NamedTuple):
    """Send the request to this endpoint."""

    tier: str
    pool: Pool
    picked: Picked
    upstream_model: str
    spilled: bool  # another tier than the first
    shares: tuple[tuple[str, float], ...] = ()
    """What was leaving the tiers that spill, of those that were asked, when they were: 0 to 1."""
    left: Reason | None = None
    """Why the first tier was left; None when this is it."""
    permit: Permit | None = None
    """To be settled when the attempt has ended, on every path; None where nothing is counted."""

    into: Api | None = None
    """What the request is translated into for this pool; None where it goes as it came."""

    @property
    def endpoint(self) -> EndpointState:
        return self.picked.endpoint

    @property
    def price(self) -> Price | None:
        """Of the model, where it has one."""
        if self.permit is not None:
            return self.permit.price
        models = self.pool.spec.models
        return next((each.price for each in models if (each.upstream_name or each.name) == self.upstream_model), None)


class Wait(NamedTuple):
    """Do nothing for so many seconds, then ask for the next step again. Never reaches past the request's deadline."""

    seconds: float
    why: str
    """In words for the list of attempts and for who asks."""


class Stop(NamedTuple):
    """Give up. `answer` means: the last endpoint's own answer is the most informative one."""

    error: SpillwayError
    answer: bool = False
    may_wait: bool = False
    """A way that is closed will open again: the request may wait in the queue, `reopen`, and ask for the next step."""
    opens_in: float | None = None
    """Seconds until the first way opens, where that is known."""
    cold: bool = False
    """It is scaled to zero, and will take minutes."""
    spills_in: float | None = None
    """Seconds for which it is held for that; then it is to ask again, whether it is its turn or not."""


Step = Try | Wait | Stop
