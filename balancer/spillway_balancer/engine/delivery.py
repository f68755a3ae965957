"""Getting an answer to the client, and all the ways in which a fault keeps it from arriving.

Tokens are written straight to the transport, framed as HTTP chunks by hand: no task, no lock and no await a
token, so that one process can carry hundreds of streams. aiohttp writes the headers before and the last chunk
after.
"""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web

from .faults import Cut, ErrorEvent, Fault, Malformed, Reset, Stall
from .pacer import Pacer
from .shapes import Shape
from .sockets import hang, reset
from .text import Answer
from .timing import Sequence


class Whole:
    """Waits for all of an answer."""

    streams = False

    def __init__(self, reason: str = "stop") -> None:
        self.reason = reason
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def progress(self, produced: int) -> None:
        """Of no interest."""

    def finished(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class TokenStream:
    """Writes each token as it is made. `halt`: after so many content chunks stop, and `news` is told."""

    streams = True

    def __init__(
        self, request: web.Request, shape: Shape, answer: Answer, sequence: Sequence, reason: str, halt: int | None
    ) -> None:
        self.reason = reason
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.halted = False
        self._request = request
        self._framed = request.version >= HttpVersion11
        self._shape = shape
        self._answer = answer
        self._sequence = sequence
        self._halt = halt
        self._opened = False
        self._sent = 0
        self._complete = False

    def progress(self, produced: int) -> None:
        if not self.halted:
            self._advance(produced)

    def finished(self) -> None:
        self._complete = True
        if not self.halted:
            self._advance(self._answer.tokens)

    def resume(self, produced: int) -> None:
        """Go on after a halt, with what was held back first."""
        self.halted = False
        self._halt = None
        self.news = asyncio.get_running_loop().create_future()
        self._advance(self._answer.tokens if self._complete else produced)

    def next_event(self) -> bytes:
        """The event that the halt has kept back."""
        return self._shape.piece(self._answer.piece(self._sent, self._sent + 1) or "and")

    def write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing() or not data:
            return
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)

    def _advance(self, produced: int) -> None:
        until = produced if self._halt is None else min(produced, self._halt)
        parts = []
        if not self._opened and produced:
            self._opened = True
            parts.append(self._shape.opening())
        parts.extend(self._shape.piece(self._answer.piece(i, i + 1)) for i in range(self._sent, until))
        self._sent = max(until, self._sent)
        if self._opened and until == self._halt:
            self.halted = True
        elif self._complete:
            parts.append(self._shape.closing(self._sequence))
        self.write(b"".join(parts))
        if (self.halted or self._complete) and not self.news.done():
            self.news.set_result(None)


async def stream(
    request: web.Request,
    pacer: Pacer,
    shape: Shape,
    answer: Answer,
    sequence: Sequence,
    reason: str,
    fault: Fault | None,
) -> web.StreamResponse:
    """Answer with server-sent events. A client that leaves cancels the handler, and so the sequence."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    listener = TokenStream(request, shape, answer, sequence, reason, _halt(fault))
    try:
        pacer.submit(sequence, listener)
        if isinstance(fault, Reset | Stall) and fault.stage == "after-headers":
            if isinstance(fault, Reset):
                reset(request.transport)
                return response
            listener.halted = True
            await hang(fault.seconds)
            listener.write(shape.greeting())
            listener.resume(pacer.timing.produced(sequence))
        else:
            listener.write(shape.greeting())
        await listener.news
        if listener.halted:
            assert fault is not None
            if not await _act(request, listener, shape, fault):
                return response
            listener.resume(pacer.timing.produced(sequence))
            await listener.news
    finally:
        pacer.cancel(sequence)
    return response


def _halt(fault: Fault | None) -> int | None:
    """After how many content chunks the fault strikes, if it does so inside a stream."""
    if isinstance(fault, Reset | Stall):
        return {"after-role-chunk": 0, "mid-stream": fault.chunks}.get(fault.stage)
    return fault.chunks if isinstance(fault, Cut | ErrorEvent | Malformed) else None


async def _act(request: web.Request, listener: TokenStream, shape: Shape, fault: Fault) -> bool:
    """Do what the fault says in the middle of a stream; whether the stream goes on after it."""
    if isinstance(fault, Stall):
        await hang(fault.seconds)
        return True
    if isinstance(fault, Malformed):
        listener.write(b'data: {"choices":[{"index":0,"delta":{"content":\n\n')
        return True
    if isinstance(fault, Reset):
        reset(request.transport)
    elif isinstance(fault, ErrorEvent):
        listener.write(shape.error(fault.message, fault.code))
    elif isinstance(fault, Cut) and fault.how != "no-done":
        if fault.how == "mid-event":
            kept = listener.next_event()
            listener.write(kept[: len(kept) // 2])
        if request.transport is not None:
            request.transport.close()
    return False


async def spoil(request: web.Request, answer: web.Response, fault: Fault) -> web.StreamResponse:
    """An answer that is not streamed, as the fault lets it through."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    half = body[: len(body) // 2]
    if isinstance(fault, Malformed):
        return web.Response(status=answer.status, body=half, content_type="application/json")
    if isinstance(fault, ErrorEvent):
        error = web.json_response({"error": {"message": fault.message, "code": fault.code}}, status=fault.code)
        return error
    if not isinstance(fault, Reset | Stall | Cut):
        return answer
    sent = b"" if not isinstance(fault, Cut) and fault.stage == "after-headers" else half
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(sent)
    if isinstance(fault, Reset):
        reset(request.transport)
    elif isinstance(fault, Stall):
        await hang(fault.seconds)
        await response.write(body[len(sent) :])
    elif request.transport is not None:
        request.transport.close()
    return response
