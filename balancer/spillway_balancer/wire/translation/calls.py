"""Calls of tools as every API takes them: ids that fit and are used once, and arguments that are an object."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Ids:
    """Ids of calls that are used once in a conversation; some engines count anew with each answer. `fitting` makes an
    id that an API takes of any, the same one every time."""

    def __init__(self, fitting: Callable[[str], str]) -> None:
        self._fitting = fitting
        self._now: dict[str, str] = {}
        self._used: set[str] = set()

    def used(self, name: str) -> str:
        unique = base = self._fitting(name)
        again = 1
        while unique in self._used:
            again += 1
            unique = f"{base}_{again}"
        self._used.add(unique)
        self._now[name] = unique
        return unique

    def answered(self, name: str) -> str:
        return self._now.get(name) or self._fitting(name)


def arguments(said: bytes) -> msgspec.Raw:
    """Arguments as they were written, where they are an object: models break off in the middle of one."""
    try:
        msgspec.json.decode(said or b"{}", type=dict[str, msgspec.Raw])
        return msgspec.Raw(said or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode({"arguments": said.decode("utf-8", "replace")}))
