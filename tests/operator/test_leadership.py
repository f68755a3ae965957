"""Who writes: never two at a time, whatever clocks, networks and the API server do; and soon another when one ends."""

from __future__ import annotations

import asyncio
import copy
import heapq
import selectors
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_operator.cluster import ApiError, Conflict
from spillway_operator.leadership import (
    ADDRESS,
    LEADS,
    LEASE,
    RENEW,
    Hold,
    Leadership,
    Observed,
    Record,
    Take,
    Wait,
    claimed,
    decide,
    observe,
    record_of,
    released,
)

WALL = datetime(2026, 1, 1, tzinfo=UTC)


def record(holder="b", duration=LEASE, renewed="r1", transitions=0) -> Record:
    return Record(holder, "10.0.0.1:9443", duration, renewed, transitions, "7")


SEEN = Observed(("b", "r1", 0), 100.0)


@pytest.mark.parametrize(
    ("lease", "now", "observed", "decision"),
    [
        (None, 100, None, Take()),
        (record(holder=""), 100, None, Take()),
        (record(holder="a"), 100, None, Hold()),
        (record(holder="a"), 1e9, Observed(("a", "r1", 0), 0), Hold()),
        (record(), 100, None, Wait(LEASE)),  # first sight: its clock begins now, whatever renewTime says
        (record(), 100 + LEASE - 1, SEEN, Wait(1)),
        (record(), 100 + LEASE, SEEN, Take()),
        (record(renewed="r2"), 100 + LEASE, SEEN, Wait(LEASE)),
        (record(transitions=1), 100 + LEASE, SEEN, Wait(LEASE)),
        (record(holder="c"), 100 + LEASE, SEEN, Wait(LEASE)),
        (record(duration=40), 100 + LEASE, SEEN, Wait(25)),
    ],
)
def test_what_to_do_about_a_lease(lease, now, observed, decision):
    assert decide(lease, "a", now, observed) == decision


@pytest.mark.parametrize(
    ("claim", "duration"), [(15, 15), (1, LEASE), (-5, LEASE), (None, LEASE), (40, 40), (9e9, LEASE), (10**9, 60)]
)
def test_a_lease_cannot_claim_nonsense(claim, duration):
    lease = {"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": claim}}
    assert record_of(lease).duration == duration


def test_a_claim_keeps_what_others_wrote_and_counts_transitions():
    lease = claimed(None, "a", "10.0.0.1:9443", "op", WALL)
    assert lease["metadata"]["annotations"] == {ADDRESS: "10.0.0.1:9443"}
    assert lease["spec"]["leaseTransitions"] == 0
    lease["metadata"] |= {"labels": {"x": "y"}, "resourceVersion": "7", "managedFields": []}
    lease["metadata"]["annotations"]["other"] = "stays"
    renewed = claimed(lease, "a", "10.0.0.1:9443", "op", WALL)
    assert renewed["spec"]["leaseTransitions"] == 0
    taken = claimed(renewed, "b", "10.0.0.2:9443", "op", WALL)
    assert taken["spec"]["leaseTransitions"] == 1
    assert taken["metadata"]["annotations"] == {"other": "stays", ADDRESS: "10.0.0.2:9443"}
    assert taken["metadata"]["labels"] == {"x": "y"}
    assert taken["metadata"]["resourceVersion"] == "7"
    assert "managedFields" not in taken["metadata"]
    free = released(taken, "op", WALL)
    assert record_of(free).holder == ""
    assert free["metadata"]["annotations"] == {"other": "stays"}
    assert decide(record_of(free), "c", 0.0, None) == Take()


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=30))
def test_a_lease_is_left_alone_for_its_time_after_each_sign_of_life(sights):
    now, renewals, last, observed = 0.0, 0, 0.0, None
    for pause, alive in sights:
        now += pause
        if alive or observed is None:
            renewals, last = renewals + 1, now
        lease = record(renewed=f"r{renewals}")
        decision = decide(lease, "a", now, observed)
        observed = observe(observed, lease, now)
        assert (decision == Take()) == (now - last >= LEASE)


# ---- several replicas, on a loop whose time jumps


class Jumping(asyncio.SelectorEventLoop):
    """A loop on which nobody waits: when there is nothing to do, the time is that of the next timer."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 0.0
        self._selector.select, self._real_select = self._jump, self._selector.select  # type: ignore[method-assign]

    def _jump(self, timeout: float | None = None) -> list:
        if timeout:
            self._now += timeout
        return self._real_select(0)

    def time(self) -> float:
        return self._now


class Api:
    """One Lease with versions; each call takes a while on the way there and on the way back, or fails."""

    def __init__(self, weather) -> None:
        self.lease: dict | None = None
        self.version = 0
        self.weather = weather  # (caller) -> (seconds there, seconds back, lost: "", "there" or "back")

    def of(self, caller: str) -> Way:
        return Way(self, caller)

    def write(self, body: dict) -> dict:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


class Way:
    """A replica's way to it."""

    def __init__(self, api: Api, caller: str) -> None:
        self.api, self.caller = api, caller

    async def _travel(self, do):
        there, back, lost = self.api.weather(self.caller)
        await asyncio.sleep(there)
        if lost == "there":
            raise ApiError(0, "Unreachable", "refused")
        answer = do()
        await asyncio.sleep(back)
        if lost == "back":
            raise ApiError(0, "Timeout", "no answer")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get(self, api, plural, namespace, name):
        return await self._travel(lambda: copy.deepcopy(self.api.lease))

    async def create(self, api, plural, namespace, body):
        taken = Conflict(409, "AlreadyExists", "there")
        return await self._travel(lambda: taken if self.api.lease else self.api.write(body))

    async def replace(self, api, plural, namespace, body):
        def put():
            if self.api.lease is None or body["metadata"].get("resourceVersion") != str(self.api.version):
                return Conflict(409, "Conflict", "changed")
            return self.api.write(body)

        return await self._travel(put)


class World:
    """Replicas `a`, `b`, …, each with a clock of its own that began at another time."""

    def __init__(self, api: Api, count: int, pace=1.0) -> None:
        loop = asyncio.get_running_loop()
        self.api = api
        self.history: list[tuple[float, str, bool]] = []
        self.replicas = {}
        for index in range(count):
            name = "abc"[index]

            def clock(index=index):
                return 1e6 * (index + 1) + loop.time() * (pace if index else 1.0)

            self.replicas[name] = Leadership(
                api.of(name), "ns", "op", name, f"{name}:9443", lambda name=name: self._note(name), clock=clock
            )
        self.tasks = {name: loop.create_task(one.run()) for name, one in self.replicas.items()}

    def _note(self, name: str) -> None:
        self.history.append((asyncio.get_running_loop().time(), name, self.replicas[name].leads))

    def leaders(self) -> list[str]:
        return [name for name, one in self.replicas.items() if one.leads]

    async def pass_time(self, seconds: float, step=0.25) -> None:
        """Lets time pass and looks at every moment that there is one leader at the most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(step)
            assert len(self.leaders()) <= 1, self.history

    async def end(self, *names: str) -> None:
        for name in names or list(self.tasks):
            task = self.tasks.pop(name)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


def simulate(story, *, weather=lambda caller: (0.01, 0.01, ""), count=2, pace=1.0) -> None:
    async def play() -> None:
        world = World(Api(weather), count, pace)
        try:
            await story(world)
        finally:
            await world.end()
        assert world.leaders() == []

    loop = Jumping()
    try:
        loop.run_until_complete(play())
    finally:
        loop.close()


def test_who_creates_the_lease_says_whose_it_is():
    """And who takes it over leaves that as it is: the Lease goes with the operator's Deployment."""

    async def story(world):
        owner = {"kind": "Deployment", "name": "op", "uid": "1"}

        async def owners():
            return [owner]

        for one in world.replicas.values():
            one._owners = owners
        await world.pass_time(60)
        assert world.api.lease["metadata"]["ownerReferences"] == [owner]
        await world.end(*world.leaders())
        await world.pass_time(60)
        assert len(world.leaders()) == 1
        assert world.api.lease["metadata"]["ownerReferences"] == [owner]

    simulate(story)


def test_one_leads_and_the_others_know_where():
    async def story(world):
        await world.pass_time(60)
        (name,) = world.leaders()
        assert {one.leader_address for one in world.replicas.values()} == {f"{name}:9443"}
        assert {one.leader for one in world.replicas.values()} == {name}
        assert world.api.version < 60 / RENEW + 3
        assert sum(led for _, _, led in world.history) == 1

    simulate(story, count=3)


def test_a_leader_that_ends_in_order_is_followed_at_once():
    async def story(world):
        await world.pass_time(12)
        (first,) = world.leaders()
        await world.end(first)
        assert not world.replicas[first].leads
        await world.pass_time(2.5)
        assert world.leaders() == [name for name in world.replicas if name != first]

    simulate(story)


def test_a_leader_that_is_cut_off_says_so_before_another_takes_over():
    cut = set()

    async def story(world):
        await world.pass_time(12)
        (first,) = world.leaders()
        cut.add(first)
        start = asyncio.get_running_loop().time()
        await world.pass_time(30)
        (second,) = world.leaders()
        assert second != first
        assert world.replicas[first].leader_address is None  # nobody tells itself
        lost = next(at for at, name, leads in world.history if name == first and not leads and at > start)
        won = next(at for at, name, leads in world.history if name == second and leads)
        assert start <= lost <= start + LEADS + 0.1
        assert lost + 3 < won < start + LEASE + 5
        cut.clear()
        await world.pass_time(20)
        assert world.leaders() == [second]  # and who comes back waits in line

    simulate(story, weather=lambda caller: (3600.0, 0, "") if caller in cut else (0.01, 0.01, ""))


@pytest.mark.parametrize("failure", [(0.0, 0, "there"), (3600.0, 0, ""), (0.01, 0, "back")])
def test_an_api_server_that_is_away_ends_nobody_and_changes_no_more_than_it_must(failure):
    away = []

    async def story(world):
        await world.pass_time(12)
        away.append(True)
        await world.pass_time(300)
        if failure[2] != "back":
            assert world.leaders() == []
        away.clear()
        await world.pass_time(20)
        assert len(world.leaders()) == 1
        assert not any(task.done() for task in world.tasks.values())

    simulate(story, weather=lambda caller: failure if away else (0.01, 0.01, ""))


def test_an_answer_that_was_lost_does_not_cost_the_leadership():
    calls = []

    def weather(caller):
        calls.append(caller)
        return 0.01, 0.01, "back" if len(calls) % 3 == 0 else ""

    async def story(world):
        await world.pass_time(120)
        assert sum(led for _, _, led in world.history) == 1

    simulate(story, weather=weather, count=1)


def test_a_restarted_container_goes_on_where_it_was():
    async def story(world):
        await world.pass_time(12)
        task = world.tasks["a"]
        world.replicas["a"]._release = lambda: asyncio.sleep(0)  # killed: nothing is given back
        task.cancel()
        await asyncio.wait([task])
        again = Leadership(
            world.api.of("a"), "ns", "op", "a", "a:1", lambda: None, clock=asyncio.get_running_loop().time
        )
        world.replicas["a"], world.tasks["a"] = again, asyncio.get_running_loop().create_task(again.run())
        await asyncio.sleep(1)
        assert again.leads
        assert again.leader_address == "a:1"

    simulate(story, count=1)


SECONDS = st.sampled_from([0.0, 0.01, 0.5, 1.4, 2.9, 3.1, 4.0, 9.0, 14.0, 30.0])
CALLS = st.tuples(SECONDS, SECONDS, st.sampled_from(["", "", "", "", "there", "back"]))
CUTS = st.tuples(st.floats(0, 100), st.sampled_from([5.0, 16.0, 30.0]), st.sampled_from("abc"))


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(CALLS, max_size=40),
    cuts=st.lists(CUTS, max_size=6),
    pace=st.sampled_from([0.98, 1.0, 1.02]),
    count=st.integers(2, 3),
    ends=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_two_never_lead_at_a_time(calls, cuts, pace, count, ends):
    """Calls slow and lost, answers lost, replicas cut off for a while, clocks that go astray, and replicas that end."""
    at = iter(calls)

    def weather(caller):
        now = asyncio.get_running_loop().time()
        if any(begin <= now < begin + length and who == caller for begin, length, who in cuts):
            return 3600.0, 0, ""
        return next(at, (0.01, 0.01, ""))

    async def story(world):
        for end in ends:
            await world.pass_time(25)
            if end and len(world.tasks) > 1:
                await world.end(min(world.tasks))
        await world.pass_time(400)
        assert len(world.leaders()) == 1

    simulate(story, weather=weather, count=count, pace=pace)


def test_the_loop_of_these_tests_orders_timers():
    async def play():
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for delay in (3, 1, 2):
            loop.call_later(delay, heapq.heappush, order, delay)
        await asyncio.sleep(2.5)
        assert order == [1, 2]
        assert loop.time() == 2.5

    loop = Jumping()
    loop.run_until_complete(play())
    loop.close()
