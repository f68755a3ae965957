"""The work queue: one run for many wakes, never two at a time, no wake lost, failures with a growing pause."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.clock import run

from spillway_operator.cluster import ApiError
from spillway_operator.queue import FIRST_RETRY, LONGEST_RETRY, WorkQueue, retry_after

REST = 0.1


class Bench:
    """A queue and what it has done: when each run of a key began and ended."""

    def __init__(self, takes=0.0, rest=REST):
        self.takes = takes
        self.runs = []
        self.results = []
        self.at_a_time = {}
        self.wakes_itself = False
        self.queue = WorkQueue(self.work, lambda _key: rest, random.Random(7))

    async def work(self, key):
        loop = asyncio.get_running_loop()
        self.at_a_time[key] = self.at_a_time.get(key, 0) + 1
        assert self.at_a_time[key] == 1, "two runs of one key at a time"
        began = loop.time()
        try:
            await asyncio.sleep(self.takes)
            if self.wakes_itself and self.results:
                self.queue.wake(key)
            result = self.results.pop(0) if self.results else None
            if isinstance(result, Exception):
                raise result
            return result
        finally:
            self.at_a_time[key] -= 1
            self.runs.append((key, began, loop.time()))

    def began(self, key="k"):
        return [round(began, 6) for each, began, _ in self.runs if each == key]


def test_many_wakes_are_one_run():
    async def main():
        bench = Bench()
        for _ in range(100):
            bench.queue.wake("k")
        await asyncio.sleep(10)
        assert bench.began() == [0.1]

    run(main())


def test_a_wake_waits_for_others_but_not_for_ever():
    """A steady stream of wakes does not push the run before it."""

    async def main():
        bench = Bench()
        for _ in range(10):
            bench.queue.wake("k")
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert bench.began()[0] == 0.1
        assert 4 <= len(bench.runs) <= 6

    run(main())


def test_a_wake_during_the_work_means_again():
    async def main():
        bench = Bench(takes=1.0)
        bench.queue.wake("k")
        await asyncio.sleep(0.5)
        for _ in range(5):
            bench.queue.wake("k")
        await asyncio.sleep(10)
        assert bench.began() == [0.1, 1.2]

    run(main())


def test_keys_do_not_wait_for_each_other():
    async def main():
        bench = Bench(takes=1.0)
        for key in "abc":
            bench.queue.wake(key)
        await asyncio.sleep(0.5)
        assert bench.queue.began == dict.fromkeys("abc", 0.1)
        await asyncio.sleep(2)
        assert [bench.began(key) for key in "abc"] == [[0.1]] * 3
        assert bench.queue.began == {}

    run(main())


def test_work_may_ask_to_be_done_again_later():
    async def main():
        bench = Bench()
        bench.results = [5.0, None]
        bench.queue.wake("k")
        await asyncio.sleep(60)
        assert bench.began() == [0.1, 5.1]

    run(main())


def test_a_wake_comes_before_what_was_asked_for_later():
    async def main():
        bench = Bench()
        bench.results = [5.0, None]
        bench.queue.wake("k")
        await asyncio.sleep(1)
        bench.queue.wake("k")
        await asyncio.sleep(60)
        assert bench.began() == [0.1, 1.1]

    run(main())


def test_failures_are_tried_again_with_a_growing_pause(caplog):
    async def main():
        bench = Bench()
        bench.results = [ValueError(f"secret-{number}") for number in range(12)]
        bench.queue.wake("k")
        await asyncio.sleep(1000)
        began = bench.began()
        assert len(began) == 13
        pauses = [later - before for before, later in itertools.pairwise(began)]
        for failures, pause in enumerate(pauses, 1):
            most = min(LONGEST_RETRY, FIRST_RETRY * 2**failures)
            assert most / 2 <= pause <= most + 1e-6

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "k failed (ValueError), again in" in caplog.text
    assert "secret" not in caplog.text


def test_what_the_api_server_said_is_told(caplog):
    async def main():
        bench = Bench()
        bench.results = [ApiError(403, "Forbidden", "no right to patch")]
        bench.queue.wake("k")
        await asyncio.sleep(10)
        assert len(bench.runs) == 2

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "403 Forbidden: no right to patch" in caplog.text


def test_success_forgets_failures():
    async def main():
        bench = Bench()
        bench.results = [*[ValueError()] * 6, None, ValueError(), None]
        bench.queue.wake("k")
        await asyncio.sleep(100)
        before = len(bench.runs)
        assert before == 7
        bench.queue.wake("k")
        await asyncio.sleep(1)
        assert len(bench.runs) == 9

    run(main())


def test_wakes_during_a_failing_run_do_not_shorten_its_pause():
    async def main():
        bench = Bench(takes=1.0)
        bench.results = [ValueError()] * 7
        bench.wakes_itself = True
        bench.queue.wake("k")
        await asyncio.sleep(100)
        pauses = [later[1] - before[2] for before, later in itertools.pairwise(bench.runs)][:7]
        for failures, pause in enumerate(pauses, 1):
            assert pause >= min(LONGEST_RETRY, FIRST_RETRY * 2**failures) / 2 - 1e-6

    run(main())


def test_after_the_end_nothing_runs():
    async def main():
        bench = Bench(takes=5.0)
        bench.queue.wake("runs")
        await asyncio.sleep(1)
        bench.queue.wake("waits")
        bench.queue.wake("runs")
        await bench.queue.close()
        assert bench.queue.began == {}
        bench.queue.wake("late")
        await asyncio.sleep(100)
        assert [key for key, _, _ in bench.runs] == ["runs"]

    run(main())


@pytest.mark.parametrize("failures", [1, 3, 17, 5000])
def test_pauses_are_jittered_and_bounded(failures):
    pauses = {retry_after(failures, random.Random(seed)) for seed in range(50)}
    assert len(pauses) > 10
    most = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 16))
    assert most / 2 <= min(pauses)
    assert max(pauses) <= most


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 0.7)), max_size=30),
    st.floats(0, 1),
    st.lists(st.sampled_from([None, 0.3, ValueError()]), max_size=10),
)
def test_no_wake_is_lost(wakes, takes, results):
    """After every wake a run begins that can see what it was about, and once nobody wakes it is quiet."""

    async def main():
        bench = Bench(takes=takes)
        bench.results = list(results)
        woken = []
        loop = asyncio.get_running_loop()
        for key, pause in wakes:
            bench.queue.wake(key)
            woken.append((key, loop.time()))
            await asyncio.sleep(pause)
        await asyncio.sleep(1000)
        for key, at in woken:
            assert any(each == key and began >= at for each, began, _ in bench.runs)
        before = len(bench.runs)
        await asyncio.sleep(1000)
        assert len(bench.runs) == before
        assert len(bench.runs) <= len(wakes) + len(results)

    run(main())
