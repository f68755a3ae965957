"""The routes beside the API: health, version, metrics as vLLM has them, and the switches under /sim."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from . import faults, metrics
from .faults import Scope
from .requests import invalid
from .shapes import encode
from .simulated import ENGINE

VERSION = "0.11.0+simulated"  # of the vLLM whose API and metrics this is


class Hooks(NamedTuple):
    """What the server wants to be told."""

    faults_changed: Callable[[], Awaitable[None]]


HOOKS: web.AppKey[Hooks] = web.AppKey("hooks", Hooks)


async def health(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    fault = engine.switches.strike(Scope.HEALTH, request.path, engine.loop.time())
    return web.Response(status=fault.status if isinstance(fault, faults.Health) else 200)


async def version(request: web.Request) -> web.Response:
    return _json({"version": VERSION})


async def page(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    engine.pacer.catch_up()
    fault = engine.switches.strike(Scope.METRICS, request.path, engine.loop.time())
    absurd = None
    body: str | None = None
    if isinstance(fault, faults.Metrics):
        if fault.page == "missing":
            return _json({"detail": "Not Found"}, 404)
        if fault.page == "absurd":
            absurd = fault.value
        else:
            body = "" if fault.page == "empty" else "<html>\x00 vllm:num_requests_running{ 1 2 3\n}} = ,\n"
    if body is None:
        body = metrics.page(engine.pacer.timing, engine.pacer.observed, engine.models[0], absurd)
    return web.Response(body=body.encode(), headers={"content-type": metrics.CONTENT_TYPE})


async def show_faults(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    return _json(engine.switches.shown(engine.loop.time()))


async def set_faults(request: web.Request) -> web.Response:
    """PUT: these faults, and no others."""
    engine = request.app[ENGINE]
    try:
        found = faults.parse(await request.read())
    except ValueError as error:
        raise invalid(str(error)) from None
    engine.switches.set(found, engine.loop.time())
    await request.app[HOOKS].faults_changed()
    return await show_faults(request)


async def clear_faults(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    engine.switches.set((), engine.loop.time())
    await request.app[HOOKS].faults_changed()
    return web.Response(status=204)


async def reset(request: web.Request) -> web.Response:
    """POST: empty caches and counters; 409 while a request is under way."""
    try:
        request.app[ENGINE].reset()
    except RuntimeError as error:
        return _json({"error": {"message": str(error), "type": "Conflict", "param": None, "code": 409}}, 409)
    return web.Response(status=204)


async def state(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    engine.pacer.catch_up()
    return _json(engine.state())


def _json(data: object, status: int = 200) -> web.Response:
    return web.Response(body=encode(data), status=status, content_type="application/json")
