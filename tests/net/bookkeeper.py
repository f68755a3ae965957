"""A small provider that keeps books: what it counts of each request, and what it would put on its bill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from aiohttp import web
from tests.net.chats import Chats

INPUT, CACHED, OUTPUT = "2.50", "0.25", "10.00"
PRICE = {"input": INPUT, "cachedInput": CACHED, "output": OUTPUT}
"""Of a million tokens."""
WORD = "word "


class Bookkeeper(Chats):
    """Chat completions of `model`, as long as a request allows. `fate(number)` of the request says how it goes:

    `""` well, `"429"` refused, `"500"` broken, `"cut"` cut in the middle, `"silent"` without a word of usage, `"slow"`
    after 30 ms.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fate: Callable[[int], str] = lambda _number: ""
        self.bill = Fraction(0)
        self.requests: list[dict[str, Any]] = []
        self.most = 1 << 30
        """Words of an answer, whatever a request allows."""
        self.gate = asyncio.Event()
        """Answers wait for it."""
        self.gate.set()

    async def stop(self) -> None:
        self.gate.set()
        await super().stop()

    def charge(self, prompt: int, cached: int, output: int) -> dict[str, Any]:
        """Put it on the bill; returns the usage that says so."""
        self.bill += (
            Fraction(INPUT) * (prompt - cached) + Fraction(CACHED) * cached + Fraction(OUTPUT) * output
        ) / 1_000_000
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        number = len(self.requests)
        self.requests.append(asked)
        fate = self.fate(number)
        await self.gate.wait()
        if fate == "slow":
            await asyncio.sleep(0.03)
        if fate in ("429", "500"):
            return web.json_response({"error": {"message": "no", "type": "x", "code": None}}, status=int(fate))
        prompt = sum(len(json.dumps(each)) for each in asked["messages"]) // 4
        output, cached = min(asked.get("max_tokens", 20), self.most), prompt // 3 if number % 2 else 0
        if not asked.get("stream"):
            usage = self.charge(prompt, cached, output)
            answer = {"id": "a", "object": "chat.completion", "model": asked["model"], "usage": usage}
            answer["choices"] = [
                {"index": 0, "message": {"role": "assistant", "content": WORD * output}, "finish_reason": "length"}
            ]
            if fate == "silent":
                del answer["usage"]
            return web.json_response(answer)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        tells = (asked.get("stream_options") or {}).get("include_usage") and fate != "silent"
        said = output // 2 if fate == "cut" else output
        usage = self.charge(prompt, cached, said)
        for place in range(said):
            await self._event(response, {"choices": [{"index": 0, "delta": {"content": WORD}}]}, tells)
            if place == 0:
                await asyncio.sleep(0)
        if fate == "cut":
            assert request.transport is not None
            request.transport.close()
            return response
        await self._event(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}, tells)
        if tells:
            await self._event(response, {"choices": [], "usage": usage}, tells=False)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _event(self, response: web.StreamResponse, chunk: dict[str, Any], tells: bool) -> None:
        if tells:
            chunk["usage"] = None
        await response.write(
            b"data: %b\n\n" % json.dumps({"id": "a", "object": "chat.completion.chunk", **chunk}).encode()
        )
