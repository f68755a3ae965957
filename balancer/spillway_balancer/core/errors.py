"""What can go wrong with a request, as one small tree: who is to blame, and what the client is told.

Only `wire.openai` renders these; everything else raises or returns them. `code` is stable and part of the API
(docs/errors.md lists them); `message` is for people and never holds prompt text or a credential.
"""

from __future__ import annotations

from typing import Literal

Blame = Literal["client", "endpoint", "us"]


class SpillwayError(Exception):
    """An answer not from an endpoint. `status` is HTTP's; `type`, `code` and `param` are OpenAI's fields."""

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"
    blame: Blame = "us"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        attempts: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after  # seconds
        self.attempts = attempts  # "pool/endpoint: reason", in order


class BadRequest(SpillwayError):
    """The client's own mistake; the same request will fail again."""

    status = 400
    type = "invalid_request_error"
    code = "bad_request"
    blame = "client"


class InvalidJSON(BadRequest):
    code = "invalid_json"


class InvalidMultipart(BadRequest):
    code = "invalid_multipart"


class MissingModel(BadRequest):
    code = "missing_model"


class AmbiguousKey(BadRequest):
    """Two readers of the body could disagree on it: keys that are equal but for case, or given twice."""

    code = "ambiguous_key"


class ProtocolError(BadRequest):
    """HTTP that two servers could read differently; refused rather than passed on."""

    code = "bad_http"


class VersionNotSupported(BadRequest):
    status = 505
    code = "http_version_not_supported"


class InvalidKey(BadRequest):
    """The policy names its callers, and this is none of them. OpenAI's code, which its SDKs know."""

    status = 401
    code = "invalid_api_key"


class OverrideNotAllowed(BadRequest):
    """A header asks for what the policy does not let this caller decide."""

    status = 403
    type = "permission_error"
    code = "override_not_allowed"


class InvalidOverride(BadRequest):
    """Such a header, which is allowed, names what is not there."""

    code = "invalid_override"


class NotFound(BadRequest):
    status = 404
    code = "not_found"


class ModelNotFound(BadRequest):
    status = 404
    code = "model_not_found"


class NoRule(BadRequest):
    """The model's policy has a condition on each of its rules, and this request meets none."""

    status = 404
    code = "no_rule"


class NoCapableTarget(BadRequest):
    """No model behind the name that was asked for has all that the request needs, by what they declare."""

    code = "no_capable_target"


class CostTooHigh(BadRequest):
    """Wherever it might be sent, it could cost more than the policy allows for one request."""

    code = "cost_too_high"


class InvalidForwarded(BadRequest):
    """The header by which a sidecar tells how far a request has come is none."""

    code = "invalid_forwarded"


class InvalidPodToken(BadRequest):
    """A sidecar's word is only as good as its Pod's token, and this is none."""

    status = 401
    code = "invalid_pod_token"


class LoopDetected(BadRequest):
    """A request that was forwarded has come to a sidecar, which would forward it again."""

    status = 508
    code = "loop_detected"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"


class UnsupportedEncoding(BadRequest):
    status = 415
    code = "unsupported_content_encoding"


class UnsupportedMediaType(BadRequest):
    status = 415
    code = "unsupported_media_type"


class RequestTimeout(BadRequest):
    """The client took too long to send its request."""

    status = 408
    code = "request_timeout"


class RateLimited(SpillwayError):
    """Every endpoint that could serve the request is at its provider's limit."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limited"
    blame = "endpoint"


class BudgetSpent(SpillwayError):
    """What may be spent on such requests in this period is spent; Retry-After says when the next one begins."""

    status = 429
    type = "insufficient_quota"
    code = "budget_spent"
    blame = "us"


class ConsumerLimited(SpillwayError):
    """Who asks has used what the policy gives them. OpenAI's code, which its SDKs know."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    blame = "client"


class ConsumerBudgetSpent(ConsumerLimited):
    """Their money is spent. OpenAI's type and code for that."""

    type = "insufficient_quota"
    code = "insufficient_quota"


class NoReadyEndpoint(SpillwayError):
    status = 503
    type = "overloaded_error"
    code = "no_ready_endpoint"
    blame = "endpoint"


class NoCompliantTarget(SpillwayError):
    """The guards of the route leave no pool for the request, or none of those that they leave can serve it now."""

    status = 503
    type = "policy_error"
    code = "no_compliant_target"
    blame = "endpoint"


class QueueFull(SpillwayError):
    """No endpoint is free, and as many requests as may wait for one do so."""

    status = 503
    type = "overloaded_error"
    code = "queue_full"
    blame = "endpoint"


class QueueTimeout(SpillwayError):
    """The request has waited for a free endpoint as long as its policy lets it."""

    status = 503
    type = "overloaded_error"
    code = "queue_timeout"
    blame = "endpoint"


class AttemptsFailed(SpillwayError):
    """Endpoints were tried and none answered well; `attempts` says which and why."""

    status = 503
    type = "overloaded_error"
    code = "attempts_failed"
    blame = "endpoint"


class DeadlineExceeded(SpillwayError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    blame = "endpoint"


class Interrupted(SpillwayError):
    """Broken off after the first content byte: said in an error event, since the status is already sent."""

    status = 502
    type = "server_error"
    code = "stream_interrupted"
    blame = "endpoint"


class Draining(SpillwayError):
    status = 503
    type = "overloaded_error"
    code = "draining"
    blame = "us"
