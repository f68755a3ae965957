"""A request as the balancer gets it, made of a file and of what is said beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from multidict import CIMultiDict

from spillway_api.files import FileProblem, text_of

from ..core.apis import CHAT, COUNTING, MESSAGES
from ..core.errors import SpillwayError
from ..net.facts import Facts
from ..wire import openai
from ..wire.paths import PATHS
from .document import Unusable
from .given import RequestGiven

JSON: Final = "application/json"
CLIENT: Final = "127.0.0.1"

_ENVELOPE: Final = frozenset({"path", "headers", "body"})
_TEXT_OF: Final = {"/v1/completions": "prompt", CHAT: "messages", MESSAGES: "messages", COUNTING: "messages"}
"""Where the text of a body stands; `input` on all other paths."""

_ANSWER: Final = 1024
"""Tokens of an answer on /v1/messages, where every request has to say how many."""


class Asking:
    """One request: where it goes, with which headers and which body."""

    def __init__(self, path: str, headers: Sequence[tuple[str, str]], body: bytes, client: str | None = None) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.client = client or CLIENT

    def with_key(self, key: str) -> Asking:
        """The same with a key, where it shows none."""
        shown = {name.lower() for name, _ in self.headers}
        if shown & {"authorization", "x-api-key", "api-key"}:
            return self
        return Asking(self.path, [*self.headers, ("authorization", f"Bearer {key}")], self.body, self.client)

    def facts(self) -> Facts:
        """What the balancer would find in it. Raises Unusable for a path that is not served, else a SpillwayError
        as the client would get it."""
        path = PATHS.get(self.path)
        if path is None:
            raise Unusable(f"{self.path}: no such path; there are {', '.join(PATHS)}")
        headers = CIMultiDict(self.headers)
        facts = Facts(headers, self.client, openai.peek(path, headers.get("content-type", JSON), self.body))
        facts.thorough = True
        return facts


def from_file(path: Path, headers: Sequence[tuple[str, str]], to: str) -> Asking:
    """A file (`-` is standard input) that holds a body, or an envelope of `path`, `headers` and `body` around one."""
    text = sys.stdin.read() if str(path) == "-" else text_of(path)
    if isinstance(text, FileProblem):
        raise Unusable(str(text))
    body = text.encode()
    try:
        value = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return Asking(to, headers, body)  # the balancer says what is wrong with it
    if "body" not in value or "model" in value:
        return Asking(to, headers, body)
    if unknown := value.keys() - _ENVELOPE:
        raise Unusable(f"{path}: {', '.join(sorted(unknown))}: beside body there may be path and headers")
    try:
        to = msgspec.json.decode(value["path"], type=str) if "path" in value else to
        own = msgspec.json.decode(value["headers"], type=dict[str, str]) if "headers" in value else {}
    except msgspec.ValidationError as error:
        raise Unusable(f"{path}: path is a string and headers are names with strings: {error}") from None
    return Asking(to, [*own.items(), *headers], bytes(value["body"]))


def from_fields(given: RequestGiven) -> Asking:
    """What a case says of its request, made whole."""
    text = given.prompt or "hello"
    body = made(given, text)
    if given.tokens is not None:
        lacking = given.tokens - _tokens(given, body)
        if lacking > 0:
            # A character more may be a token more: what is estimated are bytes, four to the token.
            body = made(given, text + " word" * (lacking * 4 // 5) + "." * (lacking * 4 % 5))
    return Asking(given.path, list(given.headers.items()), msgspec.json.encode(body), given.client_ip)


def _tokens(given: RequestGiven, body: Mapping[str, Any]) -> int:
    try:
        return Asking(given.path, (), msgspec.json.encode(body)).facts().prompt_tokens
    except SpillwayError:
        return given.tokens or 0


def made(given: RequestGiven, text: str) -> dict[str, Any]:
    """The body, with what is not said of it."""
    body: dict[str, Any] = dict(given.body) if isinstance(given.body, dict) else {}
    if given.model is not None:
        body["model"] = given.model
    place = _TEXT_OF.get(given.path, "input")
    if given.path == MESSAGES:
        body.setdefault("max_tokens", _ANSWER)
    if place not in body:
        body[place] = [{"role": "user", "content": text}] if place == "messages" else text
    return body


def header(text: str) -> tuple[str, str]:
    """`name: value` as on a command line. Raises Unusable."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Unusable(f"-H {text!r}: write it as 'name: value'")
    return name.strip(), value.strip()
