"""What a client sees when an endpoint fails, in every way in which one can: nothing, as long as nothing of an answer
has been sent and another endpoint may be asked; the truth, from then on."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from email.utils import formatdate
from time import time
from typing import NamedTuple

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

from spillway_balancer.core.reasons import REASONS

SOON = {"connect": "400ms", "firstByte": "400ms", "streamIdle": "400ms"}
RETRY = {"retryOn": ["ConnectError", "Reset", "FirstByteTimeout"]}
ROUTE = {"timeouts": SOON, "retry": RETRY}


class Fault(NamedTuple):
    """`steps` of the endpoint and `reason` of the attempt. What a client gets when there is no other endpoint is
    `status` with our `code`, or the endpoint's own answer where `code` is empty."""

    steps: tuple[object, ...]
    reason: str = "connect"
    status: int = 503
    code: str = "attempts_failed"
    retried: bool = True


ROLE = say.chunk(say.role())
PART = say.chunk(say.word("hello")[:40])
FIRST = ("first-byte-timeout", 504, "deadline_exceeded")
STALL = ("stall", 504, "deadline_exceeded")
OK = b"HTTP/1.1 200 OK\r\n"
HALF = say.completion()[:-20]


def failed(code: object) -> bytes:
    """An error inside a stream, as vLLM sends it."""
    error = {"message": "no", "type": "InternalServerError", "param": None, "code": code}
    return say.chunks(say.event({"error": error}), say.DONE)


ANY = {
    "reset before headers": Fault((say.RESET,)),
    "closed before headers": Fault((say.CLOSE,)),
    "reset in the headers": Fault((OK + b"content-le", say.RESET)),
    "closed in the headers": Fault((OK + b"content-le", say.CLOSE)),
    "reset after headers": Fault((say.SSE, say.RESET)),
    "closed after headers": Fault((say.SSE, say.CLOSE)),
    "stall before headers": Fault((say.HANG,), *FIRST),
    "stall in the headers": Fault((OK + b"content-le", say.HANG), *FIRST),
    "stall after headers": Fault((say.SSE, say.HANG), *FIRST),
    "not HTTP": Fault((b"SSH-2.0-OpenSSH_9.9\r\n", say.HANG)),
    "nonsense": Fault((bytes(range(256)), say.HANG)),
    "status line without end": Fault((b"HTTP/1.1 200 " + b"O" * 200_000, say.HANG)),
    "endless headers": Fault((OK, b"x-a: 1\r\n" * 20_000, say.HANG)),
    "framed twice": Fault((OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}", say.HANG)),
    "two lengths": Fault((OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", say.HANG)),
    "unasked coding": Fault((OK + b"transfer-encoding: gzip, chunked\r\n\r\n", say.END, say.HANG)),
    "another version": Fault((b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", say.HANG)),
    "bad chunk": Fault((say.SSE, b"zz\r\n", say.HANG)),
    "protocol switched": Fault((b"HTTP/1.1 101 Sure\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", say.HANG)),
    "400": Fault((say.error(400, "bad_thing"),), "bad-request", 400, "", retried=False),
    "400 context": Fault((say.error(400, "context_length_exceeded"),), "context-length", 400, "", retried=False),
    "400 content": Fault((say.error(400, "content_policy_violation"),), "content-policy", 400, "", retried=False),
    "401": Fault((say.error(401, "invalid_api_key"),), "auth"),
    "402": Fault((say.error(402),), "quota-exhausted", 429, "rate_limited"),
    "403": Fault((say.error(403),), "auth"),
    "404": Fault((say.error(404, "model_not_found"),), "model-not-found", retried=False),
    "408": Fault((say.error(408),), "server-error"),
    "409": Fault((say.error(409),), "server-error"),
    "418": Fault((say.error(418),), "bad-request", 418, "", retried=False),
    "422": Fault((say.error(422),), "bad-request", 422, "", retried=False),
    "424": Fault((say.error(424),), "server-error"),
    "429": Fault((say.error(429, "rate_limit_exceeded"),), "rate-limited", 429, "rate_limited"),
    "429 quota": Fault((say.error(429, "insufficient_quota"),), "quota-exhausted", 429, "rate_limited"),
    "498": Fault((say.error(498),), "overloaded"),
    "500": Fault((say.error(500),), "server-error"),
    "502": Fault((say.error(502),), "server-error"),
    "503": Fault((say.error(503),), "overloaded"),
    "504": Fault((say.error(504),), "server-error"),
    "529": Fault((say.error(529),), "overloaded"),
    "error without a body": Fault((say.message(500, b""),), "server-error"),
    "error that is no JSON": Fault((say.message(503, b"<html>", content_type="text/html"),), "overloaded"),
    "error whose body is cut": Fault((say.message(500, b"x" * 99)[:-50], say.CLOSE), "server-error"),
    "error whose body is endless": Fault(
        (b"HTTP/1.1 500 No\r\ncontent-length: 99999999\r\n\r\n", b"x" * 100_000, say.HANG), "server-error"
    ),
    "error whose body stalls": Fault(
        (b"HTTP/1.1 500 No\r\ncontent-length: 99\r\n\r\n", say.HANG), "first-byte-timeout", 504, "deadline_exceeded"
    ),
}
"""Faults before anything is committed, of any request."""

STREAM = ANY | {
    "reset after the role": Fault((say.SSE, ROLE, say.RESET)),
    "cut after the role": Fault((say.SSE, ROLE, say.CLOSE)),
    "cut in the first event": Fault((say.SSE, ROLE, PART, say.CLOSE)),
    "stall after the role": Fault((say.SSE, ROLE, say.HANG), *STALL),
    "stall in the first event": Fault((say.SSE, PART, say.HANG), *STALL),
    "only pings": Fault((say.SSE, say.chunks(b": ping\n\n", b'data: {"type":"ping"}\n\n'), say.HANG), *STALL),
    "ended after the role": Fault((say.SSE, ROLE, say.END)),
    "ended in the first event": Fault((say.SSE, PART, say.END)),
    "ended empty": Fault((say.SSE, say.END)),
    "error event": Fault((say.SSE, ROLE, failed(500), say.END), "server-error"),
    "error event and no end": Fault((say.SSE, failed(500), say.HANG), "server-error"),
    "error event, overloaded": Fault((say.SSE, failed(503), say.END), "overloaded"),
    "error event, limit": Fault((say.SSE, failed(429), say.END), "rate-limited", 429, "rate_limited"),
    "error event, code in words": Fault((say.SSE, failed("server_overloaded"), say.END), "overloaded"),
    "bad chunk after the role": Fault((say.SSE, ROLE, b"zz\r\n", say.HANG)),
}
PLAIN = ANY | {
    "reset in the body": Fault((HALF, say.RESET)),
    "cut in the body": Fault((HALF, say.CLOSE)),
    "stall in the body": Fault((HALF, say.HANG), *STALL),
    "cut in a chunked body": Fault((OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", say.CLOSE)),
}
MATRIX = [
    pytest.param(kind == "stream", fault, id=f"{kind}-{name}")
    for kind, faults in (("stream", STREAM), ("plain", PLAIN))
    for name, fault in faults.items()
]


@pytest.mark.parametrize(("stream", "fault"), MATRIX)
async def test_a_fault_before_commit_is_made_good_by_another_endpoint(serve, endpoint, dial, stream, fault) -> None:
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(*fault.steps)])  # whichever is asked first fails
    lb = await serve(one, two, route=ROUTE)
    client = await dial(lb)
    reply = await client.chat(stream=stream)
    if fault.retried:
        assert (reply.status, reply.text, reply.whole) == (200, "hello", True)
        assert reply.streamed is stream
        assert (len(one.calls), len(two.calls)) == (1, 1)
        assert lb.sample("spillway_attempts_total", reason="ok") == 1
    else:
        assert reply.status == fault.status
        assert len(one.calls) + len(two.calls) == 1
    assert lb.sample("spillway_attempts_total", reason=fault.reason) == 1
    assert (await client.chat(stream=stream)).text == "hello"  # the client's connection goes on


@pytest.mark.parametrize(("stream", "fault"), MATRIX)
async def test_without_another_endpoint_the_error_says_what_was_tried(serve, endpoint, dial, stream, fault) -> None:
    engine = await endpoint(say.steps(*fault.steps))
    lb = await serve(engine, route=ROUTE)
    client = await dial(lb)
    times = 2 if fault.retried and REASONS[fault.reason].again == "once" else 1
    reply = await client.chat(stream=stream)
    assert (reply.status, reply.whole) == (fault.status, True)
    if fault.code:
        error = reply.error
        assert error["code"] == fault.code
        assert len(error["attempts"]) == times
        for attempt in error["attempts"]:
            assert attempt.startswith(f"only default/local/e1: {fault.reason}")
    else:  # the endpoint's own words
        assert reply.error["message"] == "no"
    assert len(engine.calls) == times
    assert lb.sample("spillway_attempts_total", reason=fault.reason) == times
    assert lb.sample("spillway_requests_total", code=str(fault.status), route="default/chat") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_connection_is_made_good_by_another_endpoint(serve, endpoint, dial, refusing, stream) -> None:
    engine = await endpoint()
    lb = await serve(refusing, engine, pool={"dispatch": {"strategy": "RoundRobin"}})
    client = await dial(lb)
    for _ in range(4):
        assert (await client.chat(stream=stream)).text == "hello"
    assert lb.sample("spillway_attempts_total", reason="ok", endpoint="e2") == 4
    assert lb.sample("spillway_attempts_total", reason="connect", endpoint="e1") >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_without_another_endpoint_a_refused_connection_is_503(serve, dial, refusing, stream) -> None:
    client = await dial(await serve(refusing))
    reply = await client.chat(stream=stream)
    assert (reply.status, reply.error["code"], reply.header("retry-after")) == (503, "attempts_failed", "1")
    assert reply.error["attempts"] == ["only default/local/e1: connect"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/audio/speech"])
async def test_every_path_is_retried_alike(serve, endpoint, dial, path) -> None:
    one, two = await endpoint(say.steps(say.message())), await endpoint(say.steps(say.message()))
    one.plan = two.plan = deque(
        [
            say.steps(say.RESET),
        ]
    )
    client = await dial(await serve(one, two))
    assert (await client.post(path, {"model": "chat", "input": "x"})).status == 200
    assert [call.target for call in one.calls + two.calls] == [path, path]


# ---- after commit


TEXT = say.role() + say.word("one ") + say.word("two ")
WORDS = say.chunks(say.role(), say.word("one "), say.word("two "))
FRAMED = OK + b"content-type: text/event-stream\r\ncontent-length: 4000\r\n\r\n"
UNFRAMED = OK + b"content-type: text/event-stream\r\n\r\n"
CUT_WORD = say.word("three")[:40]
LATE = {
    "reset": (say.SSE, WORDS, say.RESET),
    "cut": (say.SSE, WORDS, say.CLOSE),
    "cut in an event": (say.SSE, WORDS, PART, say.CLOSE),
    "ended without its terminator": (say.SSE, WORDS, say.END),
    "ended in an event": (say.SSE, WORDS, PART, say.END),
    "ended after finish_reason": (say.SSE, WORDS, say.chunk(say.delta("stop")), say.END),
    "stall": (say.SSE, WORDS, say.HANG),
    "stall in an event": (say.SSE, WORDS, PART, say.HANG),
    "bad chunk": (say.SSE, WORDS, say.PAUSE, b"zz\r\n", say.HANG),
    "of known length, reset": (FRAMED, TEXT, say.RESET),
    "of known length, cut": (FRAMED, TEXT, say.CLOSE),
    "of known length, cut in an event": (FRAMED, TEXT, CUT_WORD, say.CLOSE),
    "of known length, stall": (FRAMED, TEXT, say.HANG),
    "until close, reset": (UNFRAMED, TEXT, say.RESET),
    "until close, cut": (UNFRAMED, TEXT, say.CLOSE),
    "until close, cut in an event": (UNFRAMED, TEXT, CUT_WORD, say.CLOSE),
    "until close, stall": (UNFRAMED, TEXT, say.HANG),
}


@pytest.mark.parametrize("case", LATE)
async def test_no_retry_after_first_content_byte(serve, endpoint, dial, case) -> None:
    """A cut stream is said to be cut: an error event ends it, on lines of its own, in an answer that is whole."""
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(*LATE[case])])
    lb = await serve(one, two, route=ROUTE)
    client = await dial(lb)
    reply = await client.chat(stream=True)
    assert (reply.status, reply.whole) == (200, True)
    *said, last = reply.events
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in said)
    assert text == "one two "
    assert json.loads(last)["error"]["code"] == "stream_interrupted"
    assert len(one.calls) + len(two.calls) == 1
    assert lb.sample("spillway_attempts_total", reason="interrupted") == 1
    assert lb.sample("spillway_attempts_total") == 1
    assert (await client.chat(stream=True)).text == "hello"  # the client's connection goes on


async def test_an_error_event_of_the_endpoint_after_content_is_passed_on(serve, endpoint, dial) -> None:
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(say.SSE, WORDS, say.PAUSE, failed(500), say.END)])
    lb = await serve(one, two)
    client = await dial(lb)
    reply = await client.chat(stream=True)
    assert reply.whole
    assert json.loads(reply.events[-2])["error"]["type"] == "InternalServerError"
    assert len(one.calls) + len(two.calls) == 1
    assert lb.sample("spillway_attempts_total", reason="interrupted") == 1
    assert (await client.chat(stream=True)).text == "hello"


async def test_a_client_of_http_1_0_is_told_of_a_cut_too(serve, endpoint, dial) -> None:
    client = await dial(await serve(await endpoint(say.steps(say.SSE, WORDS, say.CLOSE))))
    await client.send(client.request(body=client.chat_body(stream=True), version="HTTP/1.0"))
    reply = await client.reply()
    assert json.loads(reply.events[-1])["error"]["code"] == "stream_interrupted"


async def test_a_typed_stream_is_ended_by_a_typed_error(serve, endpoint, dial) -> None:
    """/v1/responses names its events; SDKs look for `error` in both places."""
    begun = [
        say.chunk(b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, "delta": "x"}).encode()))
        for kind in ("response.created", "response.output_text.delta")
    ]
    client = await dial(await serve(await endpoint(say.steps(say.SSE, *begun, say.CLOSE))))
    reply = await client.post("/v1/responses", {"model": "chat", "input": "x", "stream": True})
    assert reply.whole
    assert b"\n\nevent: error\ndata: " in reply.body
    last = json.loads(reply.events[-1])
    assert (last["type"], last["code"], last["error"]["code"]) == ("error", *["stream_interrupted"] * 2)


@pytest.mark.parametrize("end", [say.RESET, say.CLOSE, say.HANG])
async def test_a_cut_in_a_large_plain_answer_is_a_cut_connection(serve, endpoint, dial, end) -> None:
    """Nothing else can say it: the bytes of a known length are missing."""
    answer = say.message(body=b"x" * (4 << 20))[: 3 << 20]
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(answer, end)])
    lb = await serve(one, two, route=ROUTE)
    client = await dial(lb)
    reply = await client.chat()
    assert (reply.status, reply.whole) == (200, False)
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="interrupted") == 1)
    assert len(one.calls) + len(two.calls) == 1


# ---- what is not retried, and how often what is


async def test_a_bad_request_inside_a_stream_reaches_the_client(serve, endpoint, dial) -> None:
    """Before any content, in an answer with status 200: it must not become an empty answer."""
    client = await dial(await serve(await endpoint(say.steps(say.SSE, ROLE, failed(400), say.END))))
    reply = await client.chat(stream=True)
    assert reply.whole
    assert json.loads(reply.events[-1])["error"]["code"] == 400


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry_after": "7"}, 6, 8),
        ({"retry_after": "7.5"}, 7, 9),
        ({"retry_after": 3600}, 3500, 3601),
        ({"retry_after_ms": "2500"}, 2, 4),
        ({"retry_after_ms": "2500", "retry_after": "9"}, 2, 4),
        ({"retry_after": "0"}, 1, 1),
        ({"retry_after": "-5"}, 1, 1),
        ({"retry_after": -60}, 1, 1),
        ({"retry_after": "soon"}, None, None),
        ({"retry_after": "nan"}, None, None),
        ({}, None, None),
    ],
)
async def test_a_limit_is_passed_on_with_the_time_to_wait(serve, endpoint, dial, headers, least, most) -> None:
    """Numbers stand for a date so many seconds from the test's beginning, which may be long after its collection."""
    headers = {
        name: formatdate(time() + at, usegmt=True) if isinstance(at, int) else at for name, at in headers.items()
    }
    engine = await endpoint(say.steps(say.error(429, **headers)))
    lb = await serve(engine)
    client = await dial(lb)
    reply = await client.chat()
    assert (reply.status, reply.error["type"], reply.error["code"]) == (429, "rate_limit_error", "rate_limited")
    wait, exact = reply.header("retry-after"), reply.header("retry-after-ms")
    if least is None:
        assert (wait, exact) == (None, None)
    else:
        assert least <= int(wait) <= most
        assert int(wait) - 1 <= int(exact) / 1000 <= int(wait)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_endpoint_that_asks_for_time_is_given_it(serve, endpoint, dial, stream) -> None:
    """A Retry-After is believed: the next requests go elsewhere at once, and nobody is ejected for it."""
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(say.error(429, retry_after="30"))])
    lb = await serve(one, two)
    client = await dial(lb)
    for _ in range(6):
        assert (await client.chat(stream=stream)).text == "hello"
    assert sorted((len(one.calls), len(two.calls))) == [1, 6]


async def test_the_smallest_of_several_waits_is_passed_on(serve, endpoint, dial) -> None:
    waits = [await endpoint(say.steps(say.error(429, retry_after=wait))) for wait in ("40", "20", "60")]
    reply = await (await dial(await serve(*waits))).chat()
    assert (reply.status, reply.header("retry-after"), len(reply.error["attempts"])) == (429, "20", 3)


async def test_an_endpoint_is_asked_again_once_when_all_have_failed(serve, endpoint, dial) -> None:
    engines = [await endpoint(say.steps(say.error(500))) for _ in range(4)]
    lb = await serve(*engines, route={"retry": {"attempts": 10, "backoffBase": "1ms"}})
    reply = await (await dial(lb)).chat()
    assert (reply.status, len(reply.error["attempts"])) == (503, 8)
    tried = [attempt.split(":")[0] for attempt in reply.error["attempts"]]
    assert len(set(tried[:4])) == 4, "each of them before any again"
    assert [len(each.calls) for each in engines] == [2, 2, 2, 2]


async def test_an_endpoint_that_refuses_connections_is_not_asked_again(serve, endpoint, dial) -> None:
    engines = [await endpoint(say.steps(say.RESET)) for _ in range(4)]
    lb = await serve(*engines, route={"retry": {"attempts": 10}})
    reply = await (await dial(lb)).chat()
    assert (reply.status, len(reply.error["attempts"])) == (503, 4)
    assert [len(each.calls) for each in engines] == [1, 1, 1, 1]


async def test_a_client_that_leaves_in_a_pause_is_waited_for_by_nobody(serve, endpoint, dial) -> None:
    engine = await endpoint(say.steps(say.error(503)))
    slow = {"backoffBase": "60s", "backoffMax": "60s", "jitter": "None"}
    lb = await serve(engine, route={"retry": slow})
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body()))
    await engine.call()
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="overloaded") == 1)
    client.reset()
    await lb.until(lambda: lb.sample("spillway_requests_total", code="499") == 1)
    assert len(engine.calls) == 1


async def test_a_pause_is_cut_by_what_is_left_of_the_requests_time(serve, endpoint, dial) -> None:
    engine = await endpoint(say.steps(say.error(503)))
    slow = {"backoffBase": "60s", "backoffMax": "60s", "jitter": "None"}
    times = {"connect": "1s", "firstByte": "10s", "total": "10s"}
    lb = await serve(engine, route={"retry": slow, "timeouts": times})
    reply = await (await dial(lb)).chat()
    assert (reply.status, len(engine.calls)) == (503, 1), "at once, since a pause of a minute leads nowhere"


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_attempts_are_bounded(serve, endpoint, dial, attempts) -> None:
    engines = [await endpoint(say.steps(say.RESET)) for _ in range(5)]
    reply = await (await dial(await serve(*engines, route={"retry": {"attempts": attempts}}))).chat()
    assert (reply.status, len(reply.error["attempts"])) == (503, attempts)
    assert sum(len(each.calls) for each in engines) == attempts


async def test_a_first_byte_deadline_is_not_retried_unless_the_policy_says_so(serve, endpoint, dial) -> None:
    """A request that an engine may still be computing is not computed twice by default."""
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(say.HANG)])
    lb = await serve(one, two, route={"timeouts": SOON})
    reply = await (await dial(lb)).chat()
    assert (reply.status, reply.error["type"], reply.error["code"]) == (504, "timeout_error", "deadline_exceeded")
    assert len(one.calls) + len(two.calls) == 1


async def test_the_total_deadline_ends_all_attempts(serve, endpoint, dial) -> None:
    engines = [await endpoint(say.steps(say.HANG)) for _ in range(3)]
    timeouts = {"connect": "300ms", "firstByte": "300ms", "total": "450ms"}
    lb = await serve(*engines, route={"timeouts": timeouts, "retry": {**RETRY, "attempts": 10}})
    reply = await (await dial(lb)).chat()
    assert (reply.status, reply.error["code"], len(reply.error["attempts"])) == (504, "deadline_exceeded", 2)


async def test_the_total_deadline_cuts_a_stream_and_says_so(serve, endpoint, dial) -> None:
    async def for_ever(call) -> None:
        call.write(say.SSE + WORDS)
        while not call.writer.is_closing():
            call.write(say.chunk(say.word("more ")))
            await asyncio.sleep(0.02)

    timeouts = {"connect": "300ms", "firstByte": "300ms", "total": "500ms"}
    lb = await serve(await endpoint(for_ever), route={"timeouts": timeouts})
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.whole
    assert "error" in json.loads(reply.events[-1])
    assert lb.sample("spillway_attempts_total", reason="deadline") == 1


async def test_a_slow_stream_is_not_idle(serve, endpoint, dial) -> None:
    async def slowly(call) -> None:
        call.write(say.SSE)
        for number in range(8):
            call.write(say.chunk(say.word(f"{number}")))
            await asyncio.sleep(0.1)
        call.write(say.chunk(say.DONE) + say.END)

    client = await dial(await serve(await endpoint(slowly), route=ROUTE))
    assert (await client.chat(stream=True)).text == "01234567"


async def test_retries_stay_within_their_budget(serve, endpoint, dial) -> None:
    """Thirty in ten seconds, whatever the share, and not one more: a pool in trouble is not given more work."""
    engines = [await endpoint(say.steps(say.error(500))) for _ in range(2)]
    passive = {"passive": {"consecutiveFailures": 0, "minRequests": 10_000}}
    lb = await serve(*engines, pool={"health": passive}, route={"retry": {"attempts": 2, "budgetPercent": 0}})
    client = await dial(lb)
    attempts = [len((await client.chat()).error["attempts"]) for _ in range(40)]
    assert attempts == [2] * 30 + [1] * 10


async def test_a_kept_connection_that_was_closed_for_idleness_costs_nobody_an_attempt(serve, endpoint, dial) -> None:
    async def close_after(call) -> None:
        await say.well()(call)
        call.writer.close()

    engine = await endpoint(close_after)
    lb = await serve(engine)
    client = await dial(lb)
    for _ in range(20):
        assert (await client.chat()).text == "hello"
    assert lb.sample("spillway_attempts_total", reason="ok") == 20
    assert lb.sample("spillway_attempts_total") == 20


async def test_a_stall_after_content_is_told_by_its_own_deadline_and_not_by_that_of_the_first_byte(
    serve, endpoint, dial
) -> None:
    engine = await endpoint(say.steps(say.SSE + WORDS, say.HANG))
    times = {"connect": "1s", "firstByte": "5m", "streamIdle": "300ms", "total": "10m"}
    lb = await serve(engine, route={"timeouts": times})
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.error["code"] == "stream_interrupted"
