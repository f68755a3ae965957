"""Whose token it is: reviewed rarely, once for all who ask at a time, and known through an outage."""

from __future__ import annotations

import asyncio

import pytest
from tests.operator.rig import Tokens, token_of

from spillway_api.tokens import LONGEST
from spillway_operator import identity
from spillway_operator.identity import FRESH, OUTAGE, REFUSED, Caller, Identity, Unavailable, Unknown, caller_of

CALLER = Caller("infra", "chat", "pod-1", "uid-chat")
TOKEN = token_of("chat", "pod-1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def who(tokens, clock) -> Identity:
    return Identity(tokens, "spillway-operator", clock=clock, wall=clock)


async def test_a_good_answer_is_kept_for_a_minute(who, tokens, clock):
    assert await who(TOKEN) == CALLER
    clock.now += FRESH - 1
    assert await who(TOKEN) == CALLER
    assert tokens.reviews == 1
    clock.now += 1
    assert await who(TOKEN) == CALLER
    assert tokens.reviews == 2


async def test_a_bad_answer_is_kept_for_seconds(who, tokens, clock):
    for reviews, pause in ((1, REFUSED - 1), (1, 1), (2, 0)):
        with pytest.raises(Unknown):
            await who("quokka")
        assert tokens.reviews == reviews
        clock.now += pause


async def test_no_answer_outlives_its_token(who, tokens, clock):
    token = token_of("chat", "pod-1", ends=clock.now + 20)
    assert await who(token) == CALLER
    clock.now += 20
    with pytest.raises(Unknown):
        await who(token)
    tokens.away = True
    with pytest.raises(Unknown):
        await who(token)


async def test_many_who_ask_at_once_cost_one_review(who, tokens):
    tokens.waits = asyncio.Event()
    asking = [asyncio.create_task(who(TOKEN)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # one that goes away takes the answer from nobody
    await asyncio.sleep(0)
    tokens.waits.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert answers[1:] == [CALLER] * 49
    assert tokens.reviews == 1


async def test_an_outage_does_not_cut_off_who_is_known(who, tokens, clock):
    await who(TOKEN)
    tokens.away = True
    clock.now += OUTAGE - 1
    assert await who(TOKEN) == CALLER
    with pytest.raises(Unavailable):
        await who(token_of("chat", "pod-2"))
    clock.now += 1
    with pytest.raises(Unavailable):
        await who(TOKEN)
    tokens.away = False
    assert await who(TOKEN) == CALLER


async def test_an_api_server_that_says_nothing_holds_up_strangers_alone(who, tokens, clock, monkeypatch):
    monkeypatch.setattr(identity, "PATIENCE", 0.01)
    await who(TOKEN)
    clock.now += FRESH
    tokens.waits = asyncio.Event()
    assert await who(TOKEN) == CALLER
    stranger = asyncio.create_task(who(token_of("chat", "pod-2")))
    await asyncio.sleep(0.03)
    assert not stranger.done()
    tokens.waits.set()
    assert (await stranger).pod == "pod-2"


async def test_who_was_refused_is_not_let_in_by_an_outage(who, tokens, clock):
    with pytest.raises(Unknown):
        await who("quokka")
    tokens.away = True
    clock.now += REFUSED
    with pytest.raises(Unavailable):
        await who("quokka")


@pytest.mark.parametrize("token", ["", "x" * (LONGEST + 1), "schlüssel"])
async def test_what_can_be_no_token_is_not_asked_about(who, tokens, token):
    with pytest.raises(Unknown):
        await who(token)
    assert tokens.reviews == 0


async def test_what_is_known_is_bounded(who, clock, monkeypatch):
    monkeypatch.setattr(identity, "MOST", 10)
    for index in range(40):
        await who(token_of("chat", f"pod-{index}"))
        assert len(who._known) <= 10
    clock.now += OUTAGE
    await who(TOKEN)
    assert len(who._known) == 1


async def test_no_token_is_kept_or_told(who, tokens):
    await who(TOKEN)
    tokens.away = True
    with pytest.raises(Unavailable) as caught:
        await who("quagga.unheard.zebra")
    for held in (vars(who), caught.value, caught.value.__context__):
        assert "zebra" not in repr(held)
        assert "zebra" not in str(held)


STATUS = {
    "authenticated": True,
    "audiences": ["a"],
    "user": {
        "username": "system:serviceaccount:ns:sa",
        "uid": "u",
        "extra": {"authentication.kubernetes.io/pod-name": ["p"]},
    },
}


@pytest.mark.parametrize(
    ("change", "caller"),
    [
        ({}, Caller("ns", "sa", "p", "u")),
        ({"user": {"username": "system:serviceaccount:ns:sa"}}, Caller("ns", "sa", "", "")),
        ({"authenticated": False}, None),
        ({"authenticated": "true"}, None),
        ({"audiences": ["b"]}, None),
        ({"audiences": None}, None),  # the API server knows no audiences: the token could be for anybody
        ({"user": {"username": "system:node:n"}}, None),
        ({"user": {"username": "ns:sa"}}, None),
        ({"user": {"username": "system:serviceaccount:ns"}}, None),
        ({"user": None}, None),
    ],
)
def test_whom_a_review_tells_of(change, caller):
    assert caller_of(STATUS | change, "a") == caller
