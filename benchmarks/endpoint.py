"""A lean endpoint: as little work as Python allows, so that what is measured is the balancer.

`python -m benchmarks.endpoint PORT…` serves each port. A request with `"stream": true` gets `max_tokens` chunks, one
every `BENCH_CHUNK_MS`; any other gets one small answer: of Anthropic's API at `/v1/messages`, else a chat completion.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import NamedTuple

import httptools
import uvloop

CHUNK_SECONDS = float(os.environ.get("BENCH_CHUNK_MS", "50")) / 1000
TOKENS = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d+)')
STREAMS = re.compile(rb'"stream":\s*true')
BODY = (
    b'{"id":"cmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"word " * 100 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":256,"completion_tokens":100,"total_tokens":356}}'
)
MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"bench","content":[{"type":"text","text":"'
    + b"word " * 100
    + b'"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":256,"output_tokens":100}}'
)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def event(data: bytes, name: bytes = b"") -> bytes:
    line = (b"event: %b\n" % name if name else b"") + b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


class Speech(NamedTuple):
    """What is said in one API: a whole answer, and the beginning, one piece and the end of a stream."""

    whole: bytes
    begin: bytes
    word: bytes
    end: bytes


CHAT = Speech(
    whole(BODY),
    STREAM + event(b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant"}}]}'),
    event(b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}'),
    event(b"[DONE]") + b"0\r\n\r\n",
)
MESSAGES = Speech(
    whole(MESSAGE),
    STREAM
    + event(
        b'{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"bench",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":256,"output_tokens":1}}}',
        b"message_start",
    )
    + event(
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}', b"content_block_start"
    ),
    event(
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}', b"content_block_delta"
    ),
    event(b'{"type":"content_block_stop","index":0}', b"content_block_stop")
    + event(
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":50}}',
        b"message_delta",
    )
    + event(b'{"type":"message_stop"}', b"message_stop")
    + b"0\r\n\r\n",
)


class Serve(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.body = b""
        self.speech = CHAT
        self.timer: asyncio.TimerHandle | None = None
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def on_url(self, url: bytes) -> None:
        self.speech = MESSAGES if url.endswith(b"/messages") else CHAT

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        if not STREAMS.search(body):
            self.transport.write(self.speech.whole)
            return
        found = TOKENS.search(body)
        self.left = int(found[1]) if found else 64
        self.transport.write(self.speech.begin)
        self.timer = asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.word)

    def word(self) -> None:
        self.left -= 1
        if self.left:
            self.transport.write(self.speech.word)
            self.timer = asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.word)
        else:
            self.transport.write(self.speech.word + self.speech.end)


async def main(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Serve, "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main([int(port) for port in sys.argv[1:]]))
