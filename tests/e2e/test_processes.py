"""`spillway run` and `lint` as a person starts them: exit codes, signals, a killed engine."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

PROGRAM = (sys.executable, "-m", "spillway_balancer.cli")
ROOT = Path(__file__).parents[2]
POOL = """
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {{name: local}}
spec:
  models: [{{name: demo}}]
  source: {{static: {{endpoints: [{rows}]}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {{name: chat}}
spec: {{models: [chat], rules: [{{name: all, tiers: [{{name: only, pools: [{{name: local}}]}}]}}]}}
"""


def policy(file: Path, *urls: str) -> Path:
    file.write_text(POOL.format(rows=", ".join(f'{{name: e{n}, url: "{url}"}}' for n, url in enumerate(urls))))
    return file


class Program:
    """A child process whose URL is read from the line that it prints."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(cls, *args: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await process.stdout.readline()).decode():
                if found := re.search(r"(http://127\.0\.0\.1:\d+)/v1", line):
                    return cls(process, found[1])
        raise AssertionError("it ended before it served")


@pytest.fixture
async def program():
    started: list[Program] = []

    async def start(*args: str) -> Program:
        started.append(await Program.start(*args))
        return started[-1]

    yield start
    for each in started:
        if each.process.returncode is None:
            each.process.kill()
        await each.process.communicate()


def ask(stream: bool, key: str, tokens: int = 40) -> dict[str, object]:
    message = {"role": "user", "content": f"hello from {key}"}
    return {"model": "chat", "stream": stream, "max_tokens": tokens, "messages": [message]}


async def test_sigterm_lets_a_stream_end_and_exits_0(program, tmp_path) -> None:
    engine = await program("engine", "--port", "0")
    lb = await program("run", "-f", str(policy(tmp_path / "p.yaml", engine.url)), "--port", "0")
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{lb.url}/v1/chat/completions", json=ask(True, "a")) as answer:
            await answer.content.readany()
            lb.process.send_signal(signal.SIGTERM)
            assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(15):
            assert await lb.process.wait() == 0


async def test_kill_9_of_one_of_four_engines_fails_nobody_before_the_first_content_byte(program, tmp_path) -> None:
    engines = await asyncio.gather(*(program("engine", "--port", "0", "--speed", "4") for _ in range(4)))
    lb = await program("run", "-f", str(policy(tmp_path / "p.yaml", *(each.url for each in engines))), "--port", "0")
    failed: list[str] = []
    answered = 0

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        nonlocal answered
        async with client.post(f"{lb.url}/v1/chat/completions", json=ask(number % 2 == 0, f"u{number % 50}")) as answer:
            body = await answer.read()
            if answer.status != 200 or b'"content"' not in body:
                failed.append(f"{answer.status} {body[:200]!r}")
            elif b"[DONE]" not in body and b'"error"' not in body and b'"usage"' not in body:
                failed.append("a silent end")
            answered += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        tasks = []
        for number in range(300):
            if number == 120:
                engines[1].process.kill()
            tasks.append(asyncio.ensure_future(one(client, number)))
            await asyncio.sleep(0.01)  # the load: a hundred requests a second
        await asyncio.gather(*tasks)
    assert (failed, answered) == ([], 300)


async def test_a_process_that_is_killed_does_not_find_its_budget_full_again(program, tmp_path) -> None:
    engine = await program("engine", "--port", "0", "--speed", "50")
    file = policy(tmp_path / "p.yaml", engine.url)
    price = 'models: [{name: demo, price: {output: "1000"}}], budget: {amount: "0.5", period: Month},'
    text = file.read_text().replace("spec:\n  models: [{name: demo}]\n  source:", f"spec: {{{price} source:", 1)
    file.write_text(
        text.replace("]}}\n---", "]}}}\n---", 1).replace("rules: [", "queue: {maxRequests: 0}, rules: [", 1)
    )
    args = ("run", "-f", str(file), "--port", "0", "--state", str(tmp_path / "state"))
    kept = tmp_path / "state" / "spent.json"
    first = await program(*args)
    codes = []
    async with aiohttp.ClientSession() as client:
        while 429 not in codes:  # a thousandth for each token of an answer
            async with client.post(f"{first.url}/v1/chat/completions", json=ask(False, "a", 100)) as answer:
                codes.append(answer.status)
        assert codes == [200] * 5 + [429]
        async with asyncio.timeout(15):
            while not kept.exists() or '"0.5' not in kept.read_text():  # noqa: ASYNC110 - a file wakes nobody
                await asyncio.sleep(0.02)
        first.process.kill()
        await first.process.wait()
        second = await program(*args)
        async with client.post(f"{second.url}/v1/chat/completions", json=ask(False, "a", 100)) as answer:
            assert answer.status == 429
            assert (await answer.json())["error"]["code"] == "budget_spent"


def lint(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*PROGRAM, "lint", *args), capture_output=True, text=True, timeout=60, check=False)


def test_lint_accepts_the_quickstart() -> None:
    done = lint("-f", str(ROOT / "examples/quickstart.yaml"), "--secrets", str(ROOT / "examples/secrets"))
    assert (done.returncode, done.stdout) == (0, "ok: 2 pools, 5 endpoints, models chat\n")


def test_lint_and_run_say_where_and_what_is_wrong(tmp_path) -> None:
    file = policy(tmp_path / "p.yaml", "ftp://nowhere")
    done = lint("-f", str(file))
    assert done.returncode == 1
    assert f"{file}:7:" in done.stdout
    assert "must be an absolute http or https URL" in done.stdout
    run = subprocess.run((*PROGRAM, "run", "-f", str(file)), capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "must be an absolute http or https URL" in run.stderr


def test_lint_says_where_in_an_expression_the_mistake_is(tmp_path) -> None:
    text = (ROOT / "examples/rules.yaml").read_text()
    file = tmp_path / "rules.yaml"
    file.write_text(text.replace("tokens.input > 6000", "tokens.inptu > 6000"))
    line = next(at for at, each in enumerate(file.read_text().splitlines(), 1) if "inptu" in each)
    done = lint("-f", str(file))
    assert done.returncode == 1
    assert f"{file}:{line}:5: RoutePolicy/default/best: spec.rules[2].when: InvalidExpression: " in done.stdout
    assert 'line 1, column 7: there is no "tokens.inptu" (did you mean "tokens.input"?)' in done.stdout


def test_no_source_root_is_a_package() -> None:
    """A package named like a standard module (`operator`) on the path would shadow it for everybody."""
    assert not [root for root in ("crds", "balancer", "operator") if (ROOT / root / "__init__.py").exists()]
