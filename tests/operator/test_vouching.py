"""What gateways are told of the tokens that they have been shown, and how much they may ask."""

from __future__ import annotations

import asyncio

import pytest
from tests.operator.rig import PATIENCE, Balancer, Rig, Tokens, snapshot_of, token_of
from tests.operator.test_sidecar_streams import eventually

from spillway_api import stream
from spillway_api.stream import AT_GATEWAY, Vouched, Whose
from spillway_operator import vouching
from spillway_operator.vouching import AT_ONCE, BURST, OPEN, PER_SECOND, Vouching


class Asked(Tokens):
    """Notes the audience, and how many are looked at together."""

    def __init__(self) -> None:
        super().__init__()
        self.audiences: set[str] = set()
        self.now = self.most = 0

    async def review_token(self, token, audience):
        self.audiences.add(audience)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().review_token(token, audience)
        finally:
            self.now -= 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens() -> Asked:
    return Asked()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def voucher(tokens, clock) -> Vouching:
    return Vouching(tokens, clock=clock)


class Gateway:
    """Asks, and gathers what it is told."""

    def __init__(self, voucher: Vouching, name: str = "chat-1") -> None:
        self.voucher = voucher
        self.name = name
        self.told: list[Vouched] = []
        self.more = asyncio.Event()

    def ask(self, number: int, token: str) -> None:
        self.voucher.hear("chat", self.name, Whose(number, token), self._hear)

    def _hear(self, said: Vouched) -> None:
        self.told.append(said)
        self.more.set()

    async def until(self, count: int) -> list[Vouched]:
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.more.clear()
                await self.more.wait()
        return self.told


async def test_a_pod_s_token_for_gateways_is_known_and_of_whom(voucher, tokens):
    gateway = Gateway(voucher)
    gateway.ask(7, token_of("app", "shop-1"))
    assert await gateway.until(1) == [Vouched(7, "Known", "infra", "shop-1")]
    assert tokens.audiences == {AT_GATEWAY}


@pytest.mark.parametrize("token", ["", "nobody.s.token", token_of("app", "")])
async def test_another_one_is_not_and_neither_is_one_that_is_bound_to_no_pod(voucher, token):
    gateway = Gateway(voucher)
    gateway.ask(8, token)
    assert await gateway.until(1) == [Vouched(8, "Unknown")]


async def test_where_the_api_server_is_away_nobody_can_say(voucher, tokens):
    tokens.away = True
    gateway = Gateway(voucher)
    gateway.ask(9, token_of("app", "shop-1"))
    assert await gateway.until(1) == [Vouched(9, "Unavailable")]


async def test_so_many_are_looked_at_together_and_one_balancer_has_so_many_questions(voucher, tokens):
    tokens.waits = asyncio.Event()
    one, other = Gateway(voucher), Gateway(voucher, "chat-2")
    for number in range(OPEN + 1):
        one.ask(number, token_of("app", f"shop-{number}"))
    assert one.told == [Vouched(OPEN, "Unavailable")]
    other.ask(1, token_of("app", "another"))
    for _ in range(10):
        await asyncio.sleep(0)
    tokens.waits.set()
    assert {each.state for each in (await one.until(OPEN + 1))[1:]} == {"Known"}
    assert (await other.until(1))[0].state == "Known"
    assert tokens.most == AT_ONCE


async def test_reviews_are_bounded_in_time_and_who_is_known_stays_known(voucher, tokens, clock, monkeypatch):
    monkeypatch.setattr(vouching, "BURST", 3.0)
    voucher = Vouching(tokens, clock=clock)
    gateway = Gateway(voucher)
    for number in range(5):
        gateway.ask(number, token_of("app", f"shop-{number}"))
        await gateway.until(number + 1)
    assert [each.state for each in gateway.told] == ["Known"] * 3 + ["Unavailable"] * 2
    assert tokens.reviews == 3
    gateway.ask(5, token_of("app", "shop-0"))
    assert (await gateway.until(6))[-1].state == "Known"
    clock.now += 1.5 / PER_SECOND
    gateway.ask(6, token_of("app", "shop-3"))
    assert (await gateway.until(7))[-1].state == "Known"
    gateway.ask(7, token_of("app", "shop-4"))
    assert (await gateway.until(8))[-1].state == "Unavailable"
    assert BURST >= 2_000, "as many sidecars may come at once"


async def test_on_the_stream_a_gateway_is_answered_and_a_sidecar_is_not(rig):
    one: Rig = await rig()
    one.server.follow_questions(Vouching(one.tokens).hear)
    one.publish(snapshot_of("chat", a=1))
    gateway, beside = await one.subscribe("pod-1"), await one.beside("shop-2")
    await gateway.take()
    await gateway.say(Whose(5, token_of("app", "shop-1")))
    assert await heard(gateway) == Vouched(5, "Known", "infra", "shop-1")
    await beside.take()
    await eventually(lambda: one.server.sidecars("chat") == {"Current": 1})
    reviews = one.tokens.reviews
    await beside.say(Whose(6, token_of("app", "shop-9")))
    await beside.say(stream.Ack("another"))
    await eventually(lambda: one.server.sidecars("chat") == {"Behind": 1})
    await gateway.say(Whose(7, token_of("app", "shop-1")))
    assert (await heard(gateway)).number == 7
    assert one.tokens.reviews == reviews, "nobody has looked at what it asked"


async def test_an_installation_without_sidecars_says_that_nobody_can(rig):
    one: Rig = await rig()
    one.publish(snapshot_of("chat", a=1))
    gateway = await one.subscribe("pod-1")
    await gateway.take()
    await gateway.say(Whose(5, token_of("app", "shop-1")))
    assert await heard(gateway) == Vouched(5, "Unavailable")


async def heard(one: Balancer) -> stream.FromOperator:
    return stream.from_operator(await one.socket.receive_str(timeout=PATIENCE))
