"""How many tokens a request has, and how many of them the provider's prompt cache had: what is charged for.

Two ways to cache, after the providers' documentation (OpenAI "Prompt caching", Anthropic "Prompt caching", Amazon
Bedrock "Prompt caching for faster model inference"): by itself, in steps of a block from a least length on; or where
the request says so, up to a mark, where the longest marked prefix that is known is read and the rest up to the last
mark is written. What is kept is forgotten some minutes after its last use.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from ..engine import text
from .asked import Prompt

KEPT: Final = {"5m": 300.0, "1h": 3600.0}
LOOKBACK: Final = 20
"""Pieces before a mark at which something kept earlier is looked for (Anthropic's documentation)."""


class CacheRule(NamedTuple):
    """Prompts of at least `least` tokens are kept: in steps of `step` tokens by itself, with 0 at marks alone."""

    least: int
    step: int


class Counted(NamedTuple):
    """Tokens of one request. `prompt` is all of it, `cached` was read from the cache, `written` and, for an hour,
    `written_1h` were put there; the three do not overlap. `reasoning` is part of `output`."""

    prompt: int
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def fresh(self) -> int:
        """Tokens of the prompt that had nothing to do with the cache."""
        return self.prompt - self.cached - self.written - self.written_1h


class Cache:
    """What one account has in the cache. Time is an argument, in seconds."""

    def __init__(self, rule: CacheRule | None) -> None:
        self._rule = rule
        self._until: dict[int, float] = {}

    def count(self, model: str, prompt: Prompt, now: float) -> Counted:
        """How the prompt counts; what it puts into the cache is there from now on."""
        rule = self._rule
        if rule is None:
            return Counted(prompt.tokens)
        return self._stepped(rule, model, prompt, now) if rule.step else self._marked(rule, model, prompt, now)

    def _stepped(self, rule: CacheRule, model: str, prompt: Prompt, now: float) -> Counted:
        blocks = text.block_hashes(prompt.data, text.namespace(model), rule.step)
        known = 0
        while known < len(blocks) and self._has(blocks[known], now):
            known += 1
        if len(blocks) * rule.step >= rule.least:
            for block in blocks:
                self._until[block] = now + KEPT["5m"]
        cached = known * rule.step
        return Counted(prompt.tokens, cached if cached >= rule.least else 0)

    def _marked(self, rule: CacheRule, model: str, prompt: Prompt, now: float) -> Counted:
        marks = [(at, ttl) for at, ttl in prompt.marks if at // text.TOKEN_BYTES >= rule.least]
        if not marks:
            return Counted(prompt.tokens)
        seed = text.namespace(model)
        read = 0
        for at in self._looked_at(prompt, marks[-1][0]):
            key = xxh3_64_intdigest(prompt.data[:at], seed)
            if self._has(key, now):
                self._until[key] = max(self._until[key], now + KEPT["5m"])
                read = at
                break
        written = {"5m": 0, "1h": 0}
        before = read // text.TOKEN_BYTES
        for at, ttl in marks:
            kept = now + KEPT[ttl]
            key = xxh3_64_intdigest(prompt.data[:at], seed)
            self._until[key] = max(self._until.get(key, 0.0), kept)
            upto = at // text.TOKEN_BYTES
            if upto > before:
                written[ttl] += upto - before
                before = upto
        return Counted(prompt.tokens, read // text.TOKEN_BYTES, written["5m"], written["1h"])

    def _looked_at(self, prompt: Prompt, last: int) -> list[int]:
        """Offsets at which a kept prefix may end, the longest first."""
        edges = [at for at in prompt.edges if at <= last]
        marks = [at for at, _ in prompt.marks if at <= last]
        return sorted({*edges[-LOOKBACK:], *marks}, reverse=True)

    def _has(self, key: int, now: float) -> bool:
        return self._until.get(key, 0.0) > now
