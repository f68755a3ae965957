"""The engine as a process: it drains on SIGTERM and exits 0."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import pytest

from spillway_balancer.engine.command import run_engine

PROGRAM = """
import sys
from spillway_balancer.engine.command import run_engine
run_engine(port=0, ready=lambda url: print(url, flush=True), **eval(sys.argv[1]))
"""


async def start(**settings: Any) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, repr(settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
    return process, int(url.rsplit(":", 1)[1])


def chat(**more: Any) -> bytes:
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "a secret"}]} | more).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_sigterm_lets_streams_end_and_exits_0() -> None:
    process, port = await start(speed=10.0, log_requests=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(stream=True, max_tokens=200))
    await reader.readuntil(b'"role":"assistant"')
    process.send_signal(signal.SIGTERM)
    rest = await asyncio.wait_for(reader.read(), 20)  # closed in order
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b" from 127.0.0.1 prompt=" in said
    assert b"secret" not in said
    writer.close()


async def test_the_drain_has_an_end() -> None:
    process, port = await start(drain=0.2, faults='{"kind":"stall"}')
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat())
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    writer.close()


async def test_the_block_size_is_that_of_its_prefix_cache() -> None:
    process, port = await start(block_size=64)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n")
    page = await asyncio.wait_for(reader.read(), 20)
    assert b'vllm:cache_config_info{block_size="64"' in page
    writer.close()
    process.terminate()
    await asyncio.wait_for(process.communicate(), 20)


def test_a_block_size_that_no_engine_could_have_is_refused() -> None:
    with pytest.raises(ValueError, match="block size"):
        run_engine(block_size=0)


def test_bad_faults_are_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="kinds are"):
        run_engine(faults='{"kind":"boom"}')
