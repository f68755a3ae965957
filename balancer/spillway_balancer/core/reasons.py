"""Why an attempt failed, as a closed set, and what each reason allows: the table of docs/reasons.md as data.

A reason is a metric label, an entry in the list of attempts, and (by its class) what a tier's `enterOn` names.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Reason = Literal[
    "saturated",
    "wait-predicted",
    "no-ready-endpoint",
    "rate-limited",
    "quota-exhausted",
    "overloaded",
    "server-error",
    "connect",
    "first-byte-timeout",
    "stall",
    "interrupted",
    "circuit-open",
    "auth",
    "model-not-found",
    "context-length",
    "content-policy",
    "budget",
    "bad-request",
    "deadline",
    "client-gone",
]

Class = Literal["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy", "Budget"]


Repeat = Literal["never", "once", "after its Retry-After"]


class Treatment(NamedTuple):
    """What follows from a reason. A request never tries an endpoint that has failed it while anything else is left."""

    elsewhere: bool  # another endpoint of the same tier may be tried
    counts: bool  # the endpoint's circuit counts it as a failure
    enters: Class | None  # the class that the next tier's `enterOn` must name
    answer_as_is: bool = False  # the endpoint's own answer is the client's answer when nothing else is tried
    by_status: bool = False  # `retry.retryStatusCodes` decides on it, where there is a status
    again: Repeat = "never"  # whether the same endpoint may be asked again when no other is left


REASONS: dict[Reason, Treatment] = {
    "saturated": Treatment(True, False, "Capacity"),
    "wait-predicted": Treatment(True, False, "Capacity"),
    "no-ready-endpoint": Treatment(True, False, "Capacity"),
    "rate-limited": Treatment(True, False, "Capacity", by_status=True, again="after its Retry-After"),
    "quota-exhausted": Treatment(True, False, "Capacity"),
    "overloaded": Treatment(True, True, "Transient", by_status=True, again="once"),
    "server-error": Treatment(True, True, "Transient", by_status=True, again="once"),
    "connect": Treatment(True, True, "Transient"),
    "first-byte-timeout": Treatment(True, True, "Transient"),
    "stall": Treatment(True, True, "Transient"),
    "interrupted": Treatment(False, True, None),
    "circuit-open": Treatment(True, False, "Transient"),
    "auth": Treatment(True, False, "Auth"),
    "model-not-found": Treatment(False, False, "Config"),
    "context-length": Treatment(False, False, "ContextLength", answer_as_is=True),
    "content-policy": Treatment(False, False, "ContentPolicy", answer_as_is=True),
    "budget": Treatment(True, False, "Budget"),
    "bad-request": Treatment(False, False, None, answer_as_is=True),
    "deadline": Treatment(False, False, None),
    "client-gone": Treatment(False, False, None),
}

STANDS_FOR: Final = {408: 504, 409: 503, 424: 502, 498: 503}
"""Statuses by which some providers say what most say by another; who names that one for retries means both."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded", "billing_error"})
_CONTEXT = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_CONTENT = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_KEY = frozenset({"invalid_api_key"})
_NO_MODEL = frozenset({"model_not_found"})
_OVERLOADED = frozenset({"overloaded_error", "server_overloaded", "slow_down"})


def of_status(status: int, code: str | None = None, kind: str | None = None) -> Reason:
    """Reason for an HTTP error status and the `code` and `type` of its body, where it has them."""
    if status == 402 or (status in (400, 403, 429) and (code in _QUOTA or kind in _QUOTA)):  # 400 is Anthropic's
        return "quota-exhausted"
    if status == 429:
        return "rate-limited"
    if status == 403 and code in _CONTENT:  # OpenRouter's and xAI's: the prompt was refused, not the account
        return "content-policy"
    if status == 403 and code in _NO_MODEL:  # OpenAI's and Bedrock's: the account may not use it, and can do others
        return "model-not-found"
    if status in (401, 403) or (status == 400 and code in _KEY):  # Gemini and xAI say so with a 400
        return "auth"
    if status == 404 or (status == 400 and code in _NO_MODEL):
        return "model-not-found"
    if code in _CONTEXT or kind in _CONTEXT:
        return "context-length"
    if code in _CONTENT:
        return "content-policy"
    if status in (498, 503, 529) or code in _OVERLOADED or kind in _OVERLOADED:
        return "overloaded"
    if status >= 500 or status in (408, 409, 424):
        return "server-error"
    return "bad-request"


_LIMITED = frozenset({"rate_limit_exceeded", "rate_limit_error"})
_OF_ACCOUNT = _KEY | {"authentication_error", "permission_error"}


def status_of(code: str | None, kind: str | None) -> int:
    """The status that an error in the place of an answer stands for: a stream that began with a 200 has none to say."""
    said = {code, kind}
    if not said.isdisjoint(_QUOTA | _LIMITED):
        return 429
    if not said.isdisjoint(_OF_ACCOUNT):
        return 401
    return 503 if not said.isdisjoint(_OVERLOADED) else 500


class Failure(NamedTuple):
    """How an attempt failed, before anything of its answer reached the client."""

    reason: Reason
    status: int | None = None  # the endpoint's HTTP status, where there was one
    retry_after: float | None = None  # seconds
    retry_on: Literal["ConnectError", "Reset", "FirstByteTimeout"] | None = None  # as `retry.retryOn` names it
    why: str = ""  # in words, for our log alone

    def __str__(self) -> str:
        return self.reason if self.status is None else f"{self.reason} ({self.status})"
