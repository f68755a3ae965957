"""The table of reasons as one test: every reason, streamed and plain, with what follows for the request, for its
endpoint and for the client. The page docs/reasons.md holds the same table."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, PassiveHealth, Retry, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try, Wait
from spillway_balancer.core.circuit import QUOTA_OFF
from spillway_balancer.core.errors import AttemptsFailed, DeadlineExceeded, RateLimited
from spillway_balancer.core.reasons import REASONS, Class, Failure, Reason, of_status, status_of
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
BACKOFF = 0.05
"""Seconds: the longest first pause by default."""
CLASSES = get_args(Class)
NONE = "\N{EN DASH}"
AS_IT_IS = "the endpoint's own answer"


class Row(NamedTuple):
    """What the table says of a reason; `failure` is how one comes about."""

    failure: Failure
    elsewhere: bool
    """Whether the next endpoint of the same tier is tried."""
    enters: str | None
    """Class that the next tier has to name."""
    circuit: str = "-"
    """-, counts, off until Retry-After, off 15 min, or off until its credential changes."""
    client: Any = AttemptsFailed
    """What it gets when nothing else is left."""
    again: str = "no"
    """Whether the same endpoint is asked again when no other is left."""


CONNECT: Any = {"retry_on": "ConnectError"}
LATE: Any = {"retry_on": "FirstByteTimeout"}
TABLE: dict[Reason, Row] = {
    "rate-limited": Row(
        Failure("rate-limited", 429, 20.0), True, "Capacity", "off until Retry-After", RateLimited, "after Retry-After"
    ),
    "quota-exhausted": Row(Failure("quota-exhausted", 402), True, "Capacity", "off 15 min", RateLimited),
    "overloaded": Row(Failure("overloaded", 503), True, "Transient", "counts", again="once, with backoff"),
    "server-error": Row(Failure("server-error", 500), True, "Transient", "counts", again="once, with backoff"),
    "connect": Row(Failure("connect", **CONNECT), True, "Transient", "counts"),
    "first-byte-timeout": Row(Failure("first-byte-timeout", **LATE), True, "Transient", "counts", DeadlineExceeded),
    "stall": Row(Failure("stall", **LATE), True, "Transient", "counts", DeadlineExceeded),
    "auth": Row(Failure("auth", 401), True, "Auth", "off until its credential changes"),
    "model-not-found": Row(Failure("model-not-found", 404), False, "Config"),
    "context-length": Row(Failure("context-length", 400), False, "ContextLength", client=AS_IT_IS),
    "content-policy": Row(Failure("content-policy", 400), False, "ContentPolicy", client=AS_IT_IS),
    "bad-request": Row(Failure("bad-request", 422), False, None, client=AS_IT_IS),
    "deadline": Row(Failure("deadline"), False, None),
}
"""Reasons of attempts that the client has seen nothing of."""

AFTER: dict[Reason, str] = {"interrupted": "counts", "client-gone": "-"}
"""Those that end a request: nobody asks what comes next."""

BEFORE: dict[Reason, tuple[str, str]] = {
    "saturated": ("Capacity", "-"),
    "wait-predicted": ("Capacity", "-"),
    "no-ready-endpoint": ("Capacity", "-"),
    "circuit-open": ("Transient", "-"),
    "budget": ("Budget", "-"),
}
"""Those of tiers that are left before anything is sent."""


def pool(name: str, endpoints: int, failures: int = 1) -> snapshot.Pool:
    credential = snapshot.Credential(f"default/{name}", "api-key", "Authorization", "Bearer ")
    return snapshot.Pool(
        name=f"default/{name}",
        models=(Model(name=f"{name}-model"),),
        engine="Auto",
        provider="OpenAI",
        endpoints=tuple(
            snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80", credential=credential) for i in range(endpoints)
        ),
        dispatch=Dispatch(),
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(passive=PassiveHealth(consecutive_failures=failures, max_ejected_percent=100)),
    )


def served(endpoints: int, enter_on: tuple[str, ...] | None = None, failures: int = 1) -> Runtime:
    """A tier of so many endpoints, and another of one that is entered for these classes. So many failures in a row
    eject an endpoint, 0: none do."""
    tiers = [snapshot.RouteTier("home", (snapshot.Target("default/home"),), "Weighted", ())]
    if enter_on is not None:
        tiers.append(snapshot.RouteTier("away", (snapshot.Target("default/away"),), "Weighted", enter_on))
    retry = Retry(attempts=5, retry_on=("ConnectError", "Reset", "FirstByteTimeout"))
    rule = snapshot.RouteRule("default", tuple(tiers))
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), retry)
    return Runtime(snapshot.Snapshot("default", (pool("home", endpoints, failures), pool("away", 1)), (route,)))


def request(runtime: Runtime, streams: bool) -> Attempts:
    found = runtime.routes.resolve("chat")
    assert found is not None
    route = found[0]
    asked, dice = Asked(streams=streams), random.Random(1)
    return Attempts(route.rules[0], route.spec.retry, route.retry_budget, asked, dice, NOW + 60)


def fail(way: Attempts, failure: Failure) -> Try:
    step = way.next(NOW)
    assert isinstance(step, Try), step
    way.failed(step, failure)
    step.pool.failed(step.endpoint, failure, NOW, NOW)
    return step


def test_every_reason_has_its_row() -> None:
    assert set(BEFORE) | set(TABLE) | set(AFTER) == set(get_args(Reason)) == set(REASONS)
    assert all(REASONS[reason].again == "never" for reason in {*BEFORE, *AFTER})


EVERY = pytest.mark.parametrize("reason", TABLE)
BOTH = pytest.mark.parametrize("streams", [True, False], ids=["stream", "plain"])


@BOTH
@EVERY
def test_the_next_endpoint_and_not_the_same_while_another_is_left(reason: Reason, streams: bool) -> None:
    row = TABLE[reason]
    way = request(served(2, failures=0), streams)
    first = fail(way, row.failure)
    step = way.next(NOW)
    if not row.elsewhere:
        assert isinstance(step, Stop)
        return
    assert isinstance(step, Try), "without a pause"
    assert step.endpoint is not first.endpoint
    way.failed(step, row.failure)
    assert isinstance(way.next(NOW), Wait if row.again == "once, with backoff" else Stop)


@BOTH
@EVERY
def test_the_same_endpoint_again_when_no_other_is_left(reason: Reason, streams: bool) -> None:
    row = TABLE[reason]
    soon = row.failure._replace(retry_after=0.5) if row.failure.retry_after else row.failure
    way = request(served(1, failures=0), streams)
    first = fail(way, soon)
    step = way.next(NOW)
    if row.again == "no":
        assert isinstance(step, Stop)
        return
    assert isinstance(step, Wait)
    least = 0.5 if row.again == "after Retry-After" else 0.0
    assert least <= step.seconds <= least + BACKOFF
    early = way.next(NOW + step.seconds / 2)
    assert isinstance(early, Wait), "a timer may be early"
    now = NOW + step.seconds
    repeated = way.next(now)
    assert isinstance(repeated, Try)
    assert repeated.endpoint is first.endpoint
    way.failed(repeated, soon)
    repeated.pool.failed(repeated.endpoint, soon, now, now)
    assert isinstance(way.next(now), Wait if row.again == "after Retry-After" else Stop), (
        "once, but for limits that pass"
    )


@BOTH
def test_a_longer_retry_after_than_the_policy_waits_for_is_the_clients(streams: bool) -> None:
    way = request(served(1), streams)
    fail(way, Failure("rate-limited", 429, 1.001))
    assert isinstance(way.next(NOW), Stop)
    way = request(served(1), streams)
    fail(way, Failure("rate-limited", 429))
    assert isinstance(way.next(NOW), Stop), "without a Retry-After nobody knows"


@BOTH
@EVERY
@pytest.mark.parametrize("named", [*CLASSES, None])
def test_the_next_tier_if_it_names_the_class(reason: Reason, streams: bool, named: str | None) -> None:
    row = TABLE[reason]
    way = request(served(1, () if named is None else (named,)), streams)
    fail(way, row.failure)
    step = way.next(NOW)
    if named is not None and named == row.enters:
        assert isinstance(step, Try)
        assert step.tier == "away"
    else:
        assert isinstance(step, Stop)


@BOTH
@EVERY
def test_what_the_circuit_makes_of_it(reason: Reason, streams: bool) -> None:
    """With a single failure allowed, so that one that counts ejects."""
    row = TABLE[reason]
    runtime = served(2)
    home = runtime.pools["default/home"]
    endpoint = fail(request(runtime, streams), row.failure).endpoint
    now = NOW + 0.001
    assert (endpoint.circuit.ejected_until is not None) == (row.circuit == "counts") == REASONS[reason].counts
    assert home.usable(endpoint, now) == (row.circuit == "-")
    off = {"off until Retry-After": 20.0, "off 15 min": QUOTA_OFF}.get(row.circuit)
    if off is not None:
        assert not home.usable(endpoint, NOW + off - 0.001)
        assert home.usable(endpoint, NOW + off)
    if row.circuit == "off until its credential changes":
        assert not home.usable(endpoint, NOW + 1e6)
        changed = snapshot.Credential("default/other", "api-key", "Authorization", "Bearer ")
        spec = msgspec.structs.replace(
            home.spec, endpoints=tuple(msgspec.structs.replace(e, credential=changed) for e in home.spec.endpoints)
        )
        assert type(home)(spec, home).usable(endpoint, now)


@BOTH
@EVERY
def test_what_the_client_gets_in_the_end(reason: Reason, streams: bool) -> None:
    row = TABLE[reason]
    way = request(served(1), streams)
    fail(way, row.failure)
    stop = way.next(NOW)
    assert isinstance(stop, Stop)
    assert stop.answer == (row.client == AS_IT_IS)
    if not stop.answer:
        assert type(stop.error) is row.client
        assert stop.error.status in (429, 503, 504)
        assert stop.error.attempts == (f"home default/home/e0: {row.failure}",)
    if row.client is RateLimited:
        assert stop.error.retry_after == row.failure.retry_after


@pytest.mark.parametrize("reason", AFTER)
def test_what_has_ended_the_request_leads_nowhere(reason: Reason) -> None:
    treatment = REASONS[reason]
    assert (treatment.elsewhere, treatment.enters) == (False, None)
    assert treatment.counts == (AFTER[reason] == "counts")


@pytest.mark.parametrize("reason", BEFORE)
def test_a_tier_that_is_left_before_sending(reason: Reason) -> None:
    treatment = REASONS[reason]
    assert (treatment.elsewhere, treatment.enters, treatment.counts) == (True, BEFORE[reason][0], False)


STATUSES = {
    "rate-limited": {429},
    "quota-exhausted": {402},
    "overloaded": {498, 503, 529},
    "server-error": {408, 409, 424, *(each for each in range(500, 600) if each not in (503, 529))},
    "auth": {401, 403},
    "model-not-found": {404},
}


@pytest.mark.parametrize("status", range(400, 600))
def test_every_status_has_the_reason_that_the_table_gives_it(status: int) -> None:
    expected = next((reason for reason, statuses in STATUSES.items() if status in statuses), "bad-request")
    assert of_status(status) == expected


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (429, "insufficient_quota", "quota-exhausted"),
        (429, "billing_hard_limit_reached", "quota-exhausted"),
        (400, "context_length_exceeded", "context-length"),
        (400, "content_filter", "content-policy"),
        (400, "overloaded_error", "overloaded"),
        (403, "insufficient_quota", "quota-exhausted"),
        (403, "content_filter", "content-policy"),
        (400, "invalid_api_key", "auth"),
        (404, "content_filter", "model-not-found"),
        (400, "model_not_found", "model-not-found"),
        (403, "model_not_found", "model-not-found"),
    ],
)
def test_codes_say_more_than_statuses(status: int, code: str, reason: str) -> None:
    assert of_status(status, code) == reason


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("insufficient_quota", None, "quota-exhausted"),
        (None, "insufficient_quota", "quota-exhausted"),
        ("rate_limit_exceeded", "invalid_request_error", "rate-limited"),
        (None, "rate_limit_error", "rate-limited"),
        ("invalid_api_key", "invalid_request_error", "auth"),
        (None, "authentication_error", "auth"),
        (None, "overloaded_error", "overloaded"),
        (None, "billing_error", "quota-exhausted"),
        (None, "api_error", "server-error"),
        ("content_filter", None, "content-policy"),
        ("context_length_exceeded", "invalid_request_error", "context-length"),
        ("server_error", None, "server-error"),
        (None, None, "server-error"),
    ],
)
def test_an_error_in_a_stream_that_names_no_status_is_read_by_its_words(
    code: str | None, kind: str | None, reason: str
) -> None:
    assert of_status(status_of(code, kind), code, kind) == reason


def test_one_that_has_not_taken_its_credential_is_the_last_resort_and_back_when_it_does() -> None:
    runtime = served(2)
    way = request(runtime, True)
    refused = fail(way, TABLE["auth"].failure).endpoint
    for _ in range(20):
        step = request(runtime, True).next(NOW)
        assert isinstance(step, Try)
        assert step.endpoint is not refused
    fail(way, TABLE["auth"].failure)
    step = request(runtime, True).next(NOW)
    assert isinstance(step, Try), "one odd 403 for each account must not close the pool for good"
    assert step.picked.choice.reason == "panic"
    step.pool.succeeded(step.endpoint, NOW, NOW)
    assert step.pool.usable(step.endpoint, NOW)


def test_the_page_has_the_same_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    told = {name: row[2:] for row in rows for name in re.findall("`([a-z-]+)`", row[0])}
    assert set(told) == set(REASONS)
    for reason, (again, elsewhere, circuit, enters) in told.items():
        treatment = REASONS[reason]  # type: ignore[index]
        assert again == (TABLE[reason].again if reason in TABLE else "no"), reason  # type: ignore[index]
        assert elsewhere.startswith("yes" if treatment.elsewhere else "no"), reason
        if reason in TABLE:
            assert circuit.replace(NONE, "-") == TABLE[reason].circuit, reason  # type: ignore[index]
        else:
            assert (circuit == "counts") == treatment.counts, reason
        assert (treatment.enters or NONE) in enters, reason
