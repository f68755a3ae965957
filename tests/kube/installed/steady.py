"""A service's traffic, run in a Pod: streams and plain requests by the OpenAI SDK, without a retry of the SDK's own.

Where it asks stands in the environment alone, as the SDK reads it. Prints one JSON object for each request when it has
ended: see `Answered` in load.py. A dozen at a time at most, about 15 a second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from typing import Any

import openai

PATIENCE = 60.0
"""Seconds for one request. No client of an LLM would wait less."""

# How many tokens, how often a worker asks in seconds, as a stream; one row for each worker.
SHORT = (4, 0.4, False)  # each on a connection of its own: it asks for a Pod anew
STREAM = (24, 1.2, True)
LONG = (300, 0.0, True)  # seven seconds or more: these live through the whole goodbye of a Pod
RARE = (4, 7.0, False)  # comes again on a connection that has long been idle
WORKERS = [SHORT] * 4 + [STREAM] * 4 + [LONG] * 3 + [RARE]
Limits = type(openai.DEFAULT_CONNECTION_LIMITS)
NOT_KEPT = Limits(max_keepalive_connections=0)
KEPT = Limits(keepalive_expiry=90.0)
"""As the clients of other languages keep theirs: the SDK's own gives up idle connections after 5 s."""


async def worker(client: openai.AsyncOpenAI, models: list[str], number: int) -> None:
    tokens, every, streams = WORKERS[number]
    dice = random.Random(number)
    await asyncio.sleep(dice.uniform(0.0, every))
    for turn, model in zip(itertools.count(), itertools.cycle(models)):
        began = time.time()
        messages = [{"role": "user", "content": f"worker {number}, conversation {turn // 8}: please go on"}]
        said: dict[str, Any] = {"model": model, "stream": streams, "at": began, "first": None, "error": None}
        try:
            asked = client.chat.completions.create(
                model=model, messages=messages, max_tokens=tokens, stream=streams, user=str(number)
            )
            answer = await asked
            if streams:
                ended = False
                async for chunk in answer:
                    for choice in chunk.choices:
                        if choice.delta.content and said["first"] is None:
                            said["first"] = time.time() - began
                        ended = ended or choice.finish_reason is not None
                if not ended:
                    said["error"] = "no end"
            elif not answer.choices[0].message.content:
                said["error"] = "no content"
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {error}; {error.__cause__!r}"[:400]
        end = time.time()
        said["took"] = end - began
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(max(0.02, every * dice.uniform(0.8, 1.2) - (end - began)))


async def main() -> None:
    models = os.environ["MODELS"].split()
    # Each starts with another model, so that all are always asked; and each has a connection of its own.
    starts = (models[n % len(models) :] + models[: n % len(models)] for n in range(len(WORKERS)))
    clients = (client(NOT_KEPT if work is SHORT else KEPT) for work in WORKERS)
    workers = (worker(*pair, number) for number, pair in enumerate(zip(clients, starts, strict=True)))
    await asyncio.gather(*workers)


def client(limits: Limits) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key="none",
        max_retries=0,
        timeout=PATIENCE,
        http_client=openai.DefaultAsyncHttpxClient(limits=limits),
    )


if __name__ == "__main__":
    asyncio.run(main())
