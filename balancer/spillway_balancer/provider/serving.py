"""The handlers of a provider: who asks, what for, what goes wrong, the answer, and the entry in the books."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from ..engine import text
from . import chat_asks, converse_asks, delivery, faults, messages_asks
from .asked import Asked, prompt
from .books import plain
from .chat_shape import ChatShape
from .converse_shape import ConverseShape
from .counting import Counted
from .frames import Serving
from .keys import holder
from .messages_shape import MessagesShape
from .refusals import MESSAGES, Answer, Refusal
from .replies import raw
from .sigv4 import Signed
from .state import ProviderState, Served

PROVIDER: web.AppKey[ProviderState] = web.AppKey("provider", ProviderState)


class Caller(NamedTuple):
    """A request whose key is known."""

    key: str
    id: str
    body: bytes


_CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


@web.middleware
async def gate(request: web.Request, handler: Any) -> web.StreamResponse:
    """Everything but the routes of ours: the key first, then errors in the family's form."""
    state = request.app[PROVIDER]
    if request.path == "/books" or request.path == "/health" or request.path.startswith("/sim/"):
        response: web.StreamResponse = await handler(request)
        return response
    id = state.next_id()
    try:
        body = await _read(request)
        signed = Signed(
            request.method, request.rel_url.raw_path, request.rel_url.raw_query_string, _named(request), body
        )
        key = holder(state.family, state.settings.keys, signed.headers, signed, time.time())
        request[_CALLER] = Caller(key, id, body)
        response = await handler(request)
        return response
    except Refusal as refusal:
        return _refused(request, refusal, id)
    except web.HTTPException as error:
        said = f"Invalid URL ({request.method} {request.path})"
        return _refused(request, Refusal("model" if error.status == 404 else "invalid", said), id)


async def chat(request: web.Request) -> web.StreamResponse:
    state, caller = _caller(request)
    asked = chat_asks.read(caller.body, state.family.chat)
    return await _answer(request, asked, lambda serving: ChatShape(state.family, serving))


async def messages(request: web.Request) -> web.StreamResponse:
    _, caller = _caller(request)
    asked = messages_asks.read(caller.body)
    return await _answer(request, asked, lambda serving: MessagesShape(serving, messages_asks.hides(caller.body)))


async def count_tokens(request: web.Request) -> web.StreamResponse:
    state, caller = _caller(request)
    asked = messages_asks.read_for_count(caller.body)
    state.check(asked.model)
    return _json({"input_tokens": prompt(asked).tokens}, headers=_headers(request))


async def converse(request: web.Request) -> web.StreamResponse:
    _, caller = _caller(request)
    stream = request.path.endswith("-stream")
    asked = converse_asks.read(caller.body, request.match_info["model"], stream)
    return await _answer(request, asked, ConverseShape)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """Charged for its input alone."""
    state, caller = _caller(request)
    try:
        values = raw(caller.body)
        given, model = values["input"], str(values["model"])
    except (ValueError, KeyError, TypeError):
        raise Refusal("invalid", "Missing required parameter: 'input'.", param="input") from None
    state.check(model)
    texts = [str(each).encode("utf-8", "replace") for each in (given if isinstance(given, list) else [given])]
    used = sum(text.tokens_in(each) for each in texts)
    state.meters[caller.key].enter(used, _now())
    state.books.bill(caller.key, model, Counted(used), told=True)
    data = [{"object": "embedding", "index": at, "embedding": text.vector(each, 64)} for at, each in enumerate(texts)]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return _json({"object": "list", "data": data, "model": model, "usage": usage}, headers=_headers(request))


async def models(request: web.Request) -> web.StreamResponse:
    state = request.app[PROVIDER]
    names = state.settings.models or tuple(name for name, _ in state.settings.prices)
    if state.family.api == "messages":
        made = "2025-01-01T00:00:00Z"
        cards = [{"type": "model", "id": name, "display_name": name, "created_at": made} for name in names]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return _json({"data": cards, "has_more": False} | ends, headers=_headers(request))
    data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for name in names]
    return _json({"object": "list", "data": data}, headers=_headers(request))


# ---- routes of ours -----------------------------------------------------------------------------------------


async def health(request: web.Request) -> web.Response:
    return web.Response()


async def books(request: web.Request) -> web.Response:
    state = request.app[PROVIDER]
    prices = {name: [plain(each) for each in price] for name, price in state.settings.prices}
    return _json({"type": state.family.type} | state.books.shown() | {"prices": prices})


async def reset(request: web.Request) -> web.Response:
    """POST: books and caches as at the start."""
    request.app[PROVIDER].clear()
    return web.Response(status=204)


async def show_faults(request: web.Request) -> web.Response:
    return _json(request.app[PROVIDER].shown_faults(_now()))


async def set_faults(request: web.Request) -> web.Response:
    """PUT: these faults, and no others."""
    try:
        found = faults.parse(await request.read())
    except ValueError as error:
        return _json({"error": {"message": str(error)}}, 400)
    request.app[PROVIDER].set_faults(found, _now())
    return await show_faults(request)


async def clear_faults(request: web.Request) -> web.Response:
    request.app[PROVIDER].set_faults((), _now())
    return web.Response(status=204)


# ---- the answer ---------------------------------------------------------------------------------------------


async def _answer(request: web.Request, asked: Asked, shape_of: Any) -> web.StreamResponse:
    state, caller = _caller(request)
    state.check(asked.model)
    fault = state.strike(caller.key, asked.model, _now())
    if isinstance(fault, faults.Slow):
        await asyncio.sleep(fault.seconds)
    elif isinstance(fault, faults.Reset):
        state.books.refuse(caller.key)
        return delivery.gone(request)
    elif isinstance(fault, faults.Error):
        said = fault.message or MESSAGES[fault.error]
        raise Refusal(fault.error, said, retry_after=fault.retry_after)
    elif isinstance(fault, faults.ErrorEvent) and not asked.stream:
        raise Refusal(fault.error, MESSAGES[fault.error])
    served = state.prepare(caller.key, asked, _now())
    shape = shape_of(_serving(caller, served))
    progress = delivery.Progress()
    headers = _headers(request)
    pace = state.settings.pace
    try:
        if asked.stream:
            return await delivery.stream(request, shape, headers, pace, fault, progress)
        waits = delivery.Waits(pace, served.reply.output)
        return await delivery.whole(request, shape, headers, waits, fault, progress)
    except ConnectionError:
        return web.Response(status=499)  # the client has gone, and nobody reads this
    finally:
        state.settle(served, progress.made, progress.told, _now())


def _serving(caller: Caller, served: Served) -> Serving:
    asked = served.asked
    return Serving(caller.id, int(time.time()), asked.model, served.reply, served.counted, asked.tell_usage)


def _caller(request: web.Request) -> tuple[ProviderState, Caller]:
    return request.app[PROVIDER], request[_CALLER]


def _headers(request: web.Request) -> dict[str, str]:
    """What every answer says: who it is from, which request it was, what is left of the limits."""
    state, caller = _caller(request)
    family = state.family
    headers = dict(family.headers) | {family.request_id: caller.id}
    if family.request_id != "x-request-id" and family.api == "chat":
        headers["x-request-id"] = caller.id
    if family.type == "openai":
        headers["openai-processing-ms"] = "1"
    return headers | family.quotas(state.meters[caller.key], _now(), time.time())


def _refused(request: web.Request, refusal: Refusal, id: str) -> web.Response:
    state = request.app[PROVIDER]
    answer: Answer = state.family.refuse(refusal, id)
    headers = dict(state.family.headers) | {state.family.request_id: id} | answer.headers
    if (caller := request.get(_CALLER)) is not None:
        state.books.refuse(caller.key)
        headers |= state.family.quotas(state.meters[caller.key], _now(), time.time())
    return web.Response(status=answer.status, body=answer.body, headers=headers, content_type=answer.media)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal("too-large", MESSAGES["too-large"]) from None


def _named(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _json(data: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(data), status=status, headers=headers, content_type="application/json")
