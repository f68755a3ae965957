"""The fault matrix: every fault, of a stream and of a plain answer, of a self-hosted endpoint and of a provider's
account, every time and only once, alone and beside another one, over real sockets. What a client sees stands in
docs/faults.md; the table there is this one.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.conftest import Reply
from tests.conftest import Say as say  # by its full name, as pytest has imported it

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
SOON = {"connect": "300ms", "firstByte": "300ms", "streamIdle": "300ms"}
ROUTE = {"timeouts": SOON, "retry": {"retryOn": ["ConnectError", "Reset", "FirstByteTimeout"]}}
REFUSE = "refuse"
PLACES = ("alone", "once", "beside")
ATTEMPTS = 3
"""`retry.attempts`, as it is by default."""

WHOLE = "200, whole"
FAILED = "503 `attempts_failed`"
LATE = "504 `deadline_exceeded`"
LIMITED = "429 `rate_limited`"
WAIT = "429 `rate_limited`, Retry-After: 7"
EVENT = "200, then an error event `stream_interrupted`"
CUT = "200, then the connection is cut"
OWN = "the endpoint's own answer"
AS_IT_CAME = "200, as it came"


class Fault(NamedTuple):
    """What an endpoint does, and what the client sees of it. None: there is no such thing."""

    name: str
    stream: tuple[Any, ...] | None
    plain: tuple[Any, ...] | None
    reason: str
    alone: str
    """What the client sees when no other endpoint may be asked, and this one does so every time."""
    beside: str = WHOLE
    """And when there is another one."""
    once: str | None = None
    """When there is no other, but this one does so only once; None: as when it does every time."""

    def seen(self, place: str) -> str:
        return {"alone": self.alone, "once": self.once or self.alone, "beside": self.beside}[place]

    @property
    def repeated(self) -> bool:
        """Whether the same endpoint is asked again."""
        return self.once is not None


def both(name: str, *steps: Any, reason: str, alone: str, beside: str = WHOLE, once: str | None = None) -> Fault:
    return Fault(name, steps, steps, reason, alone, beside, once)


def slowly(*pieces: bytes) -> tuple[Any, ...]:
    """Piece by piece, with less than a deadline between them."""
    return tuple(step for piece in pieces for step in (piece, say.PAUSE, say.PAUSE))


OK = b"HTTP/1.1 200 OK\r\n"
ROLE = say.chunk(say.role())
PART = say.chunk(say.word("hello")[:40])
WORDS = say.chunks(say.role(), say.word("one "), say.word("two "))
PLAIN = say.completion("hello")
HALF = PLAIN[:-20]
LARGE = say.message(body=b"x" * (4 << 20))[: 3 << 20]
"""More than is held back of a plain answer until it is whole."""
NONSENSE = say.SSE + say.chunks(b"data: nonsense\n\n", say.DONE) + say.END
BAD_JSON = say.message(body=b'{"id": ')
CONNECT: Any = {"reason": "connect", "alone": FAILED}
SILENT: Any = {"reason": "first-byte-timeout", "alone": LATE}
STALL: Any = {"reason": "stall", "alone": LATE}
SERVER: Any = {"reason": "server-error", "alone": FAILED, "once": WHOLE}
BUSY: Any = {"reason": "overloaded", "alone": FAILED, "once": WHOLE}
BROKEN: Any = {"reason": "interrupted", "alone": EVENT, "beside": EVENT}
SHORT: Any = {"reason": "interrupted", "alone": CUT, "beside": CUT}

FAULTS = [
    both("refuse", REFUSE, **CONNECT),
    both("reset before headers", say.RESET, **CONNECT),
    both("reset in the headers", OK + b"content-le", say.RESET, **CONNECT),
    Fault("reset before the first content", (say.SSE, ROLE, say.RESET), (HALF, say.RESET), **CONNECT),
    Fault("reset after content", (say.SSE, WORDS, say.RESET), None, **BROKEN),
    Fault("reset in a large answer", None, (LARGE, say.RESET), **SHORT),
    both("cut early: before headers", say.CLOSE, **CONNECT),
    both("cut early: in the headers", OK + b"content-le", say.CLOSE, **CONNECT),
    Fault("cut early: before the first content", (say.SSE, ROLE, PART, say.CLOSE), (HALF, say.CLOSE), **CONNECT),
    Fault("cut late: after content", (say.SSE, WORDS, say.CLOSE), None, **BROKEN),
    Fault("cut late: ended without `[DONE]`", (say.SSE, WORDS, say.END), None, **BROKEN),
    Fault("cut late: in a large answer", None, (LARGE, say.CLOSE), **SHORT),
    both("hang before headers", say.HANG, **SILENT),
    both("hang in the headers", OK + b"content-le", say.HANG, **SILENT),
    both("hang after the headers", say.SSE, say.HANG, **SILENT),
    Fault("stall before the first content", (say.SSE, ROLE, say.HANG), (HALF, say.HANG), **STALL),
    Fault("stall after content", (say.SSE, WORDS, say.HANG), None, **BROKEN),
    Fault("stall in a large answer", None, (LARGE, say.HANG), **SHORT),
    Fault(
        "slow, within the deadlines",
        slowly(
            say.SSE,
            *(say.chunk(each) for each in (say.role(), say.word("hello"), say.delta("stop"), say.DONE)),
            say.END,
        ),
        slowly(PLAIN[:10], PLAIN[10:-30], PLAIN[-30:]),
        "ok",
        WHOLE,
    ),
    both("429", say.error(429, "rate_limit_exceeded"), reason="rate-limited", alone=LIMITED),
    both("429 with Retry-After", say.error(429, retry_after="7"), reason="rate-limited", alone=WAIT),
    both("429 with `retry-after-ms`", say.error(429, retry_after_ms="6500"), reason="rate-limited", alone=WAIT),
    both(
        "429 with a Retry-After of 50 ms",
        say.error(429, retry_after_ms="50"),
        reason="rate-limited",
        alone=f"{LIMITED}, Retry-After: 1",
        once=WHOLE,
    ),
    both("429 `insufficient_quota`", say.error(429, "insufficient_quota"), reason="quota-exhausted", alone=LIMITED),
    both("402", say.error(402), reason="quota-exhausted", alone=LIMITED),
    both("500", say.error(500), **SERVER),
    both("502", say.error(502), **SERVER),
    both("503", say.error(503), **BUSY),
    both("504", say.error(504), **SERVER),
    both("529", say.error(529), **BUSY),
    both("401", say.error(401, "invalid_api_key"), reason="auth", alone=FAILED),
    both("403", say.error(403), reason="auth", alone=FAILED),
    both("wrong model (404)", say.error(404, "model_not_found"), reason="model-not-found", alone=FAILED, beside=FAILED),
    both("another 4xx", say.error(422), reason="bad-request", alone=OWN, beside=OWN),
    both("malformed: no HTTP", bytes(range(256)), say.HANG, **CONNECT),
    both("malformed: an error that is no JSON", say.message(500, b"<html>", content_type="text/html"), **SERVER),
    both("malformed: an error whose body is cut", say.message(500, b"x" * 99)[:-50], say.CLOSE, **SERVER),
    Fault("malformed: a bad chunk before content", (say.SSE, ROLE, b"zz\r\n", say.HANG), None, **CONNECT),
    Fault("malformed: a bad chunk after content", (say.SSE, WORDS, say.PAUSE, b"zz\r\n", say.HANG), None, **BROKEN),
    Fault("malformed: events that are no JSON", (NONSENSE,), None, "ok", AS_IT_CAME, AS_IT_CAME),
    Fault("malformed: a whole answer that is no JSON", None, (BAD_JSON,), "ok", AS_IT_CAME, AS_IT_CAME),
]


def cells() -> list[Any]:
    return [
        pytest.param(kind, stream, fault, place, id=f"{place}-{kind}-{'stream' if stream else 'plain'}-{fault.name}")
        for kind in ("self-hosted", "provider")
        for fault in FAULTS
        for stream in (True, False)
        for place in PLACES
        if (fault.stream if stream else fault.plain) is not None and (fault.repeated or place != "once")
    ]


@pytest.fixture
def stage(serve, endpoint, objects, refusing, tmp_path: Path):
    """A balancer before an endpoint that has this fault so many `times`, and before `others` that have none."""

    async def build(kind: str, steps: tuple[Any, ...], others: int, times: int) -> Any:
        secrets = tmp_path / "secrets"
        for name in ("a", "b"):
            (secrets / name).mkdir(parents=True)
            (secrets / name / "api-key").write_text(say.KEY)
        refuses = steps == (REFUSE,)
        plan = deque() if refuses else deque([say.steps(*steps)] * times)
        engines = [await endpoint() for _ in range(1 + others)]
        for each in engines:
            each.plan = plan

        def pool(name: str, *urls: str) -> Any:
            if kind == "self-hosted":
                return objects.pool(name, *urls, models=[{"name": "m"}])
            accounts = [name] if refuses else ["a", "b"][: 1 + others]
            return objects.provider(name, f"{urls[0]}/v1", *accounts, models=[{"name": "m"}])

        if refuses:  # what listens nowhere, and what does, are no accounts of one address: two pools
            names = ["a", "b"][: 1 + others]
            pools = [pool(name, url) for name, url in zip(names, (refusing, engines[-1].url), strict=False)]
            tier = {"name": "only", "pools": [{"name": name} for name in names], "select": "InOrder"}
            docs = [*pools, objects.route(tiers=[tier], **ROUTE)]
        else:
            docs = [pool("local", *(each.url for each in engines)), objects.route("local", **ROUTE)]
        return await serve(docs=docs, secrets=secrets), engines

    return build


def seen(reply: Reply) -> str:
    """What a client has seen, in the words of the table."""
    if reply.status == 200:
        if not reply.whole:
            return CUT
        if reply.streamed and reply.events[-1] != "[DONE]":
            return f"200, then an error event `{reply.error['code']}`"
        try:
            return WHOLE if reply.text == "hello" else AS_IT_CAME
        except ValueError:
            return AS_IT_CAME
    assert reply.whole
    error = reply.error
    if error["message"] == "no":
        return OWN
    wait = reply.header("retry-after")
    told = f"{reply.status} `{error['code']}`"
    return told if wait is None or reply.status == 503 else f"{told}, Retry-After: {wait}"


@pytest.mark.parametrize(("kind", "stream", "fault", "place"), cells())
async def test_what_the_client_sees(stage, dial, kind: str, stream: bool, fault: Fault, place: str) -> None:
    steps = fault.stream if stream else fault.plain
    assert steps is not None
    others = int(place == "beside")
    lb, engines = await stage(kind, steps, others, 9 if place == "alone" else 1)
    client = await dial(lb)
    reply = await client.chat(stream=stream)
    assert seen(reply) == fault.seen(place)
    if reply.status == 200 and not reply.whole:
        await lb.until(lambda: lb.sample("spillway_requests_total", code="502"))
        return
    if not fault.seen(place).startswith(("200, whole", "200, as")):
        assert lb.sample("spillway_requests_total", code="200") == 0, "no answer that broke off counts as a success"
    failed = 1
    if place == "alone" and fault.repeated:
        failed = ATTEMPTS if fault.reason == "rate-limited" else 2
    assert lb.sample("spillway_attempts_total", reason=fault.reason) == failed
    again = fault.reason != "ok" and place != "alone" and fault.seen(place) == WHOLE
    assert lb.sample("spillway_attempts_total") == failed + again
    calls = [call for each in engines for call in each.calls]
    if kind == "provider":
        assert {call.header("authorization") for call in calls} <= {f"Bearer {say.KEY}"}
    assert all(call.json()["model"] == "m" for call in calls)
    if others and fault.reason not in ("ok", "bad-request"):
        assert (await client.chat(stream=stream)).text == "hello"  # the client's connection goes on


def table() -> list[str]:
    """The matrix as the page has it."""
    lines = ["| the endpoint | stream | plain | reason | alone | alone, once | beside another |", f"|{'---|' * 7}"]
    for fault in FAULTS:
        kinds = ["yes" if steps is not None else "" for steps in (fault.stream, fault.plain)]
        what = (fault.name, *kinds, f"`{fault.reason}`", *(fault.seen(place) for place in PLACES))
        lines.append(f"| {' | '.join(what)} |")
    return lines


def test_the_page_has_this_table() -> None:
    page = PAGE.read_text().splitlines()
    assert [line for line in page if line.startswith("|")] == table()
