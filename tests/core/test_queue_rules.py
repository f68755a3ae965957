"""What a route says of waiting: who goes first, and between whom turns are taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spillway_api.types import Priority, Queue
from spillway_balancer.core.queueing import MAX_PRIORITY, QueueRules


def asked(header: str | None = None, allowed: str | None = None, known: bool = True) -> Any:
    labels = {} if allowed is None else {MAX_PRIORITY: allowed}
    consumer = SimpleNamespace(labels=labels) if known else None
    return SimpleNamespace(header=lambda name: {"x-priority": header}[name], consumer=consumer, caller="somebody")


def rules(default: int = 10, fairness: Any = "Consumer") -> QueueRules:
    return QueueRules.of(Queue(fairness=fairness), Priority(default, "x-priority"))


@pytest.mark.parametrize(
    ("header", "allowed", "known", "priority"),
    [
        (None, None, True, 10),
        ("3", None, True, 3),
        ("-1000", None, False, -1000),
        ("-9999", None, False, -1000),
        ("11", None, True, 10),
        ("11", None, False, 10),
        ("11", "50", True, 11),
        ("99", "50", True, 50),
        ("99", "5", True, 10),  # the label allows, and takes nothing away
        ("3", "50", True, 3),
        (None, "50", True, 10),  # who may raise it has to say so
        ("9999", "99999", True, 1000),
        ("99", "much", True, 10),
        ("1.5", None, True, 10),
        ("", None, True, 10),
        ("1_0", None, True, 10),
        (" 3", None, True, 10),
        ("9" * 5000, "50", True, 10),  # int() of thousands of digits takes its time
    ],
)
def test_the_header_lowers_and_raises_only_for_who_may(
    header: str | None, allowed: str | None, known: bool, priority: int
) -> None:
    assert rules().priority_of(asked(header, allowed, known)) == priority


def test_without_a_header_to_read_nothing_is_read() -> None:
    assert QueueRules.of(Queue(), Priority(7)).priority_of(asked("1")) == 7


@pytest.mark.parametrize(
    ("fairness", "key", "caller"),
    [
        ("Consumer", 5, "somebody"),
        ("Session", 5, "session 5"),
        ("Session", None, "somebody"),
        ("None", 5, ""),
    ],
)
def test_between_whom_turns_are_taken(fairness: str, key: int | None, caller: str) -> None:
    home: Any = SimpleNamespace(key=lambda _: key)
    assert rules(fairness=fairness).caller_of(asked(), home) == caller
