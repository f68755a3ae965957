"""A race by itself: what is set aside for an attempt is given back even if its task never had a turn."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest

from spillway_balancer.core.reasons import Failure
from spillway_balancer.net.hedging import Race


class Client:
    def attach(self, exchange: Any) -> None:
        return None


class Stub(NamedTuple):
    """As much of a job as a race looks at."""

    client: Any
    gate: Any = None
    visit: Any = None


class Ended(NamedTuple):
    failure: Failure | None = None


class Scene:
    def __init__(self) -> None:
        self.gates: dict[str, Any] = {}
        self.ends: dict[str, asyncio.Future[Any]] = {}
        self.both = asyncio.Event()
        self.unsent: list[str] = []
        self.places: list[str] = []
        self.through: list[tuple[str, bool]] = []

    async def send(self, step: Any, job: Any) -> Any:
        self.gates[step] = job.gate
        self.ends[step] = asyncio.get_running_loop().create_future()
        if len(self.gates) == 2:
            self.both.set()
        return await self.ends[step]

    def race(self, second: Any) -> Any:
        told = lambda step, two: self.through.append((step, two))  # noqa: E731 - a list's method in all but name
        return Race(Stub(Client()), self.send, second, told, self.occupy, self.left)  # type: ignore[arg-type]

    def occupy(self, step: Any) -> Any:
        self.places.append(step)
        return step

    def left(self, step: Any, visit: Any) -> None:
        assert step == visit, "its own place is given back"
        self.unsent.append(step)

    def wins(self, step: str) -> None:
        assert self.gates[step].claim(object())
        self.ends[step].set_result(Ended())


async def test_one_that_is_outrun_before_its_first_turn_was_never_sent() -> None:
    scene = Scene()

    def second() -> str:
        asyncio.get_running_loop().call_soon(scene.wins, "first")  # before the task that is made next
        return "second"

    outcome = await scene.race(second).run("first", 0.01)
    assert (outcome.won, outcome.lost, outcome.hedged) == ("first", None, True)
    assert scene.unsent == ["second"]
    assert list(scene.gates) == ["first"]


async def test_a_client_that_leaves_before_the_first_turn_leaves_nothing_behind() -> None:
    scene = Scene()
    running = asyncio.get_running_loop().create_task(scene.race(lambda: None).run("first", 1.0))
    asyncio.get_running_loop().call_soon(running.cancel)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.unsent == ["first"] or list(scene.gates) == ["first"]
    assert not (scene.unsent and scene.gates)


async def test_an_endpoint_is_occupied_before_anybody_else_may_choose() -> None:
    scene = Scene()
    running = asyncio.get_running_loop().create_task(scene.race(lambda: None).run("first", 1.0))
    seen: list[Any] = []
    asyncio.get_running_loop().call_soon(lambda: seen.extend((*scene.places, *scene.gates)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == ["first"], "the place, and the task has not had its turn yet"
    scene.wins("first")
    assert (await running).won == "first"


async def test_only_one_of_two_is_let_through_and_the_other_never_is() -> None:
    scene = Scene()
    running = asyncio.get_running_loop().create_task(scene.race(lambda: "second").run("first", 0.01))
    await scene.both.wait()
    scene.wins("second")
    assert not scene.gates["first"].claim(object())
    outcome = await running
    assert (outcome.won, outcome.lost, scene.unsent) == ("second", "first", [])
    assert scene.through == [("second", True)]
    assert scene.ends["first"].cancelled()


async def test_what_one_has_failed_with_is_final_where_the_other_would_fail_alike() -> None:
    scene = Scene()
    running = asyncio.get_running_loop().create_task(scene.race(lambda: "second").run("first", 0.01))
    await scene.both.wait()
    refused = Failure("bad-request", 422)
    scene.ends["first"].set_result(Ended(refused))
    await asyncio.sleep(0)
    outcome = await running
    assert (outcome.won, outcome.failed) == (None, (("first", refused),))
    assert scene.ends["second"].cancelled()


async def test_of_two_that_fail_both_are_told_in_their_order() -> None:
    scene = Scene()
    running = asyncio.get_running_loop().create_task(scene.race(lambda: "second").run("first", 0.01))
    await scene.both.wait()
    silent, broke = Failure("first-byte-timeout"), Failure("server-error", 500)
    scene.ends["second"].set_result(Ended(broke))
    await asyncio.sleep(0.01)
    assert not running.done()
    scene.ends["first"].set_result(Ended(silent))
    outcome = await running
    assert outcome.failed == (("second", broke), ("first", silent))
    assert outcome.result == Ended(silent)
