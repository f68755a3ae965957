"""What one can do with a city that goes on serving: commands that work as printed, and what happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from .layout import Layout
from .town import Child, Town

LOOK_SECONDS: Final = 0.3


def curl(port: int, model: str) -> str:
    """A command for a shell."""
    return (
        f"curl http://127.0.0.1:{port}/v1/chat/completions \\\n"
        "  -H 'content-type: application/json' \\\n"
        f"""  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'"""
    )


def snippet(port: int, model: str) -> str:
    """A Python program."""
    return (
        "from openai import OpenAI\n"
        f'client = OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="none")\n'
        "stream = client.chat.completions.create(\n"
        f'    model="{model}", messages=[{{"role": "user", "content": "Hello"}}], stream=True\n'
        ")\n"
        "for chunk in stream:\n"
        '    print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
    )


def show(console: Console, layout: Layout, town: Town, balancer: Child) -> None:
    """Print the guide. Commands stand at the left edge and are not wrapped, to be copied."""
    base = f"http://127.0.0.1:{balancer.port}"

    def say(text: str = "", style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    say(f"Serving {base}/v1 until Ctrl-C. Ask it:", "bold")
    say()
    say(curl(balancer.port, layout.model), "cyan")
    say()
    say(f"The same with the OpenAI SDK, in {_python()}:", "bold")
    say()
    say(snippet(balancer.port, layout.model), "cyan")
    say("And see what it does:", "bold")
    say()
    say(f"  metrics  {base}/metrics")
    say(f"  reload   edit {shown(layout.file)}: the change is in force a second later")
    if town.engines:
        engine = town.engines[0]
        say(f"  failure  kill -9 {engine.pid} ends {engine.name}: requests go to the others")
    say(f"  logs     {shown(town.folder)}")
    say()


class Events:
    """What happens in a serving city, as lines: what the balancer logs, and processes that end."""

    def __init__(self, town: Town, balancer: Child) -> None:
        self._town = town
        self._balancer = balancer
        self._at = balancer.log.stat().st_size
        self._gone: set[int] = set()

    def new(self) -> Iterator[str]:
        """Those since the last call."""
        with self._balancer.log.open("rb") as log:
            log.seek(self._at)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            yield told(line)
        for child in self._town.engines:
            if child.pid not in self._gone and (ended := child.ended) is not None:
                self._gone.add(child.pid)
                yield f"{child.name} {ended}; to start it again: {again(child.arguments)}"


async def serve(console: Console, town: Town, balancer: Child) -> str:
    """Print events until the balancer ends, which it does not by itself. How it ended."""
    events = Events(town, balancer)
    while True:
        for event in events.new():
            console.print(event, soft_wrap=True, highlight=False, markup=False)
        if (ended := balancer.ended) is not None:
            return f"{balancer.name} {ended}\n{balancer.tail()}"
        await asyncio.sleep(LOOK_SECONDS)


def told(line: str) -> str:
    """A line of a log with the time of day and the message; a line of another form as it is."""
    parts = line.split(maxsplit=4)
    if len(parts) == 5 and parts[2].isupper() and parts[1][2:3] == ":":
        return f"{parts[1][:8]}  {parts[4]}"
    return line


def shown(path: Path) -> str:
    """A path as one would type it here, quoted if need be."""
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))


def again(arguments: Sequence[str]) -> str:
    """How a person starts a child of the city by hand, in this shell. A key is not shown."""
    script = Path(sys.executable).with_name("spillway")
    if shutil.which("spillway"):
        words = ["spillway"]
    elif script.is_file():
        words = [shown(script)]
    else:
        words = [shown(Path(sys.executable)), "-m", "spillway_balancer.cli"]
    secret = False
    for word in arguments:
        words.append(f"{word.partition('=')[0]}=KEY" if secret else shlex.quote(word))
        secret = word == "--key"
    return " ".join(words)


def _python() -> str:
    """A Python that has the SDK, if ours has."""
    if importlib.util.find_spec("openai") is None:
        return "Python (pip install openai)"
    executable = Path(sys.executable)
    on_path = shutil.which("python")
    if on_path and os.path.realpath(on_path) == os.path.realpath(executable) and sys.prefix == sys.base_prefix:
        return "python"
    return shown(executable)
