"""What the simulated engine reads and says: chat template, tokens of four bytes, block hashes, made-up
answers.

Everything is a function of the request's bytes, so each engine gives the same answer to the same prompt, and
the next turn of a chat (history, the engine's own answer, a new message) renders to bytes that begin with the
former prompt and answer. That is what makes prefix caching work on the simulated engine as on a real one.

A token is four bytes. A prompt of n bytes has n // 4 tokens; the first token of the answer has as many
letters as complete the last word of four bytes, all others have four. So bytes and tokens stay in step, and a
block of 16 tokens is always the same 64 bytes, whether they were sent as a prompt or made as an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import msgspec
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest, xxh3_128_digest

TOKEN_BYTES = 4
# A picture or a sound stands for this many bytes of prompt, 256 tokens: the order of what vision models take.
_MEDIA_BYTES = 1024

_SPOKEN = (
    "the and you for not but his her was are out one all now two new way who may did get him old see day how man "
    "use any say she too put big let set own run far ask why men low off try sea air sun sky ice oak owl fox bee "
    "cat dog hen elk ivy jay map net oar fig"
)
_WORDS = tuple(" " + word for word in _SPOKEN.split())  # 64 of four bytes
_OPENERS = {1: ("A", "I"), 2: ("It", "So", "In", "We"), 3: ("The", "You", "One", "All"), 4: ("This", "Here", "Then")}

_encode = msgspec.json.Encoder(order="sorted").encode


def render_chat(messages: Iterable[Mapping[str, Any]], tools: Any = None) -> bytes:
    """The bytes a chat stands for: each message between its markers, then the opening of the answer to come."""
    parts = []
    if tools:
        parts.append(b"<|tools|>\n" + _encode(tools) + b"<|end|>\n")
    for message in messages:
        parts.append(b"<|%s|>\n" % str(message.get("role", "user")).encode())
        content = message.get("content")
        if isinstance(content, str):
            parts.append(content.encode("utf-8", "replace"))
        elif content:
            parts.extend(_part(part) for part in content)
        if calls := message.get("tool_calls"):
            parts.append(b"<|calls|>" + _encode(calls))
        parts.append(b"<|end|>\n")
    parts.append(b"<|assistant|>\n")
    return b"".join(parts)


def _part(part: Any) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "replace")
    text = part.get("text")
    if isinstance(text, str):
        return text.encode("utf-8", "replace")
    return media(_encode(part))


def media(data: bytes) -> bytes:
    """What a picture or a sound is in a prompt: bytes that depend on all of it, as many as it costs."""
    digest = xxh3_64_hexdigest(data).encode()
    return digest * (_MEDIA_BYTES // len(digest))


def render_tokens(ids: Iterable[int]) -> bytes:
    """A prompt given as token ids: one token each."""
    return b"".join((id & 0xFFFFFFFF).to_bytes(TOKEN_BYTES, "little") for id in ids)


def tokens_in(prompt: bytes) -> int:
    return max(1, len(prompt) // TOKEN_BYTES)


def namespace(model: str, salt: str | None = None) -> int:
    """The seed of a chain of block hashes: models share no cache, nor do tenants with their own `cache_salt`."""
    return xxh3_64_intdigest(f"{model}\0{salt or ''}".encode("utf-8", "replace"))


def block_hashes(data: bytes, seed: int, block_tokens: int) -> list[int]:
    """The hash of each full block of `data`, chained: equal hashes mean equal bytes up to there."""
    size = block_tokens * TOKEN_BYTES
    value = seed
    chain = []
    for start in range(0, len(data) - size + 1, size):
        value = xxh3_64_intdigest(data[start : start + size], value)
        chain.append(value)
    return chain


class Answer:
    """The text that answers a prompt: `tokens` tokens of ASCII words, the same for the same prompt."""

    __slots__ = ("_lead", "text", "tokens")

    def __init__(self, prompt: bytes, tokens: int) -> None:
        seed = xxh3_64_intdigest(prompt)
        self.tokens = tokens
        self._lead = TOKEN_BYTES - len(prompt) % TOKEN_BYTES
        if not tokens:
            self.text = ""
            return
        openers = _OPENERS[self._lead]
        rest = tokens - 1
        dice = b"".join(xxh3_128_digest(i.to_bytes(4, "little"), seed) for i in range(-(-rest // 16)))
        self.text = openers[seed % len(openers)] + "".join([_WORDS[value & 63] for value in dice[:rest]])

    @classmethod
    def rest(cls, prompt: bytes, said: str, limit: int | None) -> Answer:
        """What follows on an answer that began with `said`, with which the prompt ends: the rest of what this engine
        would have said, in `limit` tokens or in as many as that would have had. What it would never have said is a
        prompt as any other."""
        begun = prompt[: len(prompt) - len(said.encode("utf-8", "replace"))]
        lead = TOKEN_BYTES - len(begun) % TOKEN_BYTES
        already = 1 + (len(said) - lead) // TOKEN_BYTES if len(said) >= lead else 0
        more = max(1, drawn_length(begun) - already) if limit is None else limit
        whole = cls(begun, already + more).text
        answer = cls(prompt, more)
        if whole.startswith(said):
            answer.text = whole[len(said) :]
        return answer

    def piece(self, start: int, stop: int) -> str:
        """The text of tokens `start` to `stop`."""
        return self.text[self._cut(start) : self._cut(stop)]

    def _cut(self, tokens: int) -> int:
        return self._lead + TOKEN_BYTES * (tokens - 1) if tokens else 0


def drawn_length(prompt: bytes) -> int:
    """How many tokens the answer has when the request does not say: 24 to 256, drawn by the prompt."""
    return 24 + xxh3_64_intdigest(prompt, 1) % 233


def vector(data: bytes, dimensions: int) -> list[float]:
    """An embedding: a unit vector that depends on every byte and means nothing."""
    seed = xxh3_64_intdigest(data)
    raw = b"".join(xxh3_128_digest(i.to_bytes(4, "little"), seed) for i in range(-(-dimensions // 4)))
    numbers = [int.from_bytes(raw[4 * i : 4 * i + 4], "little", signed=True) / 2**31 for i in range(dimensions)]
    length = sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def relevance(query: str, document: str) -> float:
    """A rank between 0 and 1: the share of the query's words that the document has, with a trace of hash."""
    words = set(query.lower().split())
    share = len(words & set(document.lower().split())) / len(words) if words else 0.0
    trace: int = xxh3_64_intdigest(f"{query}\0{document}".encode("utf-8", "replace"))
    return 0.9 * share + 0.1 * trace / 2**64
