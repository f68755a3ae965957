"""A lean endpoint: as little work as Python allows, so that what is measured is the balancer.

`python -m benchmarks.endpoint PORT…` serves each port. A request with `"stream": true` gets `max_tokens` chunks, one
every `BENCH_CHUNK_MS`; any other gets one small completion.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys

import httptools
import uvloop

CHUNK_SECONDS = float(os.environ.get("BENCH_CHUNK_MS", "50")) / 1000
TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')
BODY = (
    b'{"id":"cmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"word " * 100 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":256,"completion_tokens":100,"total_tokens":356}}'
)
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(data: bytes) -> bytes:
    line = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


ROLE = event(b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant"}}]}')
WORD = event(b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}')
DONE = event(b"[DONE]") + b"0\r\n\r\n"


class Serve(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.body = b""
        self.timer: asyncio.TimerHandle | None = None
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        if b'"stream": true' not in body:
            self.transport.write(PLAIN)
            return
        found = TOKENS.search(body)
        self.left = int(found[1]) if found else 64
        self.transport.write(STREAM + ROLE)
        self.timer = asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.word)

    def word(self) -> None:
        self.left -= 1
        if self.left:
            self.transport.write(WORD)
            self.timer = asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.word)
        else:
            self.transport.write(WORD + DONE)


async def main(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Serve, "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main([int(port) for port in sys.argv[1:]]))
