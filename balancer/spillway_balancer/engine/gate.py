"""What every request to the simulated engine passes: the key, the faults, the counts, and errors in their
shape.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from .delivery import spoil
from .faults import Reset, Scope, Stall, Status
from .requests import Refusal
from .shapes import encode
from .simulated import ENGINE, FAULT, PREPARED, SimulatedEngine, Struck
from .sockets import hang, reset

log = logging.getLogger("spillway.engine")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Policy(NamedTuple):
    api_keys: frozenset[str]
    log_requests: bool


POLICY: web.AppKey[Policy] = web.AppKey("policy", Policy)


async def sign(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Say on every answer which engine it is from."""
    assert isinstance(request, web.Request)
    response.headers["x-spillway-engine"] = request.app[ENGINE].name


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    engine = request.app[ENGINE]
    if request.path.startswith("/sim/"):
        return await _refusals_told(request, handler)
    if not request.path.startswith("/v1/"):
        return await _admitted(request, handler, engine)
    engine.enter()
    began = engine.loop.time()
    status = "gone"
    try:
        response = await _admitted(request, handler, engine)
        status = str(response.status)
    finally:
        resource = request.match_info.route.resource
        engine.leave(resource.canonical if resource is not None else "other", status)
        if request.app[POLICY].log_requests:
            _tell(request, engine, status, engine.loop.time() - began)
    return response


async def _admitted(request: web.Request, handler: Handler, engine: SimulatedEngine) -> web.StreamResponse:
    if engine.refusing:
        return _gone(request)
    if not _knows_the_key(request):
        return web.Response(status=401, body=encode({"error": "Unauthorized"}), content_type="application/json")
    fault = engine.switches.strike(Scope.REQUEST, request.path, engine.loop.time())
    if fault is None:
        return await _refusals_told(request, handler)
    if isinstance(fault, Reset | Stall) and fault.stage == "before-headers":
        await _read(request)
        if isinstance(fault, Reset):
            return _gone(request)
        await hang(fault.seconds)
        return await _refusals_told(request, handler)
    if isinstance(fault, Status):
        await _read(request)
        return _status(fault)
    request[FAULT] = Struck(fault)
    response = await _refusals_told(request, handler)
    return await spoil(request, response, fault) if isinstance(response, web.Response) else response


async def _refusals_told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as vLLM, and the framework below it, put them."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return web.Response(status=refusal.status, body=refusal.body, content_type="application/json")
    except web.HTTPException as error:
        body = encode({"detail": error.reason})
        return web.Response(status=error.status, body=body, content_type="application/json")


def _knows_the_key(request: web.Request) -> bool:
    """As vLLM, which guards the API and neither health nor metrics."""
    keys = request.app[POLICY].api_keys
    if not keys or not request.path.startswith("/v1/"):
        return True
    given = request.headers.get("Authorization", "").encode("utf-8", "replace")
    return any(hmac.compare_digest(given, f"Bearer {key}".encode()) for key in keys)


async def _read(request: web.Request) -> None:
    """Let the client finish sending: a reset during its upload would be another fault."""
    if not request.content_type.startswith("multipart/"):
        await request.read()


def _gone(request: web.Request) -> web.Response:
    reset(request.transport)
    return web.Response(status=500)  # goes nowhere: the connection is closed


def _status(fault: Status) -> web.Response:
    body = fault.body
    if body is None:
        error = {"message": "simulated fault", "type": "simulated_fault", "param": None, "code": fault.status}
        body = {"error": error}
    if isinstance(body, str):
        return web.Response(status=fault.status, text=body, headers=fault.headers)
    headers = {"content-type": "application/json"} | fault.headers
    return web.Response(status=fault.status, body=encode(body), headers=headers)


def _tell(request: web.Request, engine: SimulatedEngine, status: str, seconds: float) -> None:
    """One line a request, and from which address; never what was asked or answered."""
    tokens = ""
    if prepared := request.get(PREPARED):
        sequence = prepared.sequence
        tokens = f" prompt={sequence.prompt_tokens} cached={sequence.cached_tokens} output={sequence.output_tokens}"
    said = (engine.name, request.method, request.path, status, seconds, request.remote, tokens)
    log.info("%s %s %s %s %.3fs from %s%s", *said)
