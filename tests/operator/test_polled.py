"""Secrets and gateways that are asked for: rotation is seen, a refusal is an absence, an outage changes nothing."""

from __future__ import annotations

import asyncio
import base64
import logging
import random

import pytest
import tests.operator.objects as make
from tests.operator.clock import run

from spillway_operator.cluster import ApiError
from spillway_operator.polled import AT_ONCE, GATEWAY_SECONDS, SECONDS, Gateways, Secrets

MARKER = "sk-quagga-key"


class Shelf:
    """A cluster's Secrets and Deployments in memory, with the methods that are asked of `Cluster`."""

    def __init__(self):
        self.secrets = {}
        self.deployments = []
        self.asked = []
        self.wrong = {}
        self.at_a_time = self.most = 0

    def put(self, name, **values):
        self.secrets[name] = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}

    def put_consumer(self, name, key, **annotations):
        self.put(name, **{"api-key": key, "other": "x"})
        meta = {"name": name.partition("/")[2], "labels": {"app": "key"}, "annotations": annotations}
        self.secrets[name]["metadata"] = meta

    async def get(self, api, plural, namespace, name):
        assert (api, plural) == ("v1", "secrets")
        whole = f"{namespace}/{name}"
        self.asked.append(whole)
        self.at_a_time += 1
        self.most = max(self.most, self.at_a_time)
        try:
            await asyncio.sleep(0.01)
            self._fail(whole)
            return self.secrets.get(whole)
        finally:
            self.at_a_time -= 1

    async def list(self, api, plural, namespace, labels):
        if plural == "secrets":
            self.asked.append((namespace, labels))
            self._fail("list")
            name, _, value = labels.partition("=")
            own = [each for whole, each in self.secrets.items() if whole.startswith(f"{namespace}/")]
            return [each for each in own if each.get("metadata", {}).get("labels", {}).get(name) == value]
        assert (api, plural, namespace, labels) == ("apps/v1", "deployments", "spillway", "spillway.dev/gateway")
        self._fail("deployments")
        return self.deployments

    def _fail(self, what):
        status = self.wrong.get(what, self.wrong.get("*"))
        if status is not None:
            raise ApiError(status, "Whatever", f"no {what}")


@pytest.fixture
def shelf():
    return Shelf()


def secrets(shelf):
    return Secrets(shelf, random.Random(7))


def test_only_what_is_referred_to_is_read(shelf):
    async def main():
        known = secrets(shelf)
        shelf.put("default/openai", **{"api-key": MARKER})
        shelf.put("default/other", password="x")
        await known.want({"default/openai", "team/gone"})
        assert sorted(shelf.asked) == ["default/openai", "team/gone"]
        assert known.has("default/openai", "api-key")
        assert known.value("default/openai", "api-key") == MARKER.encode()
        assert not known.has("default/openai", "other-key")
        assert known.exists("default/openai")
        assert not known.exists("team/gone")
        assert not known.has("default/other", "password")
        await known.want({"default/openai", "team/gone"})
        assert len(shelf.asked) == 2

    run(main())


def test_what_nobody_refers_to_any_more_is_forgotten(shelf):
    async def main():
        known = secrets(shelf)
        shelf.put("default/openai", key=MARKER)
        await known.want({"default/openai"})
        await known.want(set())
        assert known.value("default/openai", "key") is None
        assert MARKER not in str(vars(known))

    run(main())


SELECTION = ("default", "app=key")


def test_consumers_are_found_by_their_labels_and_followed(shelf):
    async def main():
        known = Secrets(shelf, random.Random(7), may_list=True)
        shelf.put_consumer("default/a", MARKER)
        shelf.put_consumer("team/other", "x")
        told = []
        await known.want(set(), {SELECTION})
        assert [face.name for face in known.selected(*SELECTION)] == ["a"]
        assert known.value("default/a", "api-key") == MARKER.encode()
        assert known.value("default/a", "other") is None
        assert known.value("team/other", "api-key") is None
        following = asyncio.ensure_future(known.follow(lambda: told.append(1)))
        await asyncio.sleep(SECONDS)
        assert told == []
        shelf.put_consumer("default/b", "two")
        await asyncio.sleep(SECONDS)
        assert len(told) == 1
        assert [face.name for face in known.selected(*SELECTION)] == ["a", "b"]
        del shelf.secrets["default/a"]
        await asyncio.sleep(SECONDS)
        assert len(told) == 2
        assert not known.has("default/a", "api-key")
        await known.want(set())
        assert known.selected(*SELECTION) is None
        assert MARKER not in str(vars(known))
        following.cancel()

    run(main())


def test_without_the_right_to_list_nothing_is_asked(shelf):
    async def main():
        known = secrets(shelf)
        shelf.put_consumer("default/a", MARKER)
        await known.want(set(), {SELECTION})
        assert known.selected(*SELECTION) is None
        assert shelf.asked == []

    run(main())


@pytest.mark.parametrize("status", [403, 400])
def test_a_refused_list_is_no_list_of_nobody(shelf, caplog, status):
    async def main():
        known = Secrets(shelf, random.Random(7), may_list=True)
        shelf.wrong["list"] = status
        await known.want(set(), {SELECTION})
        assert known.selected(*SELECTION) is None

    run(main())


def test_while_the_api_server_is_away_consumers_stay(shelf):
    async def main():
        known = Secrets(shelf, random.Random(7), may_list=True)
        shelf.put_consumer("default/a", MARKER)
        await known.want(set(), {SELECTION})
        shelf.wrong["list"] = 503
        following = asyncio.ensure_future(known.follow(lambda: None))
        await asyncio.sleep(3 * SECONDS)
        assert [face.name for face in known.selected(*SELECTION)] == ["a"]
        following.cancel()

    run(main())


def test_an_empty_value_is_none(shelf):
    async def main():
        known = secrets(shelf)
        shelf.put("default/a", key="")
        await known.want({"default/a"})
        assert known.exists("default/a")
        assert not known.has("default/a", "key")

    run(main())


def test_data_that_is_missing_or_no_base64(shelf):
    async def main():
        known = secrets(shelf)
        shelf.secrets = {
            "default/a": {},
            "default/b": {"data": None},
            "default/c": {"data": {"bad": "?", "ok": "eA=="}},
        }
        await known.want(shelf.secrets)
        assert [known.exists(name) for name in shelf.secrets] == [True] * 3
        assert known.value("default/c", "ok") == b"x"
        assert not known.has("default/c", "bad")

    run(main())


def follow(known, changed, seconds):
    """Follow for a while."""

    async def main():
        task = asyncio.ensure_future(known.follow(changed))
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return main()


def test_a_rotation_is_seen_and_told_once(shelf):
    async def main():
        known, told = secrets(shelf), []
        shelf.put("default/a", key="old")
        await known.want({"default/a"})
        await follow(known, lambda: told.append(1), 3 * SECONDS)
        assert told == []
        shelf.put("default/a", key="new")
        await follow(known, lambda: told.append(known.value("default/a", "key")), SECONDS + 0.1)
        assert told == [b"new"]

    run(main())


def test_a_secret_that_comes_and_one_that_goes_are_told(shelf):
    async def main():
        known, told = secrets(shelf), []
        shelf.put("default/a", key="x")
        await known.want({"default/a", "default/b"})
        del shelf.secrets["default/a"]
        shelf.put("default/b", key="y")
        await follow(known, lambda: told.append(1), SECONDS + 0.1)
        assert told == [1]
        assert (known.exists("default/a"), known.exists("default/b")) == (False, True)

    run(main())


def test_while_the_api_server_is_away_what_was_seen_last_counts(shelf, caplog):
    async def main():
        known, told = secrets(shelf), []
        shelf.put("default/a", key=MARKER)
        await known.want({"default/a"})
        shelf.wrong["*"] = 0
        await follow(known, lambda: told.append(1), 10 * SECONDS)
        assert told == []
        assert known.value("default/a", "key") == MARKER.encode()
        shelf.wrong.clear()
        shelf.put("default/a", key="new")
        await follow(known, lambda: told.append(1), SECONDS + 0.1)
        assert told == [1]

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert "Secrets could not be read" in caplog.text
    assert MARKER not in caplog.text


def test_a_new_reference_while_the_api_server_is_away_is_an_error_and_no_absence(shelf):
    """Else a policy would lose its accounts because of an outage."""

    async def main():
        known = secrets(shelf)
        shelf.put("default/a", key="x")
        shelf.put("default/b", key="y")
        await known.want({"default/a"})
        shelf.wrong["*"] = 503
        with pytest.raises(ApiError):
            await known.want({"default/a", "default/b"})
        assert known.has("default/a", "key")
        shelf.wrong.clear()
        await known.want({"default/a", "default/b"})
        assert known.has("default/b", "key")

    run(main())


def test_one_that_may_not_be_read_counts_as_absent_and_keeps_no_other_from_being_read(shelf, caplog):
    async def main():
        known = secrets(shelf)
        shelf.put("default/a", key="x")
        shelf.wrong["default/closed"] = 403
        await known.want({"default/a", "default/closed"})
        assert known.has("default/a", "key")
        assert not known.exists("default/closed")

    run(main())
    assert "the Secret default/closed may not be read" in caplog.text


def test_one_that_fails_keeps_no_other_from_being_read(shelf):
    async def main():
        known = secrets(shelf)
        for name in ("default/a", "default/c"):
            shelf.put(name, key="x")
        shelf.wrong["default/b"] = 500
        with pytest.raises(ApiError):
            await known.want({"default/a", "default/b", "default/c"})
        assert known.has("default/a", "key")
        assert known.has("default/c", "key")

    run(main())


def test_what_was_given_up_while_it_was_read_is_not_kept(shelf):
    async def main():
        known = secrets(shelf)
        shelf.put("default/a", key=MARKER)
        reading = asyncio.ensure_future(known.want({"default/a"}))
        await asyncio.sleep(0.005)
        await known.want(set())
        await reading
        assert not known.exists("default/a")

    run(main())


def test_a_few_at_a_time(shelf):
    async def main():
        await secrets(shelf).want({f"default/s{number}" for number in range(40)})
        assert shelf.most == AT_ONCE

    run(main())


# ---- gateways


def gateways(shelf):
    return Gateways(shelf, "spillway", "spillway")


def test_gateways_of_this_installation_by_name(shelf):
    async def main():
        known = gateways(shelf)
        shelf.deployments = [
            make.deployment("spillway-gateway", "default"),
            make.deployment("spillway-gateway-edge", "edge", 1),
            make.deployment("other-gateway", "stranger"),
            make.deployment("spillway-gatewayx", "stranger"),
            make.deployment("spillway-gateway-bare", None),
        ]
        assert not known.asked
        assert await known.refresh()
        assert known.asked
        assert {name: facts.replicas for name, facts in known.known.items()} == {"default": 2, "edge": 1}
        assert not await known.refresh()

    run(main())


def test_no_gateway_at_all_is_news_the_first_time(shelf):
    async def main():
        known = gateways(shelf)
        assert await known.refresh()
        assert not await known.refresh()
        assert known.known == {}

    run(main())


def test_gateways_that_come_scale_and_go_are_told(shelf):
    async def main():
        known, told = gateways(shelf), []
        for deployments, expected in (
            ([make.deployment()], 1),
            ([make.deployment(replicas=5)], 2),
            ([make.deployment(replicas=5)], 2),
            ([], 3),
        ):
            shelf.deployments = deployments
            await follow(known, lambda: told.append(1), 2 * GATEWAY_SECONDS)
            assert len(told) == expected

    run(main())


def test_while_the_api_server_is_away_gateways_stay(shelf, caplog):
    async def main():
        known, told = gateways(shelf), []
        shelf.deployments = [make.deployment()]
        await known.refresh()
        shelf.wrong["*"] = 0
        await follow(known, lambda: told.append(1), 20 * GATEWAY_SECONDS)
        assert known.known.keys() == {"default"}
        assert told == []

    run(main())
    assert caplog.text.count("gateways could not be listed") == 1
