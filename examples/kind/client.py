"""Four conversations of five turns each, at once: the turns of one mostly go to the engine that has it cached.

Needs nothing but Python: the image that it runs in has no SDK. A service would use the OpenAI SDK with this base URL.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any


def ask(base: str, messages: list[dict[str, str]]) -> tuple[str, str]:
    """The streamed answer's text, and the endpoint that gave it."""
    body = {"model": "chat", "messages": messages, "stream": True, "max_tokens": 32}
    # The second header asks Spillway to say in the answer's head where the request went, and why.
    headers = {"content-type": "application/json", "x-spillway-explain": "1"}
    request = urllib.request.Request(f"{base}/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the address is an argument
        deltas = [choice["delta"] for event in events(answer) for choice in event["choices"]]
        explanation = answer.headers["x-spillway-explain"] or ""
    return "".join(delta.get("content") or "" for delta in deltas), endpoint(explanation)


def endpoint(explanation: str) -> str:
    pairs = dict(pair.split("=", 1) for pair in explanation.split("; ") if "=" in pair)
    return pairs.get("endpoint", "?")


def events(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            yield json.loads(line.removeprefix(b"data: "))


def converse(base: str, number: int, lines: list[str]) -> None:
    topic = f"This is conversation {number}, and it is about dam number {number}. " * 20
    messages = [{"role": "system", "content": topic}]
    engines = []
    for turn in range(1, 6):
        messages.append({"role": "user", "content": f"Question {turn}?"})
        text, engine = ask(base, messages)
        messages.append({"role": "assistant", "content": text})
        engines.append(engine)
    lines.append(f"conversation {number}: turns answered by {' '.join(engines)}")


def await_engines(base: str, seconds: float = 120.0) -> None:
    """Until a question is answered: this Job is created together with the engines, and may be here before them."""
    end = time.monotonic() + seconds
    while True:
        try:
            ask(base, [{"role": "user", "content": "Is anybody there?"}])
        except OSError as error:  # no connection, or an HTTP status that says why
            if time.monotonic() > end:
                sys.exit(f"{base}: {error}")
            time.sleep(1.0)
        else:
            return


def main(base: str) -> int:
    await_engines(base)
    lines: list[str] = []
    threads = [threading.Thread(target=converse, args=(base, number, lines)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write("\n".join(sorted(lines)) + "\n")
    return 0 if len(lines) == len(threads) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/")))
