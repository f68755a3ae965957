"""A service of many replicas, run in a Pod: what it is told over HTTP it asks at the address of its OpenAI API.

POST /ask with `body`, `headers` and, unless it is a chat, `path`. The answer has `status`, `headers`, `text`, seconds
to its head as `first` and to its end as `seconds`; or `error` where there was none. GET / says that it listens. Of
the standard library alone, so that ten start at once.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60.0
"""Seconds."""


def ask(asked: dict[str, Any]) -> dict[str, Any]:
    at = urlsplit(asked.get("base") or os.environ["OPENAI_BASE_URL"])
    headers = {"content-type": "application/json"} | asked.get("headers", {})
    began = time.monotonic()
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=PATIENCE)
    try:
        body = None if asked.get("body") is None else json.dumps(asked["body"])
        path = at.path + asked.get("path", "/chat/completions")
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        first = time.monotonic() - began
        text = answer.read().decode()
        names = {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - began}
    finally:
        connection.close()
    seconds = time.monotonic() - began
    return {"status": answer.status, "headers": names, "text": text, "first": first, "seconds": seconds}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"listens": True})

    def do_POST(self) -> None:
        self._answer(ask(json.loads(self.rfile.read(int(self.headers["content-length"])))))

    def _answer(self, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what went wrong is in the answer."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
