"""The routes that make text: chat, completions, responses; and the list of models."""

from __future__ import annotations

import time
from uuid import uuid4

from aiohttp import web

from . import requests
from .delivery import stream
from .requests import Ask
from .responses_shape import ResponsesShape
from .shapes import ChatShape, CompletionShape, Shape, encode
from .simulated import ENGINE, FAULT, PREPARED, Prepared, SimulatedEngine


async def chat(request: web.Request) -> web.StreamResponse:
    ask = requests.chat(await request.read())
    engine, prepared = _prepare(request, ask)
    shape = ChatShape(
        _id("chatcmpl-", request),
        int(time.time()),
        ask.model,
        prepared.answer.text,
        prepared.reason,
        ask.include_usage,
    )
    return await _answer(request, engine, ask, prepared, shape)


async def completions(request: web.Request) -> web.StreamResponse:
    ask = requests.completion(await request.read())
    engine, prepared = _prepare(request, ask)
    shape = CompletionShape(
        _id("cmpl-", request),
        int(time.time()),
        ask.model,
        prepared.answer.text,
        prepared.reason,
        ask.include_usage,
    )
    return await _answer(request, engine, ask, prepared, shape)


async def responses(request: web.Request) -> web.StreamResponse:
    asked, ask = requests.responses(await request.read())
    engine, prepared = _prepare(request, ask)
    cut_short = prepared.reason == "length"
    shape = ResponsesShape(_id("resp_", request), int(time.time()), asked, prepared.answer.text, cut_short)
    return await _answer(request, engine, ask, prepared, shape)


async def models(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    return _json({"object": "list", "data": [_card(engine, name) for name in engine.models]})


async def model(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    name = request.match_info["model"]
    engine.check_model(name)
    return _json(_card(engine, name))


def _prepare(request: web.Request, ask: Ask) -> tuple[SimulatedEngine, Prepared]:
    engine = request.app[ENGINE]
    prepared = request[PREPARED] = engine.prepare(ask)
    return engine, prepared


async def _answer(
    request: web.Request, engine: SimulatedEngine, ask: Ask, prepared: Prepared, shape: Shape
) -> web.StreamResponse:
    await engine.travel()
    sequence, answer, reason = prepared
    if ask.stream:
        struck = request.get(FAULT)
        fault = struck.fault if struck is not None else None
        return await stream(request, engine.pacer, shape, answer, sequence, reason, fault)
    await engine.complete(prepared)
    return web.Response(body=shape.whole(sequence), content_type="application/json")


def _id(prefix: str, request: web.Request) -> str:
    """As vLLM does it: the caller's request id, if it has one."""
    return prefix + (request.headers.get("X-Request-Id") or uuid4().hex)


def _card(engine: SimulatedEngine, name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "vllm",
        "root": name,
        "parent": None,
        "max_model_len": engine.profile.longest,
    }


def _json(data: object) -> web.Response:
    return web.Response(body=encode(data), content_type="application/json")
