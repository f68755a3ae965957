"""Getting an answer to the client, at its pace, and all the ways in which a fault keeps it from arriving."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web

from ..engine.sockets import hang, reset
from .faults import Broken, Cut, ErrorEvent, Fault, Stall
from .frames import Frame, Shape
from .refusals import MESSAGES, Refusal
from .state import Pace

PING_SECONDS = 0.2
"""Between signs of life of a stream that stalls."""


class Waits(NamedTuple):
    """How long an answer takes that has so many tokens."""

    pace: Pace
    output: int


@dataclass(slots=True)
class Progress:
    """How far an answer came: tokens made, and whether its usage went out."""

    made: int = 0
    told: bool = False


async def stream(
    request: web.Request, shape: Shape, headers: dict[str, str], pace: Pace, fault: Fault | None, progress: Progress
) -> web.StreamResponse:
    """Answer with a stream. A client that leaves cancels this; `progress` says how far it came."""
    response = web.StreamResponse(headers=headers | {"content-type": shape.media})
    if shape.media.startswith("text/event-stream"):
        response.headers["cache-control"] = "no-cache"
    frames = shape.stream()
    strikes = _strikes(frames, fault)
    await response.prepare(request)
    waited = False
    for at, frame in enumerate(frames):
        if at == strikes and fault is not None and not await _act(request, response, shape, fault, frame):
            return response
        if frame.content and not waited:
            waited = True
            if pace.first:
                await asyncio.sleep(pace.first)
        if frame.tokens and pace.token:
            await asyncio.sleep(frame.tokens * pace.token)
        progress.made += frame.tokens
        await response.write(frame.data)
        progress.told = progress.told or frame.told
    return response


def _strikes(frames: list[Frame], fault: Fault | None) -> int | None:
    """Before which frame the fault strikes, if it does so in a stream."""
    if not isinstance(fault, ErrorEvent | Stall | Cut | Broken):
        return None
    content = [at for at, frame in enumerate(frames) if frame.content]
    if fault.chunks < len(content):
        return content[fault.chunks]
    return content[-1] + 1 if content else len(frames) - 1


async def _act(
    request: web.Request, response: web.StreamResponse, shape: Shape, fault: Fault, next_frame: Frame
) -> bool:
    """Do what the fault says in the middle of a stream; whether the stream goes on after it."""
    if isinstance(fault, Stall):
        await _stall(response, shape, fault)
        return True
    if isinstance(fault, Broken):
        await response.write(shape.broken(next_frame.data))
    elif isinstance(fault, ErrorEvent):
        await response.write(shape.error(Refusal(fault.error, MESSAGES[fault.error])))
    elif isinstance(fault, Cut) and fault.how != "no-end":
        if fault.how == "mid-frame":
            await response.write(next_frame.data[: len(next_frame.data) // 2])
        if request.transport is not None:
            request.transport.close()
    return False


async def _stall(response: web.StreamResponse, shape: Shape, fault: Stall) -> None:
    if not fault.pings:
        await hang(fault.seconds)
        return
    left = fault.seconds if fault.seconds is not None else 10**9
    while left > 0:
        if ping := shape.ping():
            await response.write(ping)
        await asyncio.sleep(min(PING_SECONDS, left))
        left -= PING_SECONDS


async def whole(
    request: web.Request, shape: Shape, headers: dict[str, str], waits: Waits, fault: Fault | None, progress: Progress
) -> web.StreamResponse:
    """Answer at once. Who leaves while it is made pays for what there is of it."""
    pace, output = waits
    seconds = pace.first + pace.token * output
    if seconds:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            past = loop.time() - began - pace.first
            progress.made = min(output, int(past / pace.token)) if pace.token and past > 0 else 0
            raise
    if isinstance(fault, Stall):
        await hang(fault.seconds)
    progress.made = output
    body = shape.whole()
    half = body[: len(body) // 2]
    if isinstance(fault, Broken):
        return web.Response(body=half, headers=headers, content_type="application/json")
    if isinstance(fault, Cut):
        response = web.StreamResponse(headers=headers | {"content-type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(half)
        if request.transport is not None:
            request.transport.close()
        return response
    progress.told = True
    return web.Response(body=body, headers=headers, content_type="application/json")


def gone(request: web.Request) -> web.Response:
    """A connection that is reset; what comes back goes nowhere."""
    reset(request.transport)
    return web.Response(status=500)
