"""The authority in the namespaces of sidecars: written before it is needed, seldom, and kept up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spillway_operator.authority_maps import FRESH, OUTAGE, AuthorityMaps
from spillway_operator.cluster import ApiError
from spillway_operator.injection import CA_CONFIG_MAP
from spillway_operator.settings import Settings


class Api:
    """ConfigMaps by namespace, and how often one was written."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.away = False
        self.refused: dict[str, int] = {}
        """Namespaces that take none, and with which status."""

    async def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        assert (body["kind"], body["metadata"]["name"]) == ("ConfigMap", CA_CONFIG_MAP)
        self.writes.append(body["metadata"]["namespace"])
        if self.away:
            raise ApiError(0, "Timeout", "no answer")
        if status := self.refused.get(body["metadata"]["namespace"]):
            raise ApiError(status, "Refused", "field is immutable")
        self.maps[body["metadata"]["namespace"]] = body
        return body

    async def list_named(self, api: str, plural: str, namespace: str, name: str) -> list[dict[str, Any]]:
        assert (api, plural, name) == ("v1", "configmaps", CA_CONFIG_MAP)
        return [body for space, body in self.maps.items() if namespace in ("", space)]

    def says(self, namespace: str) -> str:
        return str(self.maps[namespace]["data"]["ca.crt"])


class World:
    def __init__(self, *watched: str) -> None:
        self.api = Api()
        self.authority = b"one"
        self.now = 0.0
        settings = Settings(namespace="infra", name="operator-0", address="10.0.0.1", watched=watched)
        self.maps = AuthorityMaps(settings, self.api, lambda: self.authority, lambda: self.now)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


async def test_however_many_pods_come_it_is_written_once(world: World) -> None:
    await asyncio.gather(*(world.maps.ensure("shop") for _ in range(100)))
    await world.maps.ensure("shop")
    assert world.api.writes == ["shop"]
    assert world.api.says("shop") == "one"


async def test_it_is_written_again_after_a_while_as_somebody_may_have_deleted_it(world: World) -> None:
    await world.maps.ensure("shop")
    world.now = FRESH
    await world.maps.ensure("shop")
    assert world.api.writes == ["shop"] * 2


async def test_another_authority_is_written_at_once(world: World) -> None:
    await world.maps.ensure("shop")
    world.authority = b"two"
    await world.maps.ensure("shop")
    assert world.api.says("shop") == "two"


async def test_what_was_there_lately_is_taken_to_be_there_through_an_outage(world: World) -> None:
    await world.maps.ensure("shop")
    world.api.away = True
    world.now = OUTAGE - 1.0
    await world.maps.ensure("shop")
    world.now = OUTAGE
    with pytest.raises(ApiError):
        await world.maps.ensure("shop")
    with pytest.raises(ApiError):
        await world.maps.ensure("other")


async def test_one_that_waits_no_more_takes_it_from_nobody(world: World) -> None:
    first = asyncio.create_task(world.maps.ensure("shop"))
    second = asyncio.create_task(world.maps.ensure("shop"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert world.api.says("shop") == "one"


async def test_the_leader_brings_all_up_to_date_and_leaves_alone_what_is(world: World) -> None:
    for space in ("a", "b", "c"):
        await world.maps.ensure(space)
    world.api.maps["b"] = {"metadata": {"namespace": "b"}, "data": {"ca.crt": "edited"}}
    world.api.writes.clear()
    await world.maps.keep(b"one")
    assert world.api.writes == ["b"]
    await world.maps.keep(b"two")
    assert {world.api.says(space) for space in ("a", "b", "c")} == {"two"}


async def test_with_namespaces_that_are_named_no_others_are_looked_at() -> None:
    world = World("a", "b")
    for space in ("a", "b", "c"):
        await world.maps.ensure(space)
    await world.maps.keep(b"two")
    assert [world.api.says(space) for space in ("a", "b", "c")] == ["two", "two", "one"]


async def test_a_namespace_that_takes_none_keeps_it_from_no_other(world: World) -> None:
    for space in ("a", "b", "c"):
        await world.maps.ensure(space)
    world.api.refused = {"a": 422, "b": 403}
    await world.maps.keep(b"two")
    assert [world.api.says(space) for space in ("a", "b", "c")] == ["one", "one", "two"]
    world.api.refused = {"c": 503}
    with pytest.raises(ApiError):  # that is no matter of the namespace: it is tried again soon
        await world.maps.keep(b"three")


async def test_what_somebody_has_deleted_is_put_back_unless_its_namespace_is_gone(world: World) -> None:
    for space in ("a", "b"):
        await world.maps.ensure(space)
    await world.maps.keep(b"one")
    world.api.maps.clear()
    world.api.refused = {"b": 404}
    await world.maps.keep(b"one")
    assert world.api.maps.keys() == {"a"}
    world.api.writes.clear()
    await world.maps.keep(b"one")
    assert world.api.writes == [], "it is not asked for again"
    # What this replica has not written but only seen is put back as well.
    world.api.maps["seen"] = world.api.maps["a"] | {"metadata": {"namespace": "seen"}}
    await world.maps.keep(b"one")
    del world.api.maps["seen"]
    await world.maps.keep(b"one")
    assert world.api.says("seen") == "one"


async def test_keys_of_others_in_it_are_nobodys_business(world: World) -> None:
    await world.maps.ensure("a")
    world.api.maps["a"]["data"]["more"] = "theirs"
    world.api.writes.clear()
    await world.maps.keep(b"one")
    assert world.api.writes == []
