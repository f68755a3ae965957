"""Both ends of the config stream, each the real one: the operator's server and the balancer's source."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.operator.rig import Rig, running, served, snapshot_of, token_file

from spillway_api import stream
from spillway_balancer.net.operator_source import OperatorSource, Where


class End:
    """A balancer's end: what it has in force and what it was told. A pool named `bad` cannot be served from."""

    def __init__(self, rig: Rig, folder) -> None:
        authority = folder / "ca.crt"
        authority.write_bytes(rig.made.authority)
        where = Where(f"https://localhost:{rig.server.port}", "chat", token_file(folder, "chat", "pod-1"), authority)
        self.taken: list = []
        self.kept: list = []
        self.connections: list[bool] = []
        self.source = OperatorSource(
            where,
            None,
            self._take,
            self.kept.append,
            self._heard,
            self.connections.append,
            self._report,
            random.Random(1),
        )
        self.heard: list[str] = []

    def _take(self, snapshot) -> bool:
        if any(pool.name == "default/bad" for pool in snapshot.pools):
            raise ValueError("no")
        self.taken.append(snapshot)
        return True

    def _heard(self, what: str) -> None:
        self.heard.append(what)

    def _report(self):
        yield
        return stream.Report((stream.PoolReport("default/a"),))


@pytest.fixture
async def one():
    async with served() as rig:
        yield rig


async def test_a_snapshot_s_life_between_the_two(one, tmp_path):
    end = End(one, tmp_path)
    first = one.publish(snapshot_of("chat", a=1, b=2))

    def in_force(digest):
        return lambda: one.subscriber("pod-1") and one.subscriber("pod-1").digest == digest

    async with running(end.source.follow()):
        await one.until(in_force(first))
        await one.until(lambda: one.subscriber("pod-1").report)
        second = one.publish(snapshot_of("chat", a=2, b=2))
        await one.until(in_force(second))
        assert end.taken[1].pools[1] is end.taken[0].pools[1]  # it came as a difference
        bad = one.publish(snapshot_of("chat", a=2, b=2, bad=1))
        await one.until(lambda: one.subscriber("pod-1").refused)
        assert one.subscriber("pod-1").refused[0] == bad
        assert one.subscriber("pod-1").digest == second
        third = one.publish(snapshot_of("chat", a=3, b=2))
        await one.until(in_force(third))
        assert one.subscriber("pod-1").refused is None
        assert one.publish(snapshot_of("chat", a=2, b=2)) == second
        await one.until(in_force(second))
    await one.until(lambda: not one.server.subscribers("chat"))
    assert end.heard == ["taken", "taken", "refused", "taken", "taken"]
    assert [saved.digest for saved in end.kept] == [first, second, third, second]


async def test_a_balancer_that_was_let_go_comes_back_and_is_sent_only_what_it_lacks(one, tmp_path):
    end = End(one, tmp_path)
    first = one.publish(snapshot_of("chat", a=1))
    async with running(end.source.follow()):
        await one.until(lambda: one.subscriber("pod-1") and one.subscriber("pod-1").digest == first)
        one.server.withdraw("chat")
        one.publish(snapshot_of("chat", a=1))
        await one.until(lambda: one.subscriber("pod-1"))
        assert one.subscriber("pod-1").digest == first
        assert one.server.messages_sent == 1
        second = one.publish(snapshot_of("chat", a=2))
        await one.until(lambda: one.subscriber("pod-1").digest == second)
    assert one.server.messages_sent == 2
    assert end.connections == [True, False, True, False]


async def test_a_change_is_in_force_within_a_second(one, tmp_path):
    end = End(one, tmp_path)
    one.publish(snapshot_of("chat", **{f"p{index:03}": 25 for index in range(200)}))
    async with running(end.source.follow()):
        await one.until(lambda: one.subscriber("pod-1") and one.subscriber("pod-1").digest)
        loop = asyncio.get_running_loop()
        sizes = {f"p{index:03}": 25 for index in range(200)} | {"p100": 26}
        changed = snapshot_of("chat", **sizes)
        begin = loop.time()
        last = one.publish(changed)
        await one.until(lambda: one.subscriber("pod-1").digest == last)
        assert loop.time() - begin < 1.0  # of 5,000 endpoints one is new
