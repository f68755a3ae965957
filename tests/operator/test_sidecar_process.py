"""A sidecar as a process beside a running operator: what it weighs, what it leaves out, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest
from benchmarks.footprint import GATEWAY, world
from tests.operator.rig import PATIENCE, Rig, served, token_file

LEFT_OUT = (
    "typer",  # and Pydantic with it
    "pydantic",
    "rich",
    "yaml",
    "cel_expr_python",
    "spillway_api.compile",
    "spillway_api.files",
    "spillway_api.prices",
    "spillway_api.validate",
    "spillway_balancer.commands",
    "spillway_balancer.wire.translation.pairs",
)


class Sidecar(NamedTuple):
    process: asyncio.subprocess.Process
    port: int

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


Start = Callable[..., Awaitable[Sidecar]]


@pytest.fixture
async def operator() -> AsyncIterator[Rig]:
    async with served() as one:
        one.publish(world('headers["x-tier"] == "premium"'))
        yield one


@pytest.fixture
async def start(operator: Rig, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[asyncio.subprocess.Process] = []

    async def run(port: int | None = None) -> Sidecar:
        (tmp_path / "ca.crt").write_bytes(operator.made.authority)
        words = (
            *(
                "run",
                "--sidecar",
                f"--operator=https://localhost:{port or operator.server.port}",
                f"--gateway={GATEWAY}",
            ),
            *("--gateway-url=http://127.0.0.1:9", f"--token-file={token_file(tmp_path, 'default', 'pod-1')}"),
            *(f"--ca-file={tmp_path / 'ca.crt'}", f"--state={tmp_path}", "--port=0"),
        )
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "spillway_balancer.cli", *words)
        process = await asyncio.create_subprocess_exec(*command, stderr=pipe)
        started.append(process)
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while (line := (await process.stderr.readline()).decode()) and "/v1" not in line:
                pass
        return Sidecar(process, int(re.findall(r":(\d+)/v1", line)[0]))

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def rss(pid: int) -> int:
    """Memory of a process in bytes; `ps` is not everywhere, /proc on Linux alone."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        (found,) = re.findall(r"^VmRSS:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    else:
        found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True, text=True).stdout
    return int(found) * 1024


async def until_it_follows(operator: Rig) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if operator.server.sidecars(GATEWAY)["Current"]:
                return
            await asyncio.sleep(0.01)


async def test_an_idle_one_ends_at_once_when_its_application_has_ended(operator: Rig, start: Start) -> None:
    """The kubelet ends sidecars last. Nothing holds one: not the stream, nor a connection that somebody keeps."""
    sidecar = await start()
    await until_it_follows(operator)
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: it\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    begun = monotonic()
    sidecar.stop()
    assert await sidecar.ended() == 0
    assert monotonic() - begun < 1.0
    writer.close()


async def test_one_without_an_operator_ends_as_fast(start: Start) -> None:
    sidecar = await start(1)  # nobody is there
    begun = monotonic()
    sidecar.stop()
    assert await sidecar.ended() == 0
    assert monotonic() - begun < 1.0


async def test_an_idle_one_takes_less_than_60_mb(operator: Rig, start: Start) -> None:
    sidecar = await start()
    await until_it_follows(operator)
    assert 20e6 < rss(sidecar.process.pid) < 60e6
    sidecar.stop()
    assert await sidecar.ended() == 0


async def test_what_a_sidecar_does_not_need_is_not_loaded() -> None:
    code = "import json, sys, spillway_balancer.cli, spillway_balancer.running; print(json.dumps([*sys.modules]))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert set(LEFT_OUT) & set(json.loads(said)) == set()
