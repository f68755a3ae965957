"""What callers are counted by: their key where they show one, else where they come from; and never the key itself."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from spillway_api import snapshot
from spillway_balancer.core.consumers import Consumer
from spillway_balancer.net.facts import Facts
from spillway_balancer.wire import openai
from spillway_balancer.wire.client_key import client_key
from spillway_balancer.wire.paths import PATHS

BODY = b'{"model":"chat","messages":[]}'


def facts(ip: str | None = "10.0.0.1", **headers: str) -> Facts:
    given = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Facts(given, ip, openai.peek(PATHS["/v1/chat/completions"], "application/json", BODY))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer   sk-1 "}, "sk-1"),
        ({"X-Api-Key": " sk-2 "}, "sk-2"),
        ({"Authorization": "Bearer sk-1", "x-api-key": "sk-2"}, "sk-1"),
        ({"Authorization": "Basic dXNlcg==", "x-api-key": "sk-2"}, "sk-2"),
        ({"Authorization": "Bearer ", "x-api-key": "sk-2"}, "sk-2"),
        ({"Authorization": "sk-1"}, ""),
        ({}, ""),
    ],
)
def test_the_key_that_a_client_shows(headers: dict[str, str], key: str) -> None:
    assert client_key(CIMultiDict(headers)) == key


def test_the_same_key_is_the_same_caller_wherever_it_comes_from() -> None:
    one = facts("10.0.0.1", authorization="Bearer sk-1").caller
    assert one == facts("10.0.0.2", x_api_key="sk-1").caller
    assert one != facts("10.0.0.1", authorization="Bearer sk-2").caller
    assert "sk-1" not in one


def test_without_a_key_callers_are_their_addresses() -> None:
    assert facts("10.0.0.1").caller == facts("10.0.0.1").caller != facts("10.0.0.2").caller
    assert facts(None).caller == facts(None).caller


def test_another_scheme_tells_callers_apart_too() -> None:
    assert facts(authorization="Basic YQ==").caller != facts(authorization="Basic Yg==").caller


def test_bytes_that_are_no_text_are_a_key_as_well() -> None:
    assert facts(authorization="Bearer \udcff").caller != facts(authorization="Bearer \udcfe").caller


def test_a_consumer_is_counted_by_its_name_and_by_nothing_that_it_sends() -> None:
    asked = facts(authorization="Bearer sk-1")
    asked.consumer = Consumer(snapshot.Consumer("team-a", "default/team-a", "api-key"), "default")
    assert asked.caller == "default/team-a"
