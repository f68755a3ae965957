"""A lean load generator: raw protocols, many connections, latencies as the client sees them."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from time import perf_counter

import httptools


@dataclass
class Tally:
    """What a load saw. Times in seconds."""

    answered: int = 0
    chunks: int = 0
    bytes: int = 0
    first: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    failed_before_content: list[str] = field(default_factory=list)
    cut_after_content: int = 0

    def quantile(self, values: list[float], q: float) -> float:
        ordered = sorted(values)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def request(model: str, key: str, size: int, stream: bool, tokens: int = 64, messages: bool = False) -> bytes:
    """A chat request with a prompt of about `size` bytes; requests of one key share their prompt. `messages`: in
    Anthropic's API."""
    dice = random.Random(key)
    prompt = "".join(dice.choice("abcdefgh ") for _ in range(size))
    asks = [{"role": "user", "content": f"question of {key}"}]
    said = {"system": prompt, "messages": asks}
    if not messages:
        said = {"messages": [{"role": "system", "content": prompt}, *asks]}
    body = json.dumps({"model": model, "stream": stream, "max_tokens": tokens, **said}).encode()
    head = (
        f"POST /v1/{'messages' if messages else 'chat/completions'} HTTP/1.1",
        "host: bench",
        "content-type: application/json",
        f"content-length: {len(body)}",
    )
    return "\r\n".join((*head, "", "")).encode() + body


class Connection(asyncio.Protocol):
    """One request at a time; `ask` returns when its answer has ended."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.open = True
        self.done: asyncio.Future[None] | None = None

    async def ask(self, data: bytes) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.begun = perf_counter()
        self.content = False
        self.ended = False  # the stream said that it is whole
        self.error = ""
        self.body = b""
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        await self.done

    def data_received(self, data: bytes) -> None:
        self.tally.bytes += len(data)
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if self.status >= 400:
            self.body += data
            return
        if not self.content:
            self.content = True
            self.tally.first.append(perf_counter() - self.begun)
        if data.startswith((b"data:", b"event:")):
            self.tally.chunks += data.count(b"\n\n")
            self.ended = self.ended or b"[DONE]" in data or b'"message_stop"' in data
            if b'"error"' in data:
                self.error = "error event"
        else:
            self.ended = True

    def on_message_complete(self) -> None:
        self.finish("" if self.status < 400 else f"{self.status} {self.body[:200]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self.finish("connection lost")

    def finish(self, error: str) -> None:
        done, self.done = self.done, None
        if done is None:
            return
        if not self.content:
            self.tally.failed_before_content.append(error or "no content")
        elif error or self.error or not self.ended:
            self.tally.cut_after_content += 1
        else:
            self.tally.answered += 1
            self.tally.total.append(perf_counter() - self.begun)
        if not done.done():
            done.set_result(None)


async def connect(port: int, tally: Tally) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(tally), "127.0.0.1", port)
    return connection


async def closed_loop(port: int, requests: list[bytes], connections: int, seconds: float) -> Tally:
    """Each connection sends its next request when the last is answered, for `seconds`."""
    tally = Tally()
    until = perf_counter() + seconds

    async def one(index: int) -> None:
        connection = await connect(port, tally)
        at = index
        while perf_counter() < until:
            if not connection.open:
                connection = await connect(port, tally)
            await connection.ask(requests[at % len(requests)])
            at += connections
        connection.transport.close()

    await asyncio.gather(*(one(index) for index in range(connections)))
    return tally


async def open_loop(port: int, requests: list[bytes], rate: float, seconds: float, seed: int = 1) -> Tally:
    """Poisson arrivals at `rate` a second; a slow balancer cannot slow the load down."""
    tally = Tally()
    dice = random.Random(seed)
    idle: list[Connection] = []
    running: set[asyncio.Task[None]] = set()

    async def one(data: bytes) -> None:
        connection = idle.pop() if idle else None
        if connection is None or not connection.open:
            connection = await connect(port, tally)
        await connection.ask(data)
        if connection.open:
            idle.append(connection)

    begun = due = perf_counter()
    while due < begun + seconds:
        due += dice.expovariate(rate)
        await asyncio.sleep(max(0.0, due - perf_counter()))
        task = asyncio.ensure_future(one(dice.choice(requests)))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for connection in idle:
        connection.transport.close()
    return tally
