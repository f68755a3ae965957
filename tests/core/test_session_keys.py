"""The key of a session: the first source with a value, hashed alike everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from spillway_api.types import Dispatch, KeySource
from spillway_balancer.core.keys import key_of

HEADER = KeySource(type="Header", name="x-session-id")
BODY = KeySource(type="Body", name="prompt_cache_key")
ADDRESS = KeySource(type="ClientIP")
PREFIX = KeySource(type="Prefix", chars=64)


@dataclass
class Facts:
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    client_ip: str | None = None
    text: bytes | None = None
    asked: list[str] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        self.asked.append("header")
        return self.headers.get(name)

    def body(self, name: str) -> str | None:
        self.asked.append("body")
        return self.fields.get(name)

    def prefix(self, chars: int | None) -> bytes | None:
        self.asked.append(f"prefix {chars}")
        return self.text[:chars] if self.text is not None else None


def test_first_source_with_a_value_wins_and_later_ones_are_not_read() -> None:
    facts = Facts({"x-session-id": "one"}, {"prompt_cache_key": "two"}, "10.0.0.1", b"three")
    assert key_of([HEADER, BODY, PREFIX], facts) == key_of([HEADER], facts)
    assert facts.asked == ["header", "header"]


def test_empty_values_are_passed_over() -> None:
    facts = Facts({"x-session-id": ""}, {}, None, b"text")
    assert key_of([HEADER, BODY, ADDRESS, PREFIX], facts) == key_of([PREFIX], facts) is not None
    assert "prefix 64" in facts.asked


def test_no_value_no_key() -> None:
    assert key_of([HEADER, BODY, ADDRESS, PREFIX], Facts(text=b"")) is None
    assert key_of([], Facts({"x-session-id": "one"})) is None


def test_equal_text_from_different_places_makes_different_keys() -> None:
    facts = Facts({"x-session-id": "same"}, {"prompt_cache_key": "same"}, "same", b"same")
    assert len({key_of([source], facts) for source in (HEADER, BODY, ADDRESS, PREFIX)}) == 4


def test_key_is_the_same_in_every_process_and_release() -> None:
    """A changed hash would move every session of a fleet that is being upgraded."""
    assert key_of([HEADER], Facts({"x-session-id": "abc"})) == 17885619577599510571


@pytest.mark.parametrize("value", ["naïve", "lone \udce9", "x" * 100_000])
def test_any_text_has_a_key(value: str) -> None:
    key = key_of([HEADER], Facts({"x-session-id": value}))
    assert key is not None
    assert 0 <= key < 2**64


def test_default_sources_are_understood() -> None:
    assert key_of(Dispatch().key, Facts(text=b"system prompt")) is not None
