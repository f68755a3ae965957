"""What an account may still be sent: by the limits that its owner sets, and by what its provider says is left.

A limit is a promise and is kept: an account that is at one takes nothing. What a provider says is a hint. Requests go
where more is left, before anybody has to answer 429; but headers may be wrong, and so they never close the last way:
one request at a time goes there, and who serves it is not believed for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from math import inf
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from spillway_api.types import AccountLimits

from .meters import Rate, Taken

if TYPE_CHECKING:
    from .endpoint import EndpointState
    from .pool import Pool

Kind = Literal["requests", "tokens", "input-tokens", "output-tokens"]
KINDS: Final[tuple[Kind, ...]] = ("requests", "tokens", "input-tokens", "output-tokens")
"""What providers count. `tokens` are those of prompts and answers together."""

Limit = Literal["requestsPerMinute", "tokensPerMinute", "maxInFlight"]


class Said(NamedTuple):
    """What a provider says of one kind, with an answer."""

    kind: Kind
    remaining: int
    reset: float
    """Seconds until all of it is back."""
    limit: int | None = None


class Sent(NamedTuple):
    """A request in the books of its account: what was sent until then, itself included, by estimate."""

    requests: int
    prompt: int
    output: int
    tokens: Taken | None

    def of(self, kind: Kind) -> int:
        if kind == "requests":
            return self.requests
        if kind == "input-tokens":
            return self.prompt
        return self.output if kind == "output-tokens" else self.prompt + self.output


class Heard(NamedTuple):
    """The last that was said of a kind."""

    remaining: int
    until: float
    """When it is reset: from then on nothing is known."""
    sent: int
    """Of the same kind, up to the request that was told: what has been sent since is gone, too."""
    at: int
    """Which request that was."""


NOT: Final = float("-inf")

DISBELIEF: Final = 10.0
"""Seconds for which headers are not believed that said nothing was left, when a request was served all the same."""


class Quota:
    """The books of one account. They outlive a reload, as all that is known of an endpoint does."""

    __slots__ = (
        "_believed",
        "_heard",
        "_limits",
        "_output",
        "_prompt",
        "_requests",
        "_sent",
        "_tokens",
        "_trial",
        "until",
    )

    def __init__(self) -> None:
        self._limits: AccountLimits | None = None
        self._requests: Rate | None = None
        self._tokens: Rate | None = None
        # Once there, a meter stays: who is under way gives back where it was counted.
        self._sent = self._prompt = self._output = 0
        self._heard: dict[Kind, Heard] = {}
        self._trial = 0
        self._believed = NOT
        self.until = NOT
        """When the request that was kept out last may come; infinite where never. Seconds, monotonic."""

    def limit(self, limits: AccountLimits | None) -> None:
        """These are in force now."""
        if limits != self._limits:
            self._limits = limits
            self.until = NOT
        if limits is None:
            return
        if limits.requests_per_minute is not None:
            self._requests = self._requests or Rate(limits.requests_per_minute)
            self._requests.limit = limits.requests_per_minute
        if limits.tokens_per_minute is not None:
            self._tokens = self._tokens or Rate(limits.tokens_per_minute)
            self._tokens.limit = limits.tokens_per_minute

    def forget(self) -> None:
        """Another credential: what was said was said of another account."""
        self._heard.clear()
        self.until = NOT

    @property
    def known(self) -> bool:
        """Whether anything of it is: limits, or what the provider says."""
        return self._limits is not None or bool(self._heard)

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a request uses."""
        return self._limits is not None and self._limits.tokens_per_minute is not None

    def take(self, now: float, prompt: int, output: int) -> Sent:
        """A request is on its way, whatever the limits say: it was asked before whether it may be. It may come to so
        many tokens."""
        left = self.left(prompt, output, now) if self._heard else None
        self._sent += 1
        if left is not None and left[0] < 1 and not self._trial:
            self._trial = self._sent
        self._prompt += prompt
        self._output += output
        if self._requests is not None:
            self._requests.take(now)
        tokens = None if self._tokens is None else self._tokens.take(now, prompt + output)
        return Sent(self._sent, self._prompt, self._output, tokens)

    def settle(self, sent: Sent, now: float, tokens: int) -> None:
        """It has come to so many. A second call changes nothing."""
        if sent.tokens is not None and self._tokens is not None:
            self._tokens.settle(sent.tokens, now, tokens)

    def answered(self, sent: Sent, said: Iterable[Said], ok: bool, now: float) -> None:
        """The answer to a request has begun and says what is left. One that was sent before the last that said so is
        no news. Where there was too little left and it went well, what was said was wrong."""
        if ok and sent.requests == self._trial:
            self._believed = now + DISBELIEF
            self._heard.clear()
            self.until = NOT
        self.ended(sent)
        if now < self._believed:
            return
        for each in said:
            last = self._heard.get(each.kind)
            if last is None or now >= last.until or sent.requests >= last.at:
                self._heard[each.kind] = Heard(each.remaining, now + each.reset, sent.of(each.kind), sent.requests)

    def ended(self, sent: Sent) -> None:
        """If it was the one that was sent though too little was left, another may go."""
        if sent.requests == self._trial:
            self._trial = 0

    @property
    def on_trial(self) -> bool:
        """Whether a request is there that was sent though too little was left, and is not answered."""
        return self._trial > 0

    def full(self, in_flight: int) -> bool:
        """Whether it holds as many requests as it may."""
        limits = self._limits
        return limits is not None and limits.max_in_flight is not None and in_flight >= limits.max_in_flight

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until the limits let a request of so many tokens in, if nobody else comes: 0 where they do now,
        infinite where they never will."""
        limits = self._limits
        if limits is None:
            return 0.0
        wait = 0.0
        if limits.requests_per_minute is not None and self._requests is not None:
            wait = self._requests.until_free(now)
        if limits.tokens_per_minute is not None and self._tokens is not None:
            wait = max(wait, self._tokens.until_free(now, tokens))
        return wait

    def left(self, prompt: int, output: int, now: float) -> tuple[float, float] | None:
        """How many such requests what is left would carry, by what the provider says, and the seconds until that is
        reset; of several kinds the scarcest. None where nothing is known."""
        found: tuple[float, float] | None = None
        for kind, heard in self._heard.items():
            if now < heard.until:
                need = Sent(1, prompt, output, None).of(kind)
                carries = self._left(kind, heard) / need if need > 0 else inf
                if found is None or carries < found[0]:
                    found = carries, heard.until - now
        return found

    def remaining(self, now: float) -> Iterator[tuple[Kind, int]]:
        """What is left by what the provider says, less what has been sent since."""
        for kind, heard in self._heard.items():
            if now < heard.until:
                yield kind, max(0, self._left(kind, heard))

    def used_percent(self, in_flight: int, now: float) -> dict[Limit, float]:
        """How much of each limit there is is used, what is under way included."""
        found: dict[Limit, float] = {}
        limits = self._limits
        if limits is None:
            return found
        if limits.requests_per_minute is not None and self._requests is not None:
            found["requestsPerMinute"] = self._requests.used_percent(now)
        if limits.tokens_per_minute is not None and self._tokens is not None:
            found["tokensPerMinute"] = self._tokens.used_percent(now)
        if limits.max_in_flight is not None:
            found["maxInFlight"] = 100.0 * in_flight / limits.max_in_flight
        return found

    def _left(self, kind: Kind, heard: Heard) -> int:
        return heard.remaining - (Sent(self._sent, self._prompt, self._output, None).of(kind) - heard.sent)


class PassedOver(NamedTuple):
    """Accounts that are to take no request now, and whether some are for being full, or at a limit of a minute."""

    accounts: Collection[EndpointState]
    full: bool
    limited: bool


_NOBODY: Final = PassedOver((), False, False)


def passed_over(pool: Pool, prompt: int, output: int, exclude: Collection[EndpointState], now: float) -> PassedOver:
    """The accounts of a pool that a request of so many tokens is not to be sent to."""
    for each in pool.endpoints.values():
        if each.quota is not None and each.quota.known:
            break
    else:
        return _NOBODY
    closed: set[EndpointState] = set()
    low: list[tuple[float, float, str, EndpointState]] = []
    full = limited = others = False
    for name, endpoint in pool.endpoints.items():
        quota = endpoint.quota
        if quota is None or endpoint in exclude:
            continue
        usable = pool.usable(endpoint, now)
        quota.until = NOT
        wait = quota.wait(prompt + output, now)
        if wait > 0:
            quota.until = now + wait
            closed.add(endpoint)
            limited = limited or usable
        elif quota.full(pool.requests_at(endpoint, now)):
            closed.add(endpoint)
            full = full or usable
        elif usable:
            left = quota.left(prompt, output, now)
            if left is None or left[0] >= 1:
                others = True
            else:
                low.append((max(0.0, left[0]), -left[1], name, endpoint))
                quota.until = now + left[1]
    if low and not others:  # the one with most left; of those with nothing, the first to have some again
        last = max(low, key=lambda each: each[:3])
        quota = last[-1].quota
        if any(each[-1].quota is not None and each[-1].quota.on_trial for each in low):
            limited = True
        elif quota is not None:
            low.remove(last)
            quota.until = NOT
    closed.update(each[-1] for each in low)
    return PassedOver(closed, full, limited)
