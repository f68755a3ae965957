"""What is learned of endpoints over sockets: probes, scrapes, credentials that change, clients that read slowly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp

from spillway_balancer.core.reasons import REASONS
from spillway_balancer.engine.faults import parse

ASK = {"model": "chat", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
PROBED = {"health": {"active": {"mode": "Auto", "interval": "50ms", "timeout": "1s", "unhealthyThreshold": 2}}}
SCRAPED = {"engine": "Auto", "metrics": {"mode": "Auto", "interval": "100ms", "staleAfter": "30s"}}


async def test_an_unhealthy_endpoint_gets_no_requests_until_it_recovers(serve, engine) -> None:
    sick, well = await engine(), await engine()
    lb = await serve(sick, well, pool=PROBED)
    await sick.set_faults(parse('{"kind": "health", "status": 500}'))
    await lb.until(lambda: not lb.endpoint("e1").probe.usable)
    async with aiohttp.ClientSession() as client:
        for _ in range(8):
            async with client.post(f"{lb.url}/v1/chat/completions", json=ASK) as answer:
                assert answer.status == 200
    assert lb.sample("spillway_attempts_total", endpoint="e1") == 0
    assert lb.sample("spillway_attempts_total", endpoint="e2") == 8
    await sick.set_faults(())
    await lb.until(lambda: lb.endpoint("e1").probe.usable)


async def test_engine_metrics_are_read_and_the_engine_told_by_them(serve, engine) -> None:
    one = await engine()
    lb = await serve(one, pool=SCRAPED)
    await lb.until(lambda: lb.balancer.poller.dialects.get(lb.endpoint("e1")) == "vLLM")
    await lb.until(lambda: (seen := lb.endpoint("e1").load.report(0.0, 1e18)) is not None and seen.running == 0)
    assert lb.endpoint("e1").learned.cache_tokens == one.engine.profile.kv_blocks * one.engine.profile.block_tokens


async def test_a_rotated_credential_takes_force_and_reaches_its_own_account_alone(
    serve, engine, objects, tmp_path: Path
) -> None:
    cloud = await engine(api_key="first", models=("cloud-mini",))
    folder = tmp_path / "secrets"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "api-key").write_text("first\n")
    docs = [objects.provider("cloud", f"{cloud.url}/v1", "a"), objects.route("cloud")]
    lb = await serve(docs=docs, secrets=folder)

    async def status(client: aiohttp.ClientSession) -> int:
        headers = {"authorization": "Bearer of-the-client"}
        async with client.post(f"{lb.url}/v1/chat/completions", json=ASK, headers=headers) as answer:
            await answer.read()
            return answer.status

    async with aiohttp.ClientSession() as client:
        assert await status(client) == 200
        (folder / "a" / "api-key").write_text("second\n")
        await lb.until(lambda: lb.sample("spillway_config_reloads_total") == 1)
        assert await status(client) == 503  # the engine still wants the first key: the new one is in use
        assert lb.sample("spillway_attempts_total", reason="auth") == 1


async def test_a_slow_client_slows_the_endpoint_instead_of_filling_memory(serve, endpoint, say, dial) -> None:
    piece = b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 60_000}}]}).encode() + b"\n\n"
    sent = 0

    async def behave(call) -> None:
        nonlocal sent
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(2000):
            call.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            sent += 1
            await call.writer.drain()

    lb = await serve(await endpoint(behave))
    reader, writer = await asyncio.open_connection("127.0.0.1", lb.port, limit=2**16)
    body = json.dumps({**ASK, "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
    writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
    await reader.readexactly(100_000)
    before = -1
    async with asyncio.timeout(15):
        while before != sent:  # until the endpoint's writes stand still
            before = sent
            await asyncio.sleep(0.3)
    assert sent < 1000
    writer.transport.abort()


def test_the_docs_name_every_reason_and_metric() -> None:
    docs = Path(__file__).parents[2] / "docs"
    reasons, metrics = (docs / "reasons.md").read_text(), (docs / "metrics.md").read_text()
    assert [reason for reason in REASONS if f"`{reason}`" not in reasons] == []
    from spillway_balancer.net.telemetry import Telemetry

    families = [family.name for family in Telemetry().registry.collect()]
    short = [
        name for name in families if name not in metrics and f"…{name.removeprefix('spillway_engine')}" not in metrics
    ]
    assert [name for name in short if not name.endswith(("running_requests", "prefix_cache_hits"))] == []
