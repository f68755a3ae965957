"""Errors: what endpoints' answers say in their several shapes, and how ours look to OpenAI's SDKs."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core import errors
from spillway_balancer.core.reasons import Reason, of_status
from spillway_balancer.wire import openai
from spillway_balancer.wire.failures import message_of
from spillway_balancer.wire.faults import ErrorFacts, parse_error, retry_after
from spillway_balancer.wire.paths import PATHS

Golden = Callable[[str], bytes]

FACTS = {
    "anthropic-billing.402": ErrorFacts(None, "billing_error"),
    "anthropic-broken.500": ErrorFacts(None, "api_error"),
    "anthropic-context.400": ErrorFacts("context_length_exceeded", "invalid_request_error"),
    "anthropic-credit.400": ErrorFacts("insufficient_quota", "invalid_request_error"),
    "anthropic-field.400": ErrorFacts(None, "invalid_request_error"),
    "anthropic-filter.400": ErrorFacts("content_filter", "invalid_request_error"),
    "anthropic-hold.400": ErrorFacts("invalid_api_key", "invalid_request_error"),
    "anthropic-key.401": ErrorFacts(None, "authentication_error"),
    "anthropic-large.413": ErrorFacts(None, "request_too_large"),
    "anthropic-limit.400": ErrorFacts("context_length_exceeded", "invalid_request_error"),
    "anthropic-model.404": ErrorFacts(None, "not_found_error"),
    "anthropic-overloaded.529": ErrorFacts(None, "overloaded_error"),
    "anthropic-permission.403": ErrorFacts(None, "permission_error"),
    "anthropic-ramp.429": ErrorFacts("ramp_limit_exceeded", "rate_limit_error"),
    "anthropic-rate.429": ErrorFacts(None, "rate_limit_error"),
    "anthropic-spend.429": ErrorFacts("insufficient_quota", "rate_limit_error"),
    "anthropic-usage.400": ErrorFacts("insufficient_quota", "invalid_request_error"),
    "azure-content.400": ErrorFacts("content_filter", None),
    "azure-deployment.404": ErrorFacts("deploymentnotfound"),
    "azure-inner.400": ErrorFacts("content_filter", None, 400),
    "azure-key.401": ErrorFacts(None, None, 401),
    "bedrock-bearer.403": ErrorFacts(),
    "bedrock-blank.400": ErrorFacts(None, "validationexception", 400),
    "bedrock-context-claude.400": ErrorFacts("context_length_exceeded", "validationexception", 400),
    "bedrock-context.400": ErrorFacts("context_length_exceeded", "validationexception", 400),
    "bedrock-day.429": ErrorFacts("insufficient_quota", "throttlingexception", 429),
    "bedrock-expired.403": ErrorFacts(None, "expiredtokenexception", 403),
    "bedrock-identifier.400": ErrorFacts("model_not_found", "validationexception", 404),
    "bedrock-internal.500": ErrorFacts(None, "internalserverexception", 500),
    "bedrock-model-error.424": ErrorFacts(None, "modelerrorexception", 424),
    "bedrock-model.404": ErrorFacts(None, "resourcenotfoundexception", 404),
    "bedrock-no-access.403": ErrorFacts("model_not_found", "accessdeniedexception", 404),
    "bedrock-not-authorized.403": ErrorFacts(None, "accessdeniedexception", 403),
    "bedrock-not-ready.429": ErrorFacts(None, "modelnotreadyexception", 429),
    "bedrock-quota.400": ErrorFacts("insufficient_quota", "servicequotaexceededexception", 429),
    "bedrock-throttled.429": ErrorFacts(None, "throttlingexception", 429),
    "bedrock-timeout.408": ErrorFacts(None, "modeltimeoutexception", 408),
    "bedrock-token.403": ErrorFacts(None, "unrecognizedclientexception", 403),
    "bedrock-typed.400": ErrorFacts("context_length_exceeded", "validationexception", 400),
    "bedrock-unavailable.503": ErrorFacts(None, "serviceunavailableexception", 503),
    "deepseek-balance.402": ErrorFacts("invalid_request_error", "unknown_error"),
    "deepseek-context.400": ErrorFacts("context_length_exceeded", "invalid_request_error"),
    "fastapi-detail.422": ErrorFacts(),
    "fastapi-unauthorized.401": ErrorFacts(),
    "gemini-context.400": ErrorFacts("context_length_exceeded", "invalid_argument", 400),
    "gemini-day.429": ErrorFacts("insufficient_quota", "resource_exhausted", 429, 45.0),
    "gemini-exhausted.429": ErrorFacts(None, "resource_exhausted", 429),
    "gemini-key.400": ErrorFacts("invalid_api_key", "invalid_argument", 400),
    "gemini-minute.429": ErrorFacts(None, "resource_exhausted", 429, 45.0),
    "groq-rate.429": ErrorFacts("rate_limit_exceeded", "tokens"),
    "llamacpp-loading.503": ErrorFacts(None, "unavailable_error", 503),
    "mistral-field.422": ErrorFacts(None, "invalid_request_error"),
    "mistral-proxy.422": ErrorFacts(None, "internal_error_proxy"),
    "openai-context.400": ErrorFacts("context_length_exceeded", "invalid_request_error"),
    "openai-key.401": ErrorFacts("invalid_api_key", "invalid_request_error"),
    "openai-quota.429": ErrorFacts("insufficient_quota", "insufficient_quota"),
    "openrouter-credits.402": ErrorFacts(None, None, 402),
    "openrouter-moderation.403": ErrorFacts("content_filter", None, 403),
    "sglang-context.400": ErrorFacts("context_length_exceeded", "badrequesterror", 400),
    "vllm-0.8-context.400": ErrorFacts("context_length_exceeded", "badrequesterror", 400),
    "vertex-context.400": ErrorFacts("context_length_exceeded", "invalid_argument", 400),
    "vertex-exhausted.429": ErrorFacts(None, "resource_exhausted", 429),
    "vertex-model.404": ErrorFacts(None, "not_found", 404),
    "vertex-permission.403": ErrorFacts(None, "permission_denied", 403),
    "vertex-token.401": ErrorFacts(None, "unauthenticated", 401),
    "vllm-0.10-not-found.404": ErrorFacts(None, "notfounderror", 404),
    "vllm-unauthorized.401": ErrorFacts(),
    "xai-content.403": ErrorFacts("content_filter"),
    "xai-credits.429": ErrorFacts("insufficient_quota"),
    "xai-key.400": ErrorFacts("invalid_api_key"),
    "xai-team.403": ErrorFacts("insufficient_quota"),
}

# What AWS's answers have in `x-amzn-errortype`.
NAMED = {
    "bedrock-blank.400": b"ValidationException",
    "bedrock-context-claude.400": b"ValidationException",
    "bedrock-context.400": b"ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/",
    "bedrock-day.429": b"ThrottlingException",
    "bedrock-expired.403": b"ExpiredTokenException",
    "bedrock-identifier.400": b"ValidationException",
    "bedrock-internal.500": b"InternalServerException",
    "bedrock-model-error.424": b"ModelErrorException",
    "bedrock-model.404": b"ResourceNotFoundException",
    "bedrock-no-access.403": b"AccessDeniedException",
    "bedrock-not-authorized.403": b"AccessDeniedException",
    "bedrock-not-ready.429": b"ModelNotReadyException",
    "bedrock-quota.400": b"ServiceQuotaExceededException",
    "bedrock-throttled.429": b"ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/",
    "bedrock-timeout.408": b"ModelTimeoutException",
    "bedrock-token.403": b"UnrecognizedClientException",
    "bedrock-unavailable.503": b"ServiceUnavailableException",
}

# What becomes of each, by the table of docs/reasons.md.
REASONS: dict[str, Reason] = {
    "anthropic-billing.402": "quota-exhausted",
    "anthropic-broken.500": "server-error",
    "anthropic-context.400": "context-length",
    "anthropic-credit.400": "quota-exhausted",
    "anthropic-field.400": "bad-request",
    "anthropic-filter.400": "content-policy",
    "anthropic-hold.400": "auth",
    "anthropic-key.401": "auth",
    "anthropic-large.413": "context-length",
    "anthropic-limit.400": "context-length",
    "anthropic-model.404": "model-not-found",
    "anthropic-overloaded.529": "overloaded",
    "anthropic-permission.403": "auth",
    "anthropic-ramp.429": "rate-limited",
    "anthropic-rate.429": "rate-limited",
    "anthropic-spend.429": "quota-exhausted",
    "anthropic-usage.400": "quota-exhausted",
    "azure-content.400": "content-policy",
    "azure-deployment.404": "model-not-found",
    "azure-inner.400": "content-policy",
    "azure-key.401": "auth",
    "bedrock-bearer.403": "auth",
    "bedrock-blank.400": "bad-request",
    "bedrock-context-claude.400": "context-length",
    "bedrock-context.400": "context-length",
    "bedrock-day.429": "quota-exhausted",
    "bedrock-expired.403": "auth",
    "bedrock-identifier.400": "model-not-found",
    "bedrock-internal.500": "server-error",
    "bedrock-model-error.424": "server-error",
    "bedrock-model.404": "model-not-found",
    "bedrock-no-access.403": "model-not-found",
    "bedrock-not-authorized.403": "auth",
    "bedrock-not-ready.429": "rate-limited",
    "bedrock-quota.400": "quota-exhausted",
    "bedrock-throttled.429": "rate-limited",
    "bedrock-timeout.408": "server-error",
    "bedrock-token.403": "auth",
    "bedrock-typed.400": "context-length",
    "bedrock-unavailable.503": "overloaded",
    "deepseek-balance.402": "quota-exhausted",
    "deepseek-context.400": "context-length",
    "fastapi-detail.422": "bad-request",
    "fastapi-unauthorized.401": "auth",
    "gemini-context.400": "context-length",
    "gemini-day.429": "quota-exhausted",
    "gemini-exhausted.429": "rate-limited",
    "gemini-key.400": "auth",
    "gemini-minute.429": "rate-limited",
    "groq-rate.429": "rate-limited",
    "llamacpp-loading.503": "overloaded",
    "mistral-field.422": "bad-request",
    "mistral-proxy.422": "bad-request",
    "openai-context.400": "context-length",
    "openai-key.401": "auth",
    "openai-quota.429": "quota-exhausted",
    "openrouter-credits.402": "quota-exhausted",
    "openrouter-moderation.403": "content-policy",
    "sglang-context.400": "context-length",
    "vertex-context.400": "context-length",
    "vertex-exhausted.429": "rate-limited",
    "vertex-model.404": "model-not-found",
    "vertex-permission.403": "auth",
    "vertex-token.401": "auth",
    "vllm-0.10-not-found.404": "model-not-found",
    "vllm-0.8-context.400": "context-length",
    "vllm-unauthorized.401": "auth",
    "xai-content.403": "content-policy",
    "xai-credits.429": "quota-exhausted",
    "xai-key.400": "auth",
    "xai-team.403": "quota-exhausted",
}


def test_every_golden_error_is_expected() -> None:
    folder = Path(__file__).parent / "golden" / "errors"
    assert {path.stem for path in folder.iterdir()} == FACTS.keys() == REASONS.keys()


@pytest.mark.parametrize("name", sorted(FACTS))
def test_errors_of_servers(golden: Golden, name: str) -> None:
    status = int(name.rpartition(".")[2])
    named = [(b"x-amzn-ErrorType", NAMED[name])] if name in NAMED else []
    facts = parse_error(status, named, golden(f"errors/{name}.json"))
    assert facts == FACTS[name]
    assert of_status(status, facts.code, facts.type) == REASONS[name]


@pytest.mark.parametrize(
    "said",
    [
        "invalid message: 'Incorrect API key provided'",
        "the prompt 'You have run out of credits' is not allowed",
        "messages.0: 'Your credit balance is too low' is not allowed",
    ],
)
def test_what_a_message_quotes_does_not_close_an_account(said: str) -> None:
    body = json.dumps({"code": "Client specified an invalid argument", "error": said}).encode()
    assert of_status(400, parse_error(400, [], body).code) == "bad-request"


@pytest.mark.parametrize(
    "details",
    [
        "x",
        [None, 1, "s", []],
        [{"violations": "PerDay"}],
        [{"violations": [None, {"quotaId": 1}]}],
        [{"retryDelay": 45}],
        [{"retryDelay": "s"}, {"retryDelay": "soon"}, {"retryDelay": "infs"}],
    ],
)
def test_details_of_another_shape_say_nothing(details: object) -> None:
    body = json.dumps({"error": {"code": 429, "message": "m", "details": details}}).encode()
    assert parse_error(429, [], body) == ErrorFacts(None, None, 429)


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b"", ErrorFacts()),
        (b"<html>502 Bad Gateway</html>", ErrorFacts()),
        (b"null", ErrorFacts()),
        (b"[]", ErrorFacts()),
        (b'"x"', ErrorFacts()),
        (b"{}", ErrorFacts()),
        (b'{"error":null}', ErrorFacts()),
        (b'{"error":[]}', ErrorFacts()),
        (b'{"error":{"code":{"a":1},"type":["b"]}}', ErrorFacts()),
        (b'{"error":{"code":true}}', ErrorFacts()),
        (b'{"error":{"code":"429"}}', ErrorFacts(None, None, 429)),
        (b'{"error":{"code":20034,"type":"X"}}', ErrorFacts(None, "x")),
        (b'{"error":{"code":"has spaces: my prompt","type":"' + b"t" * 65 + b'"}}', ErrorFacts()),
        (b'{"error":"model not loaded"}', ErrorFacts()),
        (b'{"detail":{"code":"Some_Code","message":"m"}}', ErrorFacts("some_code")),
        (b"\xff\xfe", ErrorFacts()),
        (b"[" * 100_000, ErrorFacts()),
        (b'{"error":{"code":"a"}}' + b" " * 100_000, ErrorFacts()),
    ],
)
def test_odd_bodies_say_nothing_and_do_no_harm(body: bytes, facts: ErrorFacts) -> None:
    assert parse_error(400, [], body) == facts


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"message":1}', b"[]"])
def test_the_name_in_a_header_is_believed_without_a_message(body: bytes) -> None:
    named = [(b"x-amzn-errortype", b" ThrottlingException:http://internal.amazon.com/ ")]
    assert parse_error(429, named, body) == ErrorFacts(None, "throttlingexception", 429)
    assert parse_error(400, [(b"x-amzn-errortype", b"my prompt is \xff")], body) == ErrorFacts()


def test_a_compressed_body_is_not_read() -> None:
    body = b'{"error":{"code":"a"}}'
    assert parse_error(400, [(b"Content-Encoding", b"gzip")], body) == ErrorFacts()
    assert parse_error(400, [(b"content-encoding", b"identity")], body) == ErrorFacts("a")


def test_a_crash_that_mentions_context_length_is_not_the_prompts_fault() -> None:
    body = b'{"error":{"message":"assertion on context length failed"}}'
    assert parse_error(400, [], body).code == "context_length_exceeded"
    assert parse_error(500, [], body).code is None


@given(st.integers(100, 999), st.binary(max_size=60), st.binary(max_size=10))
def test_no_answer_makes_it_fail(status: int, noise: bytes, value: bytes) -> None:
    for body in (noise, b'{"error":' + noise, b'{"error":{"code":' + noise + b"}}"):
        parse_error(status, [(b"content-encoding", value)], body)
    retry_after([(b"retry-after", value), (b"Retry-After-MS", noise)], 0.0)


# -- Retry-After

NOW = 1_754_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([("Retry-After", "7")], 7),
        ([("retry-after", " 7 ")], 7),
        ([("retry-after", "1.5")], 1.5),
        ([("retry-after", "0")], 0),
        ([("retry-after", "-3")], 0),
        ([("retry-after", "999999999")], 86_400),
        ([("retry-after", "soon")], None),
        ([("retry-after", "nan")], None),
        ([("retry-after", "inf")], None),
        ([("retry-after", "")], None),
        ([("retry-after", formatdate(NOW + 30, usegmt=True))], 30),
        ([("retry-after", formatdate(NOW - 30, usegmt=True))], 0),
        ([("retry-after", "Thursday, 31-Jul-25 22:14:00 GMT")], 40),
        ([("retry-after", "Thu, 31 Jul 2025 22:14:00 -0000")], 40),
        ([("retry-after", "Fri, 99 Aug 2025 99:99:99 GMT")], None),
        ([("retry-after", "5"), ("retry-after-ms", "250")], 0.25),
        ([("Retry-After-Ms", "250"), ("retry-after", "5")], 0.25),
        ([("retry-after-ms", "x"), ("retry-after", "5")], 5),
        ([("retry-after", "5"), ("retry-after", "6")], 5),
    ],
)
def test_retry_after(headers: list[tuple[str, str]], seconds: float | None) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert retry_after(raw, NOW) == seconds


# -- ours


def test_an_error_body() -> None:
    error = errors.ModelNotFound("the model 'x' does not exist", param="model")
    assert json.loads(openai.error_body(error)) == {
        "error": {
            "message": "the model 'x' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_attempts_are_listed_when_there_were_any() -> None:
    error = errors.AttemptsFailed("no endpoint answered", attempts=("a/1: connect", "a/2: overloaded (503)"))
    assert json.loads(openai.error_body(error))["error"]["attempts"] == ["a/1: connect", "a/2: overloaded (503)"]


def test_an_error_event_of_a_chat() -> None:
    event = openai.error_event(errors.Interrupted("the endpoint's answer broke off"), PATHS["/v1/chat/completions"])
    assert event.startswith(b"data: ")
    assert event.endswith(b"}\n\n")
    assert json.loads(event[6:])["error"]["code"] == "stream_interrupted"


def test_a_wait_in_an_event_is_told_in_milliseconds_at_the_finest() -> None:
    limited = errors.RateLimited("later", retry_after=0.5149543003742504)
    event = openai.error_event(limited, PATHS["/v1/chat/completions"])
    assert b'"retry_after":0.515' in event


def test_an_error_event_of_responses_is_typed() -> None:
    event = openai.error_event(errors.Interrupted("broke off"), PATHS["/v1/responses"])
    name, data, *rest = event.split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    body = json.loads(data.removeprefix(b"data: "))
    assert (body["type"], body["code"], body["message"], body["param"]) == (
        "error",
        "stream_interrupted",
        "broke off",
        None,
    )
    assert body["error"]["type"] == "server_error"


def test_models() -> None:
    one = {"id": "a", "object": "model", "created": 7, "owned_by": "spillway"}
    assert json.loads(openai.model_object("a", 7)) == one
    assert json.loads(openai.models_list(["a", "b"], 7)) == {"object": "list", "data": [one, {**one, "id": "b"}]}
    assert json.loads(openai.models_list([], 7)) == {"object": "list", "data": []}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'{"detail": [{"loc": ["body", "messages"], "msg": "Field required", "input": {}}]}',
            "messages: Field required",
        ),
        (
            b'{"message": {"detail": [{"loc": ["body", "messages", 0], "msg": "no"}, {"msg": "nor"}]}}',
            "messages.0: no; nor",
        ),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"message": {"detail": [{"loc": 5}, 7, null]}}', None),
        (b'{"message": {"detail": {"a": 1}}}', None),
        (b'{"error": {"message": {"x": 1}}, "message": "m"}', "m"),
    ],
)
def test_what_is_wrong_with_fields_is_said_in_words(body: bytes, words: str | None) -> None:
    assert message_of(body) == words
