"""What one writes in an afternoon: an aiohttp application that relays to a round of endpoints. The yardstick."""

from __future__ import annotations

import itertools
import sys

import aiohttp
import uvloop
from aiohttp import web


async def relay(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    url = next(request.app["urls"]) + request.path
    async with request.app["session"].post(url, data=body, headers={"content-type": "application/json"}) as answer:
        if answer.content_type != "text/event-stream":
            return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def application() -> web.Application:
    app = web.Application(client_max_size=32 << 20)
    app["urls"] = itertools.cycle(f"http://127.0.0.1:{port}" for port in sys.argv[2:])
    app["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    app.router.add_post("/v1/chat/completions", relay)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
