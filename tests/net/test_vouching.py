"""Whose a sidecar's token is: asked seldom, once for all who ask at a time, and known while nobody can be asked."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from spillway_api import stream
from spillway_api.tokens import LONGEST
from spillway_balancer.net import vouching
from spillway_balancer.net.vouching import FRESH, OPEN, OUTAGE, REFUSED, SOON, Vouching


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Operator:
    """The other end of a connection: answers at once, or when it is let."""

    def __init__(self, asker: Vouching) -> None:
        self.asker = asker
        self.asked: list[stream.Whose] = []
        self.silent = False
        self.unable = False
        self.more = asyncio.Event()

    async def take(self, message: stream.FromBalancer) -> None:
        assert isinstance(message, stream.Whose)
        self.asked.append(message)
        self.more.set()
        if not self.silent:
            self.answer(message)

    def answer(self, asked: stream.Whose) -> None:
        known = asked.token.startswith("quagga")
        state = "Unavailable" if self.unable else "Known" if known else "Unknown"
        self.asker.hear(stream.Vouched(asked.number, state, "team", "pod-1"))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.asker.talk(self.take))
        await asyncio.sleep(0)
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                self.more.clear()
                await self.more.wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall() -> Clock:
    return Clock(5000.0)


@pytest.fixture
def gateway(clock: Clock, wall: Clock) -> Vouching:
    return Vouching(clock=clock, wall=wall)


@pytest.fixture
def operator(gateway: Vouching) -> Operator:
    return Operator(gateway)


def token(name: str, **claims: object) -> str:
    return f"{name}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.zebra"


GOOD = token("quagga")


async def test_one_question_however_many_requests_and_none_while_the_answer_is_fresh(gateway, operator, clock):
    async with operator.connected():
        assert await asyncio.gather(*(gateway.state(GOOD) for _ in range(200))) == ["Known"] * 200
        clock.now += SOON - 1
        assert await gateway.state(GOOD) == "Known"
        assert len(operator.asked) == 1


async def test_a_token_in_use_is_looked_at_anew_and_no_request_waits_for_it(gateway, operator, clock):
    async with operator.connected():
        await gateway.state(GOOD)
        operator.silent = True
        clock.now += SOON
        assert await gateway.state(GOOD) == "Known"
        assert await gateway.state(GOOD) == "Known"
        await operator.until(2)
        operator.answer(operator.asked[1])
        clock.now += SOON - 1  # the first answer would be too old by now
        assert await gateway.state(GOOD) == "Known"
        assert len(operator.asked) == 2


async def test_one_that_is_nobody_s_any_more_is_known_no_longer_than_a_minute(gateway, operator, clock):
    async with operator.connected():
        await gateway.state(GOOD)
        clock.now += SOON
        operator.silent = True
        await gateway.state(GOOD)
        await operator.until(2)
        gateway.hear(stream.Vouched(operator.asked[1].number, "Unknown"))
        assert await gateway.state(GOOD) == "Unknown"


async def test_while_nobody_can_be_asked_it_is_known_for_ten_minutes(gateway, operator, clock):
    async with operator.connected():
        await gateway.state(GOOD)
    clock.now += OUTAGE - 1
    assert await gateway.state(GOOD) == "Known"
    assert await gateway.state(token("quagga", new=1)) == "Unavailable"
    clock.now += 1
    assert await gateway.state(GOOD) == "Unavailable"
    async with operator.connected():
        assert await gateway.state(GOOD) == "Known"


async def test_an_operator_that_cannot_say_counts_as_none(gateway, operator, clock):
    async with operator.connected():
        await gateway.state(GOOD)
        operator.unable = True
        clock.now += FRESH
        assert await gateway.state(GOOD) == "Known"
        assert await gateway.state(GOOD) == "Known"
        assert len(operator.asked) == 2, "and is not asked with every request"
        assert await gateway.state(token("quagga", new=1)) == "Unavailable"
        clock.now += OUTAGE - FRESH
        assert await gateway.state(GOOD) == "Unavailable"
        operator.unable = False
        clock.now += REFUSED
        assert await gateway.state(GOOD) == "Known"


async def test_who_is_refused_is_asked_about_again_after_a_while(gateway, operator, clock):
    async with operator.connected():
        assert [await gateway.state("quokka") for _ in range(3)] == ["Unknown"] * 3
        assert len(operator.asked) == 1
        clock.now += REFUSED
        assert await gateway.state("quokka") == "Unknown"
        assert len(operator.asked) == 2


async def test_an_operator_that_never_answers_holds_up_a_request_for_a_moment(gateway, operator, monkeypatch):
    monkeypatch.setattr(vouching, "PATIENCE", 0.02)
    operator.silent = True
    async with operator.connected():
        assert await gateway.state(GOOD) == "Unavailable"
        assert await asyncio.gather(*(gateway.state(token("quagga", n=n)) for n in range(3 * OPEN))) == [
            "Unavailable"
        ] * (3 * OPEN)
        await operator.until(1 + 3 * OPEN)  # nothing stays open for ever


async def test_requests_hardly_wait_for_an_operator_that_did_not_answer_the_one_before(gateway, operator, monkeypatch):
    """One that is older, or gone without a word, holds up one request and not one every few seconds."""
    monkeypatch.setattr(vouching, "PATIENCE", 0.02)
    operator.silent = True
    async with operator.connected():
        assert await gateway.state(GOOD) == "Unavailable"
        monkeypatch.setattr(vouching, "PATIENCE", 20.0)
        monkeypatch.setattr(vouching, "SILENT", 0.02)
        async with asyncio.timeout(10):
            assert await gateway.state(token("quagga", n=1)) == "Unavailable"
            operator.answer(operator.asked[0])  # later than anybody has waited
            asking = asyncio.create_task(gateway.state(token("quagga", n=2)))
            await operator.until(3)
            await asyncio.sleep(0.1)
            operator.answer(operator.asked[2])
            assert await asking == "Known", "it speaks again, and is waited for"


async def test_a_request_with_little_time_waits_no_longer_than_that(gateway, operator):
    operator.silent = True
    async with operator.connected():
        begin = asyncio.get_running_loop().time()
        assert await gateway.state(GOOD, 0.01) == "Unavailable"
        assert asyncio.get_running_loop().time() - begin < vouching.PATIENCE / 2
        operator.answer(operator.asked[0])
        assert await gateway.state(GOOD, 0.01) == "Known", "the answer was not for it alone"


async def test_so_many_questions_are_under_way_and_the_others_wait(gateway, operator):
    operator.silent = True
    async with operator.connected():
        asking = [asyncio.create_task(gateway.state(token("quagga", n=n))) for n in range(OPEN + 10)]
        await operator.until(OPEN)
        await asyncio.sleep(0)
        assert len(operator.asked) == OPEN
        operator.silent = False
        for question in operator.asked[:]:
            operator.answer(question)
        assert await asyncio.gather(*asking) == ["Known"] * (OPEN + 10)


async def test_a_lost_connection_leaves_nobody_waiting(gateway, operator):
    operator.silent = True
    async with operator.connected():
        asking = asyncio.create_task(gateway.state(GOOD))
        await operator.until(1)
    assert await asking == "Unavailable"
    assert not gateway._asking


async def test_a_token_s_end_is_its_end_whatever_is_known(gateway, operator, wall):
    ends = token("quagga", exp=5010)
    async with operator.connected():
        assert await gateway.state(ends) == "Known"
        wall.now += 10
        assert await gateway.state(ends) == "Unknown"


@pytest.mark.parametrize("text", ["", "x" * (LONGEST + 1), "schlüssel"])
async def test_what_can_be_no_token_is_not_asked_about(gateway, operator, text):
    async with operator.connected():
        assert await gateway.state(text) == "Unknown"
        assert operator.asked == []


async def test_what_is_known_is_bounded_and_strangers_push_out_nobody(gateway, operator, monkeypatch):
    monkeypatch.setattr(vouching, "MOST", 20)
    async with operator.connected():
        await gateway.state(GOOD)
        for number in range(50):
            await gateway.state(token("quokka", n=number))
        assert await gateway.state(GOOD) == "Known"
        assert len(operator.asked) == 51
        for number in range(50):
            await gateway.state(token("quagga", n=number))
        assert len(gateway._good) == 20
        assert len(gateway._other) == 2


async def test_no_token_is_kept_when_it_is_answered(gateway, operator):
    async with operator.connected():
        await gateway.state(GOOD)
        await gateway.state("zebra")
    assert "zebra" not in repr(vars(gateway))
