"""Laws that hold for every peer's policy; they run over the table, so a new entry is tested by being there."""

from __future__ import annotations

import pytest
from tests.simulate.conftest import (  # by its full name, as pytest has imported it
    Pool,
    ask,
    play,
    traffic,
)

from spillway_balancer.simulate.peers import PEERS, View

EACH = pytest.mark.parametrize("name", sorted(PEERS))


@EACH
def test_only_living_endpoints_are_chosen_through_failures_and_joins(name: str) -> None:
    pool = Pool(name)
    requests = traffic(240)
    gone: list[View] = []
    for part in range(4):
        for request in requests[part * 60 : part * 60 + 60]:
            pool.now += 0.2
            view = pool.send(request)
            assert any(view is one for one in pool.alive)
            assert view not in gone
        if part != 1:
            pool.answer()
        if part < 3:
            gone.append(pool.alive[part % len(pool.alive)])
            pool.remove(gone[-1])
        if part == 1:
            pool.add()


@EACH
def test_one_endpoint_that_is_left_takes_everything(name: str) -> None:
    pool = Pool(name, size=2)
    play(pool, traffic(20))
    pool.remove(pool.views[0])
    assert set(play(pool, traffic(20, seed=6))) == {1}


@EACH
def test_a_new_endpoint_is_used_in_the_end(name: str) -> None:
    pool = Pool(name, size=2)
    play(pool, traffic(20))
    new = pool.add()
    fresh = [
        ask(
            1000 + number, [90_000 + number * 50 + place for place in range(1, 5)], session=1000 + number, system=number
        )
        for number in range(300)
    ]
    assert new.index in play(pool, fresh)


@EACH
def test_the_same_dice_choose_the_same(name: str) -> None:
    assert play(Pool(name, seed=3), traffic(150)) == play(Pool(name, seed=3), traffic(150))


@EACH
def test_a_prompt_shorter_than_a_block_is_dispatched(name: str) -> None:
    pool = Pool(name)
    for number in range(20):
        pool.send(ask(number, (), tail=1))
    pool.answer()


@EACH
def test_every_peer_says_where_it_comes_from(name: str) -> None:
    peer = PEERS[name]
    assert peer.name == name
    assert len(peer.source) > 20
    assert peer.parameters
    assert peer.__doc__ or peer.parameters == "none"


def test_all_of_the_design_are_there() -> None:
    assert len(PEERS) == 20
