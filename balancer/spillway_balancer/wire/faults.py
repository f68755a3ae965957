"""What an endpoint's error answer says, in whatever shape it comes, and how long to wait."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import msgspec

from . import aws_faults

MAX_ERROR_BYTES: Final = 64 * 1024
"""A longer body is not looked into; an error says what it has to say in less."""

MAX_WAIT: Final = 86_400.0
"""Seconds. A longer Retry-After counts as this: a day is for ever to a request."""

RawHeaders = Iterable[tuple[bytes, bytes]]

_any = msgspec.json.Decoder().decode

QUOTA: Final = "insufficient_quota"
KEY: Final = "invalid_api_key"
CONTENT: Final = "content_filter"

_CONTEXT = re.compile(
    r"maximum context length|context[ _]length|context window|max_model_len|longer than the model's"
    r"|exceeds the model's|too many input tokens|maximum prompt length|input token count"
    r"|prompt is too long: \d|exceed context limit",
    re.IGNORECASE,
)

_SAYS: Final = (
    (re.compile(r"Your (?:newly created )?team\b.{0,80}?(?:available credits|doesn't have any credits)"), QUOTA),
    (re.compile(r"You have run out of credits"), QUOTA),
    (re.compile(r"Incorrect API key provided"), KEY),
    (re.compile(r"Content violates usage guidelines"), CONTENT),
    (re.compile(r"Your credit balance is too low"), QUOTA),
    (re.compile(r"You have reached your (?:specified )?(?:workspace )?API usage limits"), QUOTA),
    (re.compile(r"Output blocked by content filtering policy"), CONTENT),
)
"""What xAI and Anthropic say in the message alone. Only its beginning counts: further on it may quote a prompt."""

_CODED: Final = {
    "enforced_spend_limit_reached": QUOTA,
    "contract_spend_limit_reached": QUOTA,
    "linked_organization_spend_limit_reached": QUOTA,
    "linked_organization_billing_unavailable": QUOTA,
    "organization_on_hold": KEY,
}
"""Anthropic's `details.error_code` (types of its SDKs), where OpenAI has a code for it."""

_SAYS_NOTHING: Final = frozenset({"invalid_request_error", "invalid_request", "unknown_error", "bad_request"})
"""Codes of DeepSeek and Fireworks that stand for whatever their message says."""

_LOOKED_AT: Final = 16
"""Details, and violations of one: a few are sent."""


class ErrorFacts(NamedTuple):
    """`code` and `type` as OpenAI has them, lower-cased; None where the answer names none. What other providers say in
    places of their own becomes the code that OpenAI has for it.

    `status` is an HTTP status that stands in the body itself, as vLLM and Gemini put it there: it is all there is in
    an error event of a stream that began with a 200. `wait`: seconds, where the body says how long (Gemini).
    """

    code: str | None = None
    type: str | None = None
    status: int | None = None
    wait: float | None = None


def parse_error(status: int, headers: RawHeaders, body: bytes) -> ErrorFacts:
    """Facts of an HTTP error answer; never raises. The message is looked at, and not kept: it may quote a prompt.

    Understood: OpenAI's `{"error": {message, type, param, code}}`; vLLM's and SGLang's
    `{"object": "error", message, type, code: 400}`, as Mistral has it too; FastAPI's `{"detail": …}`; Gemini's list
    around the first, with `details` (google.rpc.ErrorInfo, QuotaFailure, RetryInfo); Azure's `innererror`; OpenRouter's
    `metadata`; xAI's `{"code": text, "error": text}`; Anthropic's `{"type": "error", "error": {…}}`, with `details`;
    AWS's `{"message": …}`, with the name in a header or in `__type`.
    A prompt that is too long has no code on engines, only a message: it becomes `context_length_exceeded`.
    """
    named: str | None = None
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return ErrorFacts()
        if lower == b"x-amzn-errortype":
            named = value.decode("latin-1")
    if len(body) > MAX_ERROR_BYTES:
        return ErrorFacts()
    try:
        said = _any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    facts = None if named is None else _of_aws(named, said)
    if facts is None:
        facts = error_of(said)
    if facts is None:
        return ErrorFacts()
    if facts.code == "context_length_exceeded" and status >= 500:
        return facts._replace(code=None)  # a message that only sounds like it
    return facts


def error_of(value: Any) -> ErrorFacts | None:
    """Facts of a parsed body or event when it is an error, else None."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    if isinstance(named := value.get("__type"), str) and (facts := _of_aws(named, value)) is not None:
        return facts
    error = value.get("error")
    if isinstance(error, str) and error:  # {"error": "…"}: llama.cpp, Ollama, plain frameworks
        return _facts({"message": error, "code": value.get("code"), "type": value.get("type")})
    if isinstance(error, dict):
        return _facts(error)
    if value.get("object") == "error" or value.get("type") == "error":
        return _facts(value)
    if "detail" in value and "choices" not in value:
        detail = value["detail"]
        return _facts(detail if isinstance(detail, dict) else {"message": detail})
    return None


def _of_aws(named: str, said: Any) -> ErrorFacts | None:
    """None for a name that is not known. Services write `message` either way."""
    message = said.get("message", said.get("Message")) if isinstance(said, dict) else None
    code, kind, status = aws_faults.told(named, message if isinstance(message, str) else "")
    return None if kind is None else ErrorFacts(code, kind, status)


def _facts(error: dict[str, Any]) -> ErrorFacts:
    code, kind, message = error.get("code"), error.get("type"), error.get("message")
    status = None
    if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) <= 9:
        code = int(code)  # Azure's "401" is a status; Mistral's "1000" says no more than its message
    if isinstance(code, int) and not isinstance(code, bool):
        status = code if 400 <= code <= 599 else None
        code = None
    code = _word(code)
    if (code is None or code in _SAYS_NOTHING) and isinstance(message, str):
        code = _said(message) or code
    told, wait = _detailed(error)
    return ErrorFacts(told or code, _word(kind or error.get("status")), status, wait)


def _said(message: str) -> str | None:
    """The code for what stands in a message alone."""
    for beginning, code in _SAYS:
        if beginning.match(message):
            return code
    return "context_length_exceeded" if _CONTEXT.search(message) else None


def _detailed(error: dict[str, Any]) -> tuple[str | None, float | None]:
    """The code, and the seconds to wait, for what stands in a provider's own place beside `code` and `message`."""
    inner, metadata, details = error.get("innererror"), error.get("metadata"), error.get("details")
    if isinstance(inner, dict) and inner.get("code") == "ResponsibleAIPolicyViolation":
        return CONTENT, None
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        return CONTENT, None
    if isinstance(details, dict):
        named = _word(details.get("error_code"))
        return _CODED.get(named or "", named), None
    code: str | None = None
    wait: float | None = None
    for each in details[:_LOOKED_AT] if isinstance(details, list) else ():
        if not isinstance(each, dict):
            continue
        if each.get("reason") == "API_KEY_INVALID":
            code = KEY
        violations = each.get("violations")
        if isinstance(violations, list) and any(_of_a_day(one) for one in violations[:_LOOKED_AT]):
            code = QUOTA
        delay = each.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            seconds = _number(delay[:-1].encode())
            wait = None if seconds is None else _bounded(seconds)
    return code, wait


def _of_a_day(violation: Any) -> bool:
    """Whether a quota of Gemini's is one that is not there again within the minute."""
    return isinstance(violation, dict) and "PerDay" in str(violation.get("quotaId"))


def _word(value: Any) -> str | None:
    """A name of at most 64 plain characters, so that no text of a prompt gets into metrics by this way."""
    if isinstance(value, str) and 0 < len(value) <= 64 and re.fullmatch(r"[\w.:/-]+", value, re.ASCII):
        return value.lower()
    return None


def retry_after(headers: RawHeaders, now_wall: float) -> float | None:
    """Seconds to wait, 0..86400: from `retry-after-ms`, else `Retry-After` as seconds or as a date; None without.

    `now_wall` is Unix time in seconds, which a date is compared with. RFC 9110, 10.2.3; the other is OpenAI's.
    """
    plain = None
    for name, value in headers:
        lower = name.lower()
        if lower == b"retry-after-ms":
            wait = _number(value)
            if wait is not None:
                return _bounded(wait / 1000)
        elif lower == b"retry-after" and plain is None:
            plain = value
    if plain is None:
        return None
    wait = _number(plain)
    if wait is not None:
        return _bounded(wait)
    try:
        date = parsedate_to_datetime(plain.decode("latin-1"))
        if date.tzinfo is None:  # "-0000": a time of no known zone, which in HTTP is always GMT
            date = date.replace(tzinfo=UTC)
        return _bounded(date.timestamp() - now_wall)
    except (ValueError, OverflowError):
        return None


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bounded(wait: float) -> float:
    return min(max(wait, 0.0), MAX_WAIT)
