"""Who tries an endpoint that was ejected: probes, as long as they fail; then one request."""

from __future__ import annotations

import asyncio

from tests.conftest import Say as say  # by its full name, as pytest has imported it

from spillway_balancer.core.circuit import Circuit

HEALTH = {
    "active": {"mode": "HTTP", "path": "/health", "interval": "30ms", "timeout": "500ms", "unhealthyThreshold": 100},
    "passive": {"consecutiveFailures": 1, "baseEjection": "50ms", "maxEjection": "50ms"},
}


async def test_no_request_is_the_trial_while_probes_fail(serve, endpoint, dial) -> None:
    """An address that has become a black hole would cost each of them the whole connect timeout."""
    sick, well = await endpoint(say.steps(say.RESET)), await endpoint()
    sick.pages["/health"] = say.message(500)
    lb = await serve(sick, well, pool={"health": HEALTH, "dispatch": {"strategy": "RoundRobin"}})
    await lb.until(lambda: lb.endpoint("e1").probe.streak > 0)
    client = await dial(lb)
    await lb.until(lambda: lb.endpoint("e1").probe.streak > 0)
    for _ in range(2):
        assert (await client.chat()).text == "hello"
    assert len(sick.calls) == 1
    await asyncio.sleep(0.1)  # the ejection is long over
    for _ in range(10):
        assert (await client.chat()).text == "hello"
    assert len(sick.calls) == 1
    assert lb.endpoint("e1").probe.usable, "that is the circuit's doing, not the verdict of the probes"
    sick.then = say.well()
    sick.pages["/health"] = say.message()
    await lb.until(lambda: lb.endpoint("e1").circuit.admits(asyncio.get_running_loop().time()))
    for _ in range(4):
        assert (await client.chat()).text == "hello"
    assert len(sick.calls) >= 2
    assert lb.endpoint("e1").circuit.ejected_until is None


async def test_a_passed_probe_closes_nothing(serve, endpoint, dial) -> None:
    """The page answers, and every request fails: one request at a time finds that out, at the end of each ejection."""
    sick, well = await endpoint(say.steps(say.error(500))), await endpoint()
    lb = await serve(sick, well, pool={"health": HEALTH, "dispatch": {"strategy": "RoundRobin"}})
    client = await dial(lb)
    async with asyncio.timeout(15):
        while len(sick.calls) < 3:
            assert (await client.chat()).text == "hello"
    assert lb.endpoint("e1").circuit.ejections >= 1


async def test_without_probes_a_request_is_the_trial(serve, endpoint, dial) -> None:
    sick, well = await endpoint(say.steps(say.RESET)), await endpoint()
    health = {"passive": HEALTH["passive"]}
    lb = await serve(sick, well, pool={"health": health, "dispatch": {"strategy": "RoundRobin"}})
    client = await dial(lb)
    async with asyncio.timeout(15):
        while len(sick.calls) < 3:
            assert (await client.chat()).text == "hello"


async def test_what_probes_have_said_does_not_outlive_them(serve, endpoint, objects) -> None:
    sick = await endpoint()
    sick.pages["/health"] = say.message(500)
    health = {**HEALTH, "active": {**HEALTH["active"], "unhealthyThreshold": 1}}
    lb = await serve(sick, pool={"health": health})
    await lb.until(lambda: not lb.endpoint("e1").probe.usable)
    lb.endpoint("e1").circuit = Circuit(ejected_until=0.0).probe_failed()
    lb.write(objects.pool("local", sick), objects.route("local"))
    await lb.until(lambda: lb.endpoint("e1").probe.usable)
    assert not lb.endpoint("e1").circuit.awaits_probe


async def test_an_ejection_and_its_wait_for_a_probe_survive_a_reload(serve, endpoint, dial, objects) -> None:
    sick, well = await endpoint(say.steps(say.RESET)), await endpoint()
    sick.pages["/health"] = say.message(500)
    lb = await serve(sick, well, pool={"health": HEALTH, "dispatch": {"strategy": "RoundRobin"}})
    await lb.until(lambda: lb.endpoint("e1").probe.streak > 0)
    client = await dial(lb)
    for _ in range(2):
        assert (await client.chat()).text == "hello"
    before = lb.endpoint("e1")
    assert before.circuit.awaits_probe
    pool = objects.pool("local", sick, well, health={**HEALTH, "slowStart": "10s"})
    lb.write(pool, objects.route("local"))
    await lb.until(lambda: lb.balancer.serving.current.pools["default/local"].slow_start == 10.0)
    assert lb.endpoint("e1") is before
    assert before.circuit.awaits_probe
