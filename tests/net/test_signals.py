"""Signals to a process: the first SIGTERM takes leave, the second ends at once; also without a configuration."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Say as say  # by its full name, as pytest has imported it

PATIENCE = 20.0


class Process:
    """`spillway run` as a child, and the port that it says it listens on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line of its log that holds the pattern."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"it ended before it said {pattern}")

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started: list[Process] = []

    async def run(*args: str) -> Process:
        program = (sys.executable, "-m", "spillway_balancer.cli", "run", "--port", "0", *args)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*program, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        one = Process(process)
        started.append(one)
        one.port = int((await one.line(r"http://127\.0\.0\.1:(\d+)/v1"))[1])
        return one

    yield run
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
        await one.process.communicate()


def files(folder: Path, objects: Any, server: Any) -> str:
    file = folder / "spillway.yaml"
    file.write_text(yaml.safe_dump_all([objects.pool("local", server), objects.route("local")]))
    return str(file)


async def test_a_second_sigterm_ends_at_once(start, endpoint, dial, objects, tmp_path: Path) -> None:
    server = await endpoint(say.steps(say.SSE + say.chunks(say.role(), say.word("hel")), say.HANG))
    lb = await start("-f", files(tmp_path, objects, server), "--linger", "600", "--drain", "600")
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    await client.head()
    lb.signal()
    await lb.line("draining: 1 requests under way; accepting for 600 s more, then at most 600 s")
    assert (await (await dial(lb)).get("/readyz")).body == b"draining\n"
    lb.signal()
    await lb.line("cut 1 requests at the second signal")
    assert await lb.ended() == 0


async def test_one_sigterm_lingers_then_lets_the_stream_end(start, endpoint, dial, objects, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    server = await endpoint()
    end = say.chunks(say.word("lo"), say.DONE) + say.END
    server.plan.append(say.steps(say.SSE + say.chunks(say.role(), say.word("hel")), go_on, end))
    lb = await start("-f", files(tmp_path, objects, server), "--linger", "0.5")
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    lb.signal()
    await lb.line("draining")
    reply = await (await dial(lb)).chat()
    assert (reply.status, reply.header("connection")) == (200, "close")
    go_on.set()
    assert (await client.rest(head)).text == "hello"
    assert await lb.ended() == 0


async def test_a_balancer_without_a_configuration_ends_as_well(start, refusing, dial, tmp_path: Path) -> None:
    url = refusing.replace("http:", "https:")
    lb = await start("--operator", url, "--state", str(tmp_path / "state"))
    await lb.line("no config stream from .*: cannot connect")
    assert (await (await dial(lb)).get("/readyz")).body == b"no snapshot yet\n"
    assert (await (await dial(lb)).chat()).status == 503
    lb.signal()
    assert await lb.ended() == 0
