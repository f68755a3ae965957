"""Plays a plan of sessions against an OpenAI endpoint, each as a plain client would, and measures every answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import aiohttp

from .load import Kind, Session, Turn

ANSWER_SECONDS: Final = 60.0
"""An answer that takes longer counts as an error; the longest of the plan takes some two seconds."""

_READ_BYTES: Final = 1 << 16


class Answer(NamedTuple):
    """How one request went. Times are seconds on the loop's clock; `first` is that of the first content byte."""

    kind: Kind
    started: float
    first: float | None
    ended: float
    error: str | None
    text: str

    @property
    def first_token(self) -> float | None:
        """Seconds from the request to its first content."""
        return None if self.first is None else self.first - self.started


class Refused(Exception):
    """The answer is no answer; the message says why, for the list of errors."""


class Player:
    """Plays sessions and collects their answers. `answers` grows while it plays, `open` sessions are under way."""

    def __init__(self, base_url: str, model: str) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self.answers: list[Answer] = []
        self.open = 0

    @property
    def errors(self) -> int:
        return sum(1 for answer in self.answers if answer.error is not None)

    async def play(self, sessions: Sequence[Session]) -> None:
        """Returns when the last session has ended. Errors end their session and stand in `answers`; none is raised."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        # The connections of the city's people; a limit here would queue requests before the balancer sees them.
        connector = aiohttp.TCPConnector(limit=0)
        start = asyncio.get_running_loop().time()
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            for session in sessions:
                group.create_task(self._converse(client, session, start + session.at))

    async def _converse(self, client: aiohttp.ClientSession, session: Session, begins: float) -> None:
        await asyncio.sleep(begins - asyncio.get_running_loop().time())
        self.open += 1
        try:
            messages: list[dict[str, str]] = []
            if session.system is not None:
                messages.append({"role": "system", "content": session.system})
            for turn in session.turns:
                await asyncio.sleep(turn.pause)
                messages.append({"role": "user", "content": turn.text})
                answer = await self._ask(client, session, turn, messages)
                self.answers.append(answer)
                if answer.error is not None:
                    return
                messages.append({"role": "assistant", "content": answer.text})
        finally:
            self.open -= 1

    async def _ask(
        self, client: aiohttp.ClientSession, session: Session, turn: Turn, messages: list[dict[str, str]]
    ) -> Answer:
        clock = asyncio.get_running_loop().time
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "max_tokens": turn.max_tokens,
            "stream": True,
        }
        if session.cache_key is not None:
            body["prompt_cache_key"] = session.cache_key
        started = clock()
        first: float | None = None
        error: str | None = None
        pieces: list[str] = []
        try:
            async with client.post(self._url, json=body) as response:
                if response.status != 200:
                    raise Refused(f"{response.status} {_code(await response.read())}")
                async for piece in contents(response.content):
                    if first is None:
                        first = clock()
                    pieces.append(piece)
            if first is None:
                raise Refused("an answer without content")
        except Refused as refused:
            error = str(refused)
        except TimeoutError:
            error = f"no end within {ANSWER_SECONDS:g} s"
        except (aiohttp.ClientError, OSError) as broken:
            error = type(broken).__name__
        return Answer(session.kind, started, first, clock(), error, "".join(pieces))


async def contents(stream: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The content pieces of a streamed chat completion. Raises Refused as `chunks` does."""
    async for chunk in chunks(stream):
        if piece := content(chunk):
            yield piece


def content(chunk: dict[str, Any]) -> str:
    """What a chunk adds to the answer; empty when it only tells of it."""
    return "".join(choice.get("delta", {}).get("content") or "" for choice in chunk.get("choices", ()))


async def chunks(stream: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The events of a streamed chat completion. Raises Refused for an error event or a missing end.

    Reads on to the end of the body after [DONE]: a client that hangs up before it looks like one that gave up.
    """
    rest = b""
    done = False
    while data := await stream.read(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            value = line[5:].strip()
            if value == b"[DONE]":
                done = True
                continue
            chunk = json.loads(value)
            if "error" in chunk:
                raise Refused(f"cut: {chunk['error'].get('code') or chunk['error'].get('type')}")
            yield chunk
    if not done:
        raise Refused("the stream ended without [DONE]")


def _code(body: bytes) -> str:
    """The code of an OpenAI-shaped error, for a person."""
    try:
        error = json.loads(body)["error"]
        return f"{error.get('code') or error.get('type')}: {error.get('message')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "without an error object"
