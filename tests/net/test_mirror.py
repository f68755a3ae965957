"""Copies of requests: sent beside the caller's, measured and dropped, whatever becomes of them."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from spillway_balancer.net import mirroring

REQUESTS = "spillway_mirror_requests_total"
LABELS = {"route": "default/chat", "pool": "default/trial"}


@pytest.fixture
def mirrored(serve, objects):
    """`await mirrored(caller's endpoint, trial's endpoint)`: a balancer that copies a share from one to the other."""

    async def make(local: Any, trial: Any, percent: int = 100, **spec: Any) -> Any:
        mirror = {"pool": {"name": "trial"}, "percent": percent}
        return await serve(
            docs=[
                objects.pool("local", local),
                objects.pool("trial", trial, models=[{"name": "next", "upstreamName": "org/next"}]),
                objects.route("local", mirror=mirror, **spec),
            ]
        )

    return make


def results(lb: Any) -> dict[str, float]:
    families = lb.balancer.telemetry.registry.collect()
    samples = [each for family in families for each in family.samples if each.name == REQUESTS]
    return {each.labels["result"]: each.value for each in samples}


async def settled(lb: Any, copies: int) -> dict[str, float]:
    """The results of so many copies, once they are all there."""
    await lb.until(lambda: sum(results(lb).values()) >= copies and not lb.balancer.proxy.copies.under_way)
    return results(lb)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_mirror_gets_the_same_request_with_its_own_model(mirrored, endpoint, dial, say, stream) -> None:
    local, trial = await endpoint(say.well("for the caller")), await endpoint(say.well("for nobody"))
    lb = await mirrored(local, trial)
    client = await dial(lb)
    headers = [("authorization", f"Bearer {say.KEY}"), ("cookie", say.KEY), ("x-session-id", "s"), ("x-own", "1")]
    reply = await client.chat(headers, stream=stream, temperature=0.5)
    assert reply.text == "for the caller"
    await settled(lb, 1)
    (own,), (copy,) = local.calls, trial.calls
    assert copy.json() == {**own.json(), "model": "org/next"}
    assert copy.target == own.target
    kept = {"accept-encoding", "content-type", "x-session-id", "x-own"}
    assert {name for name, _ in copy.headers} - {"host", "content-length"} == kept
    assert results(lb) == {"ok": 1.0}


async def test_it_is_measured_and_counts_for_nothing_else(mirrored, engine, dial) -> None:
    lb = await mirrored(await engine(), await engine(models=("org/next",)))
    client = await dial(lb)
    for _ in range(3):
        assert (await client.chat(stream=True, max_tokens=5)).status == 200
        assert (await client.chat(max_tokens=5)).status == 200
    assert await settled(lb, 6) == {"ok": 6.0}
    for name in ("spillway_mirror_duration_seconds_count", "spillway_mirror_time_to_first_byte_seconds_count"):
        assert lb.sample(name, **LABELS) == 6.0
    assert lb.sample("spillway_mirror_tokens_total", **LABELS, kind="output") >= 6.0
    assert lb.sample("spillway_mirror_tokens_total", **LABELS, kind="prompt") > 0.0
    assert lb.sample("spillway_requests_total") == 6.0
    assert lb.sample("spillway_tier_requests_total") == 6.0
    assert lb.sample("spillway_attempts_total", pool="default/trial", reason="ok") == 6.0


async def test_whole_sessions_are_copied(mirrored, endpoint, dial) -> None:
    local, trial = await endpoint(), await endpoint()
    lb = await mirrored(local, trial, percent=50)
    client = await dial(lb)
    for session in range(40):
        for _ in range(3):
            await client.chat([("x-session-id", f"s{session}")])
    await lb.until(lambda: not lb.balancer.proxy.copies.under_way)
    times = [sum(call.header("x-session-id") == f"s{session}" for call in trial.calls) for session in range(40)]
    assert set(times) == {0, 3}
    assert sum(results(lb).values()) == len(trial.calls)


async def ask_some(client: Any, count: int = 30) -> list[float]:
    took = []
    for number in range(count):
        begun = monotonic()
        reply = await client.chat([("x-session-id", f"s{number}")])
        took.append(monotonic() - begun)
        assert reply.text == "hello"
    return sorted(took)


async def test_a_mirror_that_stands_still_delays_nobody(mirrored, endpoint, dial, say) -> None:
    """The endpoint answers at once; a caller that waited for its copy would never be answered."""
    lb = await mirrored(await endpoint(), await endpoint(say.steps(say.HANG)))
    took = await ask_some(await dial(lb))
    assert took[len(took) // 2] < 0.1
    assert lb.balancer.proxy.in_flight == 0
    assert lb.balancer.proxy.copies.under_way == 30
    assert results(lb) == {}
    lb.balancer.proxy.copies.close()
    assert await settled(lb, 30) == {"drained": 30.0}


@pytest.mark.parametrize("fault", ["refuse", "reset", "garbage", "error", "cut"])
async def test_a_mirror_that_fails_is_no_callers_business(mirrored, endpoint, refusing, dial, say, fault) -> None:
    faults = {
        "reset": (say.steps(say.RESET), "connect"),
        "garbage": (say.steps(b"nonsense\r\n\r\n", say.CLOSE), "connect"),
        "error": (say.steps(say.error(500)), "server-error"),
        "cut": (say.steps(say.SSE + say.chunks(say.role(), say.word("a")), say.RESET), "interrupted"),
    }
    behave, reason = faults.get(fault, (None, "connect"))
    lb = await mirrored(await endpoint(), refusing if fault == "refuse" else await endpoint(behave))
    client = await dial(lb)
    for _ in range(10):
        assert (await client.chat()).text == "hello"
    assert await settled(lb, 10) == {reason: 10.0}  # never ejected: ten times the same, though five would eject
    assert lb.endpoint("e1", "trial").circuit.ejected_until is None
    assert lb.sample("spillway_mirror_duration_seconds_count", **LABELS) == 0.0
    assert lb.sample("spillway_requests_total", code="200") == 10.0


async def test_a_limit_that_the_mirror_announces_is_kept(mirrored, endpoint, dial, say) -> None:
    trial = await endpoint(say.steps(say.error(429, retry_after="60")))
    lb = await mirrored(await endpoint(), trial)
    client = await dial(lb)
    await client.chat()
    await settled(lb, 1)
    await client.chat()
    assert await settled(lb, 2) == {"rate-limited": 2.0}
    assert len(trial.calls) == 1


async def test_a_caller_that_leaves_takes_its_copy_along(mirrored, endpoint, dial, say) -> None:
    local, trial = await endpoint(say.steps(say.HANG)), await endpoint(say.steps(say.HANG))
    lb = await mirrored(local, trial)
    client = await dial(lb)
    await client.send(client.request(body=client.chat_body()))
    await local.call()
    copy = await trial.call()
    client.reset()
    await copy.gone()
    assert await settled(lb, 1) == {"client-gone": 1.0}


async def test_a_caller_that_is_answered_leaves_its_copy_to_its_end(mirrored, endpoint, dial, say) -> None:
    release = asyncio.Event()
    trial = await endpoint(say.steps(release, say.completion()))
    lb = await mirrored(await endpoint(), trial)
    client = await dial(lb)
    assert (await client.chat()).text == "hello"
    client.close()
    await trial.call()
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert lb.balancer.proxy.copies.under_way == 1
    release.set()
    assert await settled(lb, 1) == {"ok": 1.0}


async def test_no_more_copies_than_the_bound_are_under_way(mirrored, endpoint, dial, say, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "MOST_COPIES", 4)
    trial = await endpoint(say.steps(say.HANG))
    lb = await mirrored(await endpoint(), trial)
    client = await dial(lb)
    await ask_some(client, 10)
    copies = lb.balancer.proxy.copies
    assert copies.under_way == 4
    assert results(lb) == {"full": 6.0}
    copies.close()
    await settled(lb, 10)
    assert copies.bytes == 0


async def test_nor_more_bytes(mirrored, endpoint, dial, say, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "MOST_BYTES", 5000)
    lb = await mirrored(await endpoint(), await endpoint(say.steps(say.HANG)))
    client = await dial(lb)
    for _ in range(5):
        assert (await client.chat(user="u" * 2000)).status == 200
    copies = lb.balancer.proxy.copies
    assert copies.under_way == 2
    assert 4000 < copies.bytes <= 5000
    assert (await client.chat()).status == 200  # a small one still fits
    assert copies.under_way == 3
    assert results(lb) == {"full": 3.0}
    copies.close()
    await settled(lb, 6)


async def test_an_answer_without_end_is_cut(mirrored, endpoint, dial, say, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "MOST_ANSWER", 200_000)

    async def babble(call: Any) -> None:
        call.write(say.SSE)
        while not call.writer.is_closing():
            call.write(say.chunks(say.word("a" * 10_000)))
            await call.writer.drain()

    trial = await endpoint(babble)
    lb = await mirrored(await endpoint(), trial)
    assert (await (await dial(lb)).chat(stream=True)).text == "hello"
    assert await settled(lb, 1) == {"too-long": 1.0}


async def test_leave_taking_waits_for_no_copy(mirrored, endpoint, dial, say) -> None:
    trial = await endpoint(say.steps(say.HANG))
    lb = await mirrored(await endpoint(), trial)
    client = await dial(lb)
    await client.chat()
    copy = await trial.call()
    begun = monotonic()
    assert await lb.balancer.proxy.drain(10.0)
    await copy.gone()
    assert monotonic() - begun < 5.0
    assert await settled(lb, 1) == {"drained": 1.0}


async def test_a_request_that_is_refused_makes_no_copy(mirrored, endpoint, dial) -> None:
    trial = await endpoint()
    lb = await mirrored(await endpoint(), trial)
    client = await dial(lb)
    assert (await client.post("/v1/chat/completions", {"model": "unknown"})).status == 404
    assert (await client.chat()).status == 200
    await settled(lb, 1)
    assert len(trial.calls) == 1


async def test_a_retry_makes_no_second_copy(serve, objects, endpoint, dial, say) -> None:
    failing, trial = await endpoint(say.steps(say.error(500))), await endpoint()
    lb = await serve(
        docs=[
            objects.pool("local", failing, await endpoint(), dispatch={"strategy": "RoundRobin"}),
            objects.pool("trial", trial),
            objects.route("local", mirror={"pool": {"name": "trial"}, "percent": 100}),
        ]
    )
    client = await dial(lb)
    for _ in range(6):
        assert (await client.chat()).status == 200
    assert failing.calls
    await settled(lb, 6)
    assert len(trial.calls) == 6


async def test_a_provider_that_gets_copies_is_asked_with_its_own_key(
    serve, objects, endpoint, dial, say, tmp_path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "api-key").write_text(say.KEY)
    trial = await endpoint()
    lb = await serve(
        docs=[
            objects.pool("local", await endpoint()),
            objects.provider("trial", f"{trial.url}/v1", "a"),
            objects.route("local", mirror={"pool": {"name": "trial"}, "percent": 100}),
        ],
        secrets=tmp_path,
    )
    client = await dial(lb)
    await client.chat([("authorization", "Bearer of-the-client"), ("x-api-key", "of-the-client")])
    assert await settled(lb, 1) == {"ok": 1.0}
    (call,) = trial.calls
    assert call.header("authorization") == f"Bearer {say.KEY}"
    assert "of-the-client" not in str(call.headers)


async def test_a_copy_is_held_to_what_the_rule_sets(serve, objects, endpoint, dial) -> None:
    local, trial = await endpoint(), await endpoint()
    route = objects.route("local", mirror={"pool": {"name": "trial"}, "percent": 100})
    route["spec"]["rules"][0]["set"] = {"maxOutputTokens": 16}
    lb = await serve(docs=[objects.pool("local", local), objects.pool("trial", trial), route])
    await (await dial(lb)).chat(max_tokens=1000)
    await settled(lb, 1)
    assert [call.json()["max_tokens"] for call in (*local.calls, *trial.calls)] == [16, 16]


async def test_what_a_server_keeps_or_does_by_itself_is_not_copied(mirrored, engine, endpoint, dial) -> None:
    trial = await endpoint()
    lb = await mirrored(await engine(), trial)
    client = await dial(lb)
    assert (await client.post("/v1/responses", {"model": "chat", "input": "hello"})).status == 200
    assert (await client.chat()).status == 200
    await settled(lb, 1)
    assert [call.target for call in trial.calls] == ["/v1/chat/completions"]


async def test_what_copies_cost_is_told_apart_from_what_callers_cost(serve, objects, endpoint, dial) -> None:
    price = {"input": "1000000", "output": "3000000"}  # one and three a token
    endpoint_of_trial = await endpoint()
    trial = objects.pool("trial", endpoint_of_trial, models=[{"name": "next", "price": price}])
    mirror = {"pool": {"name": "trial"}, "percent": 100}
    lb = await serve(docs=[objects.pool("local", await endpoint()), trial, objects.route("local", mirror=mirror)])
    client = await dial(lb)
    await client.chat()  # a prompt of one token, an answer of one
    await client.chat()
    await settled(lb, 2)
    await client.chat(stream=True)  # which is asked how many tokens it has
    await settled(lb, 3)
    assert endpoint_of_trial.calls[-1].json()["stream_options"] == {"include_usage": True}
    assert lb.sample("spillway_cost_total", **LABELS, rule="", tier="mirror", currency="USD") >= 8.0
    assert lb.sample("spillway_cost_total", pool="default/local") == 0.0


async def test_no_caller_ever_gets_a_word_of_a_copys_answer(mirrored, endpoint, dial, say) -> None:
    lb = await mirrored(await endpoint(say.well("for the caller")), await endpoint(say.well("for nobody")))

    async def ask(number: int) -> set[str]:
        client = await dial(lb)
        return {(await client.chat(stream=bool((number + turn) % 2))).text for turn in range(4)}

    said = await asyncio.gather(*map(ask, range(40)))
    assert set().union(*said) == {"for the caller"}
    assert sum((await settled(lb, 160)).values()) == 160.0


async def test_a_mirror_that_is_taken_away_gets_nothing_more_and_its_copies_end_well(
    mirrored, objects, endpoint, dial, say
) -> None:
    release = asyncio.Event()
    local, trial = await endpoint(), await endpoint(say.steps(release, say.completion()))
    lb = await mirrored(local, trial)
    client = await dial(lb)
    await client.chat()
    await trial.call()
    lb.write(objects.pool("local", local), objects.route("local"))
    await lb.until(lambda: list(lb.balancer.serving.current.pools) == ["default/local"])
    assert (await client.chat()).status == 200
    release.set()
    assert await settled(lb, 1) == {"ok": 1.0}
    assert len(trial.calls) == 1


async def test_who_waits_in_line_is_copied_when_its_turn_comes_and_who_leaves_it_is_not(
    serve, objects, endpoint, dial, say
) -> None:
    release = asyncio.Event()
    trial = await endpoint()
    lb = await serve(
        docs=[
            objects.pool(
                "local", await endpoint(say.steps(release, say.completion())), capacity={"maxInFlightPerEndpoint": 1}
            ),
            objects.pool("trial", trial),
            objects.route("local", mirror={"pool": {"name": "trial"}, "percent": 100}),
        ]
    )
    first, second, third = [await dial(lb) for _ in range(3)]
    for number, client in enumerate((first, second, third)):
        await client.send(client.request(body=client.chat_body(user=f"u{number}")))
        await lb.until(lambda number=number: lb.balancer.proxy.in_flight == number + 1)
    await settled(lb, 1)
    third.reset()
    await lb.until(lambda: lb.balancer.proxy.in_flight == 2)
    release.set()
    assert [(await client.reply()).status for client in (first, second)] == [200, 200]
    assert await settled(lb, 2) == {"ok": 2.0}
    assert [call.json()["user"] for call in trial.calls] == ["u0", "u1"]
