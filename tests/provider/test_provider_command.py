"""`spillway provider` as a process: what it prints works as printed, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import shlex
import signal
import socket
import sys

import aiohttp
import pytest
from typer.testing import CliRunner

from spillway_balancer.commands import app
from spillway_balancer.provider.command import introduction, run_provider
from spillway_balancer.provider.families import FAMILIES

from .conftest import Fake


@pytest.mark.parametrize("type", FAMILIES)
async def test_the_printed_request_works_as_it_is(fake: Fake, session: aiohttp.ClientSession, type: str) -> None:
    server = await fake(type)
    base, curl, books = introduction(server).splitlines()
    assert server.base_url in base
    words = shlex.split(curl)
    headers = dict(word.split(": ", 1) for at, word in enumerate(words) if words[at - 1] == "-H")
    async with session.post(words[1], data=words[words.index("-d") + 1], headers=headers) as response:
        assert response.status == 200, await response.text()
    async with session.get(books.split()[1]) as response:
        assert (await response.json())["keys"]["main"]["requests"] == 1


async def test_it_serves_until_it_is_told_to_stop(session: aiohttp.ClientSession) -> None:
    command = [sys.executable, "-m", "spillway_balancer.cli", "provider", "--type", "anthropic", "--port", "0"]
    command += [
        "--key",
        "team=k1",
        "--price",
        "claude=3,0.3,3.75,15",
        "--requests-per-minute",
        "1",
        "--first-token",
        "0",
    ]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    said = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    url = said.split()[3].rstrip(",")
    assert "team" in said
    headers = {"x-api-key": "k1", "anthropic-version": "2023-06-01"}
    body = {"model": "claude", "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
    statuses = []
    for _ in range(2):
        async with session.post(f"{url}/v1/messages", json=body, headers=headers) as response:
            statuses.append(response.status)
    assert statuses == [200, 429]
    async with session.get(f"{url}/books") as response:
        books = await response.json()
    assert books["prices"] == {"claude": ["3", "0.3", "3.75", "15", "3.75"]}
    assert books["keys"]["team"]["told"]["claude"]["output"] == 4
    async with session.post(f"{url}/sim/reset") as response:
        assert response.status == 204
    async with session.get(f"{url}/books") as response:
        assert (await response.json())["amount"] == "0"
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--type", "acme"], "use one of openai, azure"),
        (["--type", "openai", "--key", "nothing"], "NAME=VALUE"),
        (["--type", "openai", "--price", "m=1,2"], "MODEL=INPUT,CACHED,WRITTEN,OUTPUT"),
        (["--type", "openai", "--price", "m=1,2,3,-4"], "MODEL=INPUT,CACHED,WRITTEN,OUTPUT"),
        (["--type", "openai", "--faults", '{"kind": "flood"}'], "kinds are"),
    ],
)
def test_bad_settings_are_refused_in_words(arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["provider", *arguments])
    assert found.exit_code == 2
    assert said in found.output


def test_a_taken_port_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        run_provider(type="openai", port=taken.getsockname()[1])
