"""Errors of providers by what they mean, and how each kind of API puts them: status, headers and body.

Sources: the error pages of OpenAI, Anthropic ("Errors", and for spend limits `error.details.error_code`), Azure OpenAI,
Gemini (google.rpc.Status), Mistral, Groq, DeepSeek, OpenRouter, xAI, and the Amazon Bedrock runtime API reference. No
message repeats what a client sent, beyond names of fields, models and tools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import msgspec

Kind = Literal[
    "invalid",
    "unknown-field",
    "auth",
    "forbidden",
    "model",
    "context",
    "content",
    "too-large",
    "rate-limited",
    "quota-exhausted",
    "spend-limit",
    "daily-quota",
    "timeout",
    "server-error",
    "unavailable",
    "overloaded",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Refusal(Exception):
    """A request that is refused. `param` is the field at fault; `retry_after` are seconds, told where a family does."""

    def __init__(self, kind: Kind, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after


class Answer(NamedTuple):
    """An error answer; `media` is its content type."""

    status: int
    body: bytes
    headers: dict[str, str]
    media: str = "application/json"


Renderer = Callable[[Refusal, str], Answer]
"""Of a refusal, and the id of the request."""

MESSAGES: dict[Kind, str] = {
    "invalid": "The request is invalid.",
    "unknown-field": "Extra inputs are not permitted",
    "auth": "Incorrect API key provided.",
    "forbidden": "You do not have access to this resource.",
    "model": "The model does not exist.",
    "context": "prompt is too long",
    "content": "The request was flagged by a content filter.",
    "too-large": "Request exceeds the maximum size",
    "rate-limited": "Rate limit reached.",
    "quota-exhausted": "You exceeded your current quota, please check your plan and billing details.",
    "spend-limit": "You have reached your API usage limits.",
    "daily-quota": "You exceeded your current quota of requests per day.",
    "timeout": "The request timed out.",
    "server-error": "The server had an error while processing your request.",
    "unavailable": "The service is temporarily unavailable.",
    "overloaded": "Overloaded",
}
_STATUS: dict[Kind, int] = {
    "invalid": 400,
    "unknown-field": 400,
    "auth": 401,
    "forbidden": 403,
    "model": 404,
    "context": 400,
    "content": 400,
    "too-large": 413,
    "rate-limited": 429,
    "quota-exhausted": 429,
    "spend-limit": 429,
    "daily-quota": 429,
    "timeout": 504,
    "server-error": 500,
    "unavailable": 503,
    "overloaded": 503,
}
# type and code, as OpenAI has them
_OPENAI: dict[Kind, tuple[str, str | None]] = {
    "invalid": ("invalid_request_error", None),
    "unknown-field": ("invalid_request_error", "unknown_parameter"),
    "auth": ("invalid_request_error", "invalid_api_key"),
    "forbidden": ("invalid_request_error", "unsupported_country_region_territory"),
    "model": ("invalid_request_error", "model_not_found"),
    "context": ("invalid_request_error", "context_length_exceeded"),
    "content": ("invalid_request_error", "content_policy_violation"),
    "too-large": ("invalid_request_error", None),
    "rate-limited": ("requests", "rate_limit_exceeded"),
    "quota-exhausted": ("insufficient_quota", "insufficient_quota"),
    "spend-limit": ("insufficient_quota", "project_spend_limit_exceeded"),
    "daily-quota": ("requests", "rate_limit_exceeded"),
    "timeout": ("timeout", None),
    "server-error": ("server_error", None),
    "unavailable": ("service_unavailable_error", None),
    "overloaded": ("service_unavailable_error", "slow_down"),
}
_ANTHROPIC: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "invalid_request_error"),
    "unknown-field": (400, "invalid_request_error"),
    "auth": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "model": (404, "not_found_error"),
    "context": (400, "invalid_request_error"),
    "content": (400, "invalid_request_error"),
    "too-large": (413, "request_too_large"),
    "rate-limited": (429, "rate_limit_error"),
    "quota-exhausted": (402, "billing_error"),
    "spend-limit": (429, "rate_limit_error"),
    "daily-quota": (429, "rate_limit_error"),
    "timeout": (504, "timeout_error"),
    "server-error": (500, "api_error"),
    "unavailable": (503, "api_error"),
    "overloaded": (529, "overloaded_error"),
}
_GOOGLE: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "INVALID_ARGUMENT"),
    "unknown-field": (400, "INVALID_ARGUMENT"),
    "auth": (400, "INVALID_ARGUMENT"),
    "forbidden": (403, "PERMISSION_DENIED"),
    "model": (404, "NOT_FOUND"),
    "context": (400, "INVALID_ARGUMENT"),
    "content": (400, "INVALID_ARGUMENT"),
    "too-large": (400, "INVALID_ARGUMENT"),
    "rate-limited": (429, "RESOURCE_EXHAUSTED"),
    "quota-exhausted": (429, "RESOURCE_EXHAUSTED"),
    "spend-limit": (429, "RESOURCE_EXHAUSTED"),
    "daily-quota": (429, "RESOURCE_EXHAUSTED"),
    "timeout": (504, "DEADLINE_EXCEEDED"),
    "server-error": (500, "INTERNAL"),
    "unavailable": (503, "UNAVAILABLE"),
    "overloaded": (503, "UNAVAILABLE"),
}
_AMAZON: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "ValidationException"),
    "unknown-field": (400, "ValidationException"),
    "auth": (403, "UnrecognizedClientException"),
    "forbidden": (403, "AccessDeniedException"),
    "model": (404, "ResourceNotFoundException"),
    "context": (400, "ValidationException"),
    "content": (400, "ValidationException"),
    "too-large": (413, "RequestEntityTooLargeException"),
    "rate-limited": (429, "ThrottlingException"),
    "quota-exhausted": (400, "ServiceQuotaExceededException"),
    "spend-limit": (400, "ServiceQuotaExceededException"),
    "daily-quota": (429, "ThrottlingException"),
    "timeout": (408, "ModelTimeoutException"),
    "server-error": (500, "InternalServerException"),
    "unavailable": (503, "ServiceUnavailableException"),
    "overloaded": (503, "ServiceUnavailableException"),
}


def _waits(refusal: Refusal, millis: bool = False) -> dict[str, str]:
    """Retry-After in whole seconds, rounded up; OpenAI and Azure tell milliseconds as well."""
    if refusal.retry_after is None:
        return {}
    headers = {"retry-after": str(-int(-refusal.retry_after // 1))}
    if millis:
        headers["retry-after-ms"] = str(round(refusal.retry_after * 1000))
    return headers


def _json(status: int, body: Any, headers: dict[str, str]) -> Answer:
    return Answer(status, msgspec.json.encode(body), headers)


def openai(refusal: Refusal, id: str) -> Answer:
    type, code = _OPENAI[refusal.kind]
    error = {"message": refusal.message, "type": type, "param": refusal.param, "code": code}
    return _json(_STATUS[refusal.kind], {"error": error}, _waits(refusal, millis=True))


def azure(refusal: Refusal, id: str) -> Answer:
    """As OpenAI, with codes of its own for keys, deployments and content, and for limits."""
    kind = refusal.kind
    error: dict[str, Any]
    if kind in ("auth", "forbidden", "rate-limited"):
        error = {"code": str(_STATUS[kind]), "message": refusal.message}
    elif kind == "model":
        error = {"code": "DeploymentNotFound", "message": refusal.message}
    elif kind == "content":
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
        error = {"message": refusal.message, "type": None, "param": "prompt", "code": "content_filter"}
        error |= {"status": 400, "innererror": inner}
    else:
        return openai(refusal, id)
    return _json(_STATUS[kind], {"error": error}, _waits(refusal, millis=True))


def gemini(refusal: Refusal, id: str) -> Answer:
    """A list of one google.rpc.Status, as the OpenAI-compatible form has it; waits stand in RetryInfo alone."""
    status, name = _GOOGLE[refusal.kind]
    details: list[Any] = []
    if refusal.kind == "auth":
        reason = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", **reason})
    if status == 429:
        day = "Day" if refusal.kind in ("daily-quota", "quota-exhausted", "spend-limit") else "Minute"
        quota = {"quotaId": f"GenerateRequestsPer{day}PerProjectPerModel"}
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [quota]})
        if refusal.retry_after is not None:
            delay = {"retryDelay": f"{refusal.retry_after:g}s"}
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", **delay})
    message = "API key not valid. Please pass a valid API key." if refusal.kind == "auth" else refusal.message
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if details:
        error["details"] = details
    return _json(status, [{"error": error}], {})


def vertex(refusal: Refusal, id: str) -> Answer:
    """As Gemini, but a token that is not valid is a 401."""
    if refusal.kind != "auth":
        return gemini(refusal, id)
    message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
    error = {"code": 401, "message": message, "status": "UNAUTHENTICATED"}
    return _json(401, [{"error": error}], {"www-authenticate": 'Bearer realm="https://accounts.google.com/"'})


def mistral(refusal: Refusal, id: str) -> Answer:
    status = _STATUS[refusal.kind]
    if refusal.kind == "auth":
        return _json(status, {"detail": "Unauthorized"}, {})
    message: Any = refusal.message
    if refusal.kind in ("invalid", "unknown-field"):
        status = 422
        type = "extra_forbidden" if refusal.kind == "unknown-field" else "value_error"
        where = ["body", *(refusal.param.split(".") if refusal.param else [])]
        message = {"detail": [{"type": type, "loc": where, "msg": refusal.message}]}
    if refusal.kind == "quota-exhausted":
        status = 402
    name = "rate_limited" if status == 429 else "invalid_request_error" if status < 500 else "internal_server_error"
    body = {"object": "error", "message": message, "type": name, "param": None, "code": None}
    return _json(status, body, _waits(refusal))


def deepseek(refusal: Refusal, id: str) -> Answer:
    type, code = _OPENAI[refusal.kind]
    status = _STATUS[refusal.kind]
    if refusal.kind in ("quota-exhausted", "spend-limit"):
        status, type, code = 402, "unknown_error", "invalid_request_error"
        refusal = Refusal(refusal.kind, "Insufficient Balance")
    if refusal.kind == "context":
        code = "invalid_request_error"
    error = {"message": refusal.message, "type": type, "param": refusal.param, "code": code}
    return _json(status, {"error": error}, _waits(refusal))


def groq(refusal: Refusal, id: str) -> Answer:
    """As OpenAI; a model without capacity on the flexible tier is a 498."""
    answer = openai(refusal, id)
    headers = _waits(refusal)
    return answer._replace(status=498 if refusal.kind == "overloaded" else answer.status, headers=headers)


def openrouter(refusal: Refusal, id: str) -> Answer:
    status = _STATUS[refusal.kind]
    error: dict[str, Any] = {"message": refusal.message, "code": status}
    if refusal.kind in ("quota-exhausted", "spend-limit"):
        status = 402
        error = {"message": "Insufficient credits", "code": 402, "metadata": {"limit_source": "openrouter_credits"}}
    elif refusal.kind == "content":
        status = 403
        error |= {"code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "Fake"}}
    return _json(status, {"error": error}, _waits(refusal))


def xai(refusal: Refusal, id: str) -> Answer:
    """A code in words and the error as a text; keys and credits as xAI has them."""
    status, code, said = _STATUS[refusal.kind], "Client specified an invalid argument", refusal.message
    if refusal.kind == "auth":
        status, said = 400, "Incorrect API key provided. You can obtain an API key from https://console.x.ai."
    elif refusal.kind in ("forbidden", "content"):
        status, code = 403, "The caller does not have permission to execute the specified operation"
        if refusal.kind == "content":
            said = "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"
    elif status == 429:
        code = "Some resource has been exhausted"
        if refusal.kind in ("quota-exhausted", "spend-limit"):
            said = "Your team has either used all available credits or reached its monthly spending limit."
    elif status >= 500:
        code = "The service is currently unavailable"
    return _json(status, {"code": code, "error": said}, _waits(refusal))


def anthropic(refusal: Refusal, id: str) -> Answer:
    status, type = _ANTHROPIC[refusal.kind]
    error: dict[str, Any] = {"type": type, "message": refusal.message}
    if refusal.kind == "spend-limit":
        error["details"] = {"error_code": "enforced_spend_limit_reached"}
    headers = {"x-should-retry": "true" if status in (408, 409, 429) or status >= 500 else "false"}
    headers |= {} if refusal.kind == "spend-limit" else _waits(refusal)
    return _json(status, {"type": "error", "error": error, "request_id": id}, headers)


def amazon(refusal: Refusal, id: str) -> Answer:
    status, type = _AMAZON[refusal.kind]
    return _json(status, {"message": refusal.message}, {"x-amzn-errortype": type})
