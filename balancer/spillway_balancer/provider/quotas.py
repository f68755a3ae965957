"""Limits of an account per minute, enforced as the providers do it, and the headers that tell what is left of them.

A bucket holds a minute's worth and fills again evenly (Anthropic "Rate limits": token bucket; OpenAI's resets are the
time until it is full). Tokens are taken by what the prompt has and the answer may have, as OpenAI says it estimates,
and given back once the answer is known. Time is an argument: seconds of a clock that does not go back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from .refusals import Refusal


class Limits(NamedTuple):
    """A minute's worth for one key; None is without limit, which some families tell as a large number."""

    requests: int | None = None
    tokens: int | None = None


class Bucket:
    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self._level = float(size)
        self._at = now

    def level(self, now: float) -> float:
        self._level = min(self.size, self._level + max(0.0, now - self._at) * self.size / 60)
        self._at = max(self._at, now)
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until it holds so much; 0 when it does now."""
        return max(0.0, (min(amount, self.size) - self.level(now)) * 60 / self.size)

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def full_in(self, now: float) -> float:
        return (self.size - self.level(now)) * 60 / self.size


class Meter:
    """The limits of one key."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._requests = Bucket(limits.requests, now) if limits.requests else None
        self._tokens = Bucket(limits.tokens, now) if limits.tokens else None

    def enter(self, tokens: int, now: float) -> None:
        """Take a request and its tokens, or refuse it, with the wait."""
        for bucket, amount, what in ((self._requests, 1, "requests"), (self._tokens, tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait(amount, now)) > 0:
                said = f"Rate limit reached on {what} per min: Limit {bucket.size}, Used {bucket.size}, "
                said += f"Requested {amount}. Please try again in {wait:.3f}s."
                raise Refusal("rate-limited", said, retry_after=wait)
        for bucket, amount in ((self._requests, 1), (self._tokens, tokens)):
            if bucket is not None:
                bucket.take(amount, now)

    def settle(self, reserved: int, used: int, now: float) -> None:
        """The answer has the tokens that it has."""
        if self._tokens is not None:
            self._tokens.take(used - reserved, now)

    def openai(self, now: float, wall: float) -> dict[str, str]:
        headers = {}
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                headers[f"x-ratelimit-limit-{kind}"] = str(bucket.size)
                headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level(now))))
                headers[f"x-ratelimit-reset-{kind}"] = spell(bucket.full_in(now))
        return headers

    def azure(self, now: float, wall: float) -> dict[str, str]:
        """As OpenAI; what has no limit is told as -1, or as 0 left of an unnamed limit."""
        headers = self.openai(now, wall)
        if self._requests is None:
            headers |= {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"}
        if self._tokens is None:
            headers["x-ratelimit-remaining-tokens"] = "0"
        return headers

    def anthropic(self, now: float, wall: float) -> dict[str, str]:
        """Resets are RFC 3339 times, in whole seconds; a limit of tokens is told for both directions together."""
        headers = {}
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                reset = datetime.fromtimestamp(-int(-(wall + bucket.full_in(now)) // 1), UTC)
                headers[f"anthropic-ratelimit-{kind}-limit"] = str(bucket.size)
                headers[f"anthropic-ratelimit-{kind}-remaining"] = str(max(0, int(bucket.level(now))))
                headers[f"anthropic-ratelimit-{kind}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def silent(self, now: float, wall: float) -> dict[str, str]:
        """Gemini, Vertex AI and Bedrock tell nothing."""
        return {}


def spell(seconds: float) -> str:
    """As OpenAI: 6m0s, 1.2s, 20ms."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.3g}s"
