"""Real sockets for tests: endpoints that say what they are told to, byte by byte, and raw clients.

What a test sends to a model holds `say.PROMPT`, and what it takes for a credential holds `say.KEY`: neither may turn
up in a log, a metric or an error of the balancer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import aiohttp
import hypothesis
import pytest

# How long an example takes depends on what else the machine does; a law holds or it does not.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

PATIENCE = 15.0
"""Seconds that a test waits for what should come at once; only a failing test waits so long."""


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """uvloop, as in production, for everything that has sockets; asyncio's own loop for the rest."""
    folder = item.path.parent.name
    if folder in ("net", "e2e"):
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


# ---- answers and requests as bytes


def header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """The value of a header that must not come twice."""
    found = [value for key, value in headers if key == name]
    assert len(found) < 2, f"{name} comes {len(found)} times"
    return found[0] if found else None


class Head(NamedTuple):
    """The first line of a message and its headers, names in lower case."""

    line: str
    headers: list[tuple[str, str]]

    @classmethod
    def of(cls, data: bytes) -> Head:
        line, *rest = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = [each.partition(":") for each in rest]
        return cls(line, [(name.lower(), value.strip()) for name, _, value in pairs])

    def header(self, name: str) -> str | None:
        return header(self.headers, name)

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])


class Reply(NamedTuple):
    """An answer as a client got it. `whole`: its end was told from a cut."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        return header(self.headers, name)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        return (self.header("content-type") or "").startswith("text/event-stream")

    @property
    def error(self) -> dict[str, Any]:
        """The error of a JSON answer or, in a stream, of its last event; it must have OpenAI's shape."""
        value = json.loads(self.events[-1]) if self.streamed else self.json()
        error = value["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        assert isinstance(error["message"], str)
        assert error["message"]
        return dict(error)

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream, comments aside; every event must be complete."""
        assert self.body.endswith(b"\n\n"), self.body[-80:]
        events = self.body.decode().removesuffix("\n\n").split("\n\n")
        return [event.split("data: ", 1)[1] for event in events if event and not event.startswith(":")]

    @property
    def text(self) -> str:
        """What the model has said, of a stream or a whole chat completion."""
        if not self.streamed:
            return str(self.json()["choices"][0]["message"]["content"])
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk.get("choices")]
        return "".join(delta.get("content") or "" for delta in deltas)


class Client:
    """A raw HTTP/1.1 client on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes, *, apart: bool = False) -> None:
        """`apart`: one byte at a time, each a read of its own for the server."""
        if not apart:
            self.writer.write(data)
            await self.writer.drain()
            return
        for at in range(len(data)):
            self.writer.write(data[at : at + 1])
            await self.turn()

    @staticmethod
    async def turn() -> None:
        """Let everybody read what was sent: a few turns of the loop, each of which polls its sockets."""
        for _ in range(3):
            await asyncio.sleep(0)

    @staticmethod
    def request(
        target: str = "/v1/chat/completions",
        body: bytes | Mapping[str, Any] | None = None,
        headers: Iterable[tuple[str, str]] = (),
        method: str | None = None,
        version: str = "HTTP/1.1",
    ) -> bytes:
        """A request as bytes. A dict becomes a JSON body; None has none."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method or ('GET' if body is None else 'POST')} {target} {version}", "host: balancer"]
        if isinstance(body, Mapping):
            lines.append("content-type: application/json")
        if body is not None:
            lines.append(f"content-length: {len(data)}")
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + data

    @staticmethod
    def chat_body(**fields: Any) -> dict[str, Any]:
        return {"model": "chat", "messages": [{"role": "user", "content": Say.PROMPT}], **fields}

    async def post(self, target: str, body: Any, headers: Iterable[tuple[str, str]] = ()) -> Reply:
        await self.send(self.request(target, body, headers))
        return await self.reply()

    async def chat(self, headers: Iterable[tuple[str, str]] = (), **fields: Any) -> Reply:
        return await self.post("/v1/chat/completions", self.chat_body(**fields), headers)

    async def get(self, target: str) -> Reply:
        await self.send(self.request(target))
        return await self.reply()

    async def head(self) -> Head:
        async with asyncio.timeout(PATIENCE):
            return Head.of(await self.reader.readuntil(b"\r\n\r\n"))

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body, empty at its end."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            assert data.endswith(b"\r\n")
            return data[:-2]

    async def reply(self, method: str = "POST") -> Reply:
        return await self.rest(await self.head(), method)

    async def rest(self, head: Head, method: str = "POST") -> Reply:
        """The answer whose head was read."""
        length, coding = head.header("content-length"), head.header("transfer-encoding")
        assert not (length and coding)
        body, whole = b"", True
        try:
            if method == "HEAD":
                pass
            elif coding is not None:
                assert coding == "chunked"
                while piece := await self.chunk():
                    body += piece
            elif length is not None:
                async with asyncio.timeout(PATIENCE):
                    body = await self.reader.readexactly(int(length))
            else:
                async with asyncio.timeout(PATIENCE):
                    body = await self.reader.read()
        except asyncio.IncompleteReadError as error:
            body, whole = body + error.partial, False
        except ConnectionError:
            whole = False
        if head.status >= 400:
            assert Say.PROMPT.encode() not in body
            assert Say.KEY.encode() not in body
        return Reply(head.status, head.headers, body, whole)

    async def closed(self) -> bytes:
        """Wait until the server has closed the connection; what it said until then."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        reset(self.writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP RST."""
    held = writer.get_extra_info("socket")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
async def dial() -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """`await dial(server)`: a raw client's connection to whatever has a `port`."""
    clients: list[Client] = []

    async def open_one(server: Any, *, receive_buffer: int | None = None) -> Client:
        held = socket.socket()
        held.setblocking(False)
        if receive_buffer is not None:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(held, ("127.0.0.1", server.port))
        limit = 64 * 1024 if receive_buffer is None else receive_buffer
        client = Client(*await asyncio.open_connection(sock=held, limit=limit))
        clients.append(client)
        return client

    yield open_one
    for client in clients:
        client.writer.transport.abort()


# ---- endpoints


class Call:
    """One request that an endpoint got, and the connection to answer it on."""

    def __init__(self, head: Head, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.method, self.target, self.version = head.line.split(" ")
        self.headers = head.headers
        self.body = body
        self.reader = reader
        self.writer = writer
        self.left = asyncio.get_running_loop().create_future()

    def header(self, name: str) -> str | None:
        return header(self.headers, name)

    def json(self) -> Any:
        return json.loads(self.body)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def hang(self) -> None:
        """Say nothing until the peer has closed; `left` is done then."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        if not self.left.done():
            self.left.set_result(None)

    async def gone(self) -> None:
        """Wait until the peer has closed the connection that this request is on."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.left)


Behaviour = Callable[[Call], Awaitable[None]]


class Say:
    """What a scripted endpoint may do: bytes and events to compose, and behaviours made of them."""

    PROMPT = "zebra-prompt-text"
    KEY = "sk-quagga-key"
    RESET, CLOSE, HANG, PAUSE = "reset", "close", "hang", "pause"
    SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    END = b"0\r\n\r\n"
    DONE = b"data: [DONE]\n\n"

    @staticmethod
    def event(data: Mapping[str, Any]) -> bytes:
        return b"data: %b\n\n" % json.dumps(data).encode()

    @classmethod
    def delta(cls, finish: str | None = None, **delta: str) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return cls.event({"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})

    @classmethod
    def role(cls) -> bytes:
        return cls.delta(role="assistant", content="")

    @classmethod
    def word(cls, text: str) -> bytes:
        return cls.delta(content=text)

    @staticmethod
    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)

    @classmethod
    def chunks(cls, *pieces: bytes) -> bytes:
        return b"".join(map(cls.chunk, pieces))

    @staticmethod
    def message(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
        """A whole answer; `retry_after` becomes Retry-After."""
        named = {"content-type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in named.items())]
        return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body

    @classmethod
    def completion(cls, text: str = "hello") -> bytes:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return cls.message(body=json.dumps({**body, "usage": usage}).encode())

    @classmethod
    def error(cls, status: int, code: str | None = None, kind: str = "some_error", **headers: str) -> bytes:
        body = {"error": {"message": "no", "type": kind, "param": None, "code": code}}
        return cls.message(status, json.dumps(body).encode(), **headers)

    @staticmethod
    def steps(*things: bytes | str | asyncio.Event) -> Behaviour:
        """Write bytes, wait for an event, PAUSE so that the peer reads, and in the end perhaps RESET, CLOSE or HANG."""

        async def behave(call: Call) -> None:
            for thing in things:
                if isinstance(thing, bytes):
                    call.write(thing)
                    await call.writer.drain()
                elif isinstance(thing, asyncio.Event):
                    await thing.wait()
                elif thing == Say.PAUSE:
                    await asyncio.sleep(0.02)
                elif thing == Say.RESET:
                    await asyncio.sleep(0.02)  # let what was written leave: a reset throws away what has not
                    reset(call.writer)
                elif thing == Say.CLOSE:
                    call.writer.close()
                else:
                    await call.hang()

        return behave

    @classmethod
    def well(cls, text: str = "hello") -> Behaviour:
        """A good chat answer, streamed when that is asked for."""

        async def behave(call: Call) -> None:
            if json.loads(call.body).get("stream"):
                pieces = [cls.role(), cls.word(text), cls.delta("stop"), cls.DONE]
                call.write(cls.SSE + cls.chunks(*pieces) + cls.END)
            else:
                call.write(cls.completion(text))

        return behave


class Endpoint:
    """A server that does with each request what the next of `plan` says, and `then` when the plan is at its end."""

    def __init__(self, then: Behaviour) -> None:
        self.plan: deque[Behaviour] = deque()
        self.then = then
        self.calls: list[Call] = []
        self.called = asyncio.Event()
        self.pages: dict[str, bytes] = {"/health": Say.message(), "/metrics": Say.message(404)}
        self.connections = 0
        self.errors: list[Exception] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def call(self) -> Call:
        """The next request, once it is here."""
        async with asyncio.timeout(PATIENCE):
            await self.called.wait()
        self.called.clear()
        return self.calls[-1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call: Call | None = None
        try:
            while not writer.is_closing():
                head = Head.of(await reader.readuntil(b"\r\n\r\n"))
                body = await reader.readexactly(int(head.header("content-length") or 0))
                call = Call(head, body, reader, writer)
                if call.method == "GET" and call.target in self.pages:
                    call.write(self.pages[call.target])
                    continue
                self.calls.append(call)
                self.called.set()
                await (self.plan.popleft() if self.plan else self.then)(call)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            writer.close()
            if call is not None and not call.left.done():
                call.left.set_result(None)

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.errors, self.errors


@pytest.fixture
def say() -> type[Say]:
    return Say


@pytest.fixture
async def endpoint() -> AsyncIterator[Callable[..., Awaitable[Endpoint]]]:
    """`await endpoint(behaviour)`: a scripted endpoint; it answers well by default."""
    started: list[Endpoint] = []

    async def start(then: Behaviour | None = None) -> Endpoint:
        one = Endpoint(then or Say.well())
        await one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
def refusing() -> Iterable[str]:
    """The URL of a port that refuses connections and is nobody else's: bound, and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of servers on loopback."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session
