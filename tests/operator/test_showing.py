"""Who lacks a sidecar is shown, once, by the leader alone, and however many they are the API server is spared."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from collections import Counter

import pytest
from tests.operator.clock import run
from tests.operator.test_lacking import SIDECAR, at, client

from spillway_operator.cluster import ApiError
from spillway_operator.injection import LABEL
from spillway_operator.lacking import CONDITION
from spillway_operator.metrics import Metrics
from spillway_operator.podwatch import CHUNK
from spillway_operator.settings import Settings
from spillway_operator.showing import AGAIN_SECONDS, AT_A_TIME, Showing


class Api:
    """Pods in memory behind the methods of `Cluster`: lists in pages, watches from a version on, and may say no."""

    def __init__(self):
        self.pods = {}
        self.version = 10
        self.history = []
        self.forgotten = 0
        """Up to this version nobody knows any more what happened."""
        self.changed = asyncio.Event()
        self.webhook = at(-3600)
        self.spaces = {}
        self.lists = []
        self.watches = Counter()
        self.patches = []
        self.events = []
        self.no = {}

    def put(self, pod):
        meta = pod["metadata"]
        before = self.pods.get(meta["uid"])
        self._tell(before, pod)
        self.pods[meta["uid"]] = pod

    def drop(self, uid):
        self._tell(self.pods.pop(uid), None)

    def _tell(self, before, after):
        self.version += 1
        if after is not None:
            after["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, before, after))
        self.changed.set()

    async def page(self, api, plural, namespace, query):
        await asyncio.sleep(0.001)
        self._may("list")
        start = int(query["continue"] or 0)
        found = [pod for pod in self.pods.values() if _takes(query["labelSelector"], namespace, pod)]
        self.lists.append((namespace, query["labelSelector"]))
        more = str(start + CHUNK) if start + CHUNK < len(found) else ""
        meta = {"resourceVersion": str(self.version), "continue": more}
        return json.dumps({"metadata": meta, "items": found[start : start + CHUNK]}).encode()

    async def watch(self, api, plural, namespace, query, silence):
        self._may("watch")
        seen, place = int(query["resourceVersion"]), (namespace, query["labelSelector"])
        self.watches[place] += 1
        try:
            while True:
                if seen < self.forgotten:
                    yield json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode()
                    return
                for version, before, after in self.history:
                    if version > seen and (event := _event(place, before, after, version)) is not None:
                        yield json.dumps(event).encode()
                    seen = max(seen, version)
                self.changed.clear()
                await self.changed.wait()
                self._may("watch")
        finally:
            self.watches[place] -= 1

    async def get(self, api, plural, namespace, name):
        self._may("get")
        if plural == "namespaces":
            return self.spaces.get(name)
        return None if self.webhook is None else {"metadata": {"name": name, "creationTimestamp": self.webhook}}

    async def apply_status(self, api, plural, namespace, name, body):
        await asyncio.sleep(0.001)
        self.patches.append((round(asyncio.get_running_loop().time(), 2), name, body["status"]["conditions"]))
        self._may(name)
        pod = next((each for each in self.pods.values() if each["metadata"]["name"] == name), None)
        if pod is None:
            return
        if pod["metadata"]["uid"] != body["metadata"]["uid"]:
            raise ApiError(422, "Invalid", "metadata.uid: field is immutable")
        self.put({**pod, "status": {**pod["status"], "conditions": body["status"]["conditions"]}})

    async def event(self, regarding, type, reason, message, now):
        self._may("event")
        self.events.append((regarding["name"], type, reason, message.partition(":")[0]))

    def _may(self, verb):
        if verb in self.no:
            raise ApiError(self.no[verb], "Whatever", verb)

    def told(self, uid):
        return {each["type"]: each["reason"] for each in self.pods[uid]["status"].get("conditions", ())}


def _takes(selector, namespace, pod):
    own = pod["metadata"]["labels"].get(LABEL)
    wanted = own is None if selector.startswith("!") else own == "true"
    return wanted and namespace in ("", pod["metadata"]["namespace"])


def _event(place, before, after, version):
    """As the API server tells a watch by labels: what no longer has them is deleted, as it was before."""
    was = before is not None and _takes(place[1], place[0], before)
    there = after is not None and _takes(place[1], place[0], after)
    if there:
        return {"type": "MODIFIED" if was else "ADDED", "object": after}
    body = {**before, "metadata": {**before["metadata"], "resourceVersion": str(version)}} if was else None
    return {"type": "DELETED", "object": body} if was else None


class World:
    """Of the cluster: which namespaces ask."""

    def __init__(self):
        self.spaces = {}

    def asking(self):
        return dict(self.spaces)


class Scene:
    """A replica that leads, over Pods in memory."""

    def __init__(self, **settings):
        self.api, self.world, self.metrics, self.leads = Api(), World(), Metrics(), True
        self.it = self.replica(**settings)

    def replica(self, **settings):
        given = Settings(namespace="spillway", name="operator-0", address="10.0.0.1", **settings)
        return Showing(
            given,
            self.api,
            SIDECAR,
            lambda: self.leads,
            lambda: self.world,
            self.metrics,
            random.Random(7),
            lambda: 1e9,
        )

    def put(self, name, own="true", **more):
        more["meta"] = {"name": name, "uid": f"u-{name}", **more.get("meta", {})}
        self.api.put(client(own, **more))

    def counted(self):
        lines = (line.split() for line in self.metrics.page().decode().splitlines())
        return {
            line[0].removeprefix("spillway_operator_pods_without_sidecar"): float(line[1])
            for line in lines
            if line[0].startswith("spillway_operator_pods_without_sidecar")
        }


MISSED = '{namespace="shop",reason="MissedWebhook"}'


def test_a_pod_without_is_told_counted_and_forgotten_when_it_goes(caplog):
    async def main():
        scene = Scene()
        scene.put("web")
        scene.it.changed()
        await asyncio.sleep(5)
        scene.put("late")
        await asyncio.sleep(5)
        assert scene.api.told("u-web") == scene.api.told("u-late") == {CONDITION: "MissedWebhook"}
        assert scene.api.events == [(name, "Warning", "NoSidecar", "MissedWebhook") for name in ("web", "late")]
        assert scene.counted() == {MISSED: 2.0}
        scene.api.drop("u-web")
        await asyncio.sleep(5)
        assert scene.counted() == {MISSED: 1.0}
        scene.put("late", phase="Succeeded", conditions=scene.api.pods["u-late"]["status"]["conditions"])
        await asyncio.sleep(5)
        assert scene.counted() == {}
        assert scene.api.told("u-late") == {CONDITION: "MissedWebhook"}, "what was, stays"
        await scene.it.close()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert [each.getMessage() for each in caplog.records] == [
        f"Pods of namespace shop lack a sidecar (MissedWebhook): {name}" for name in ("web", "late")
    ]


def test_an_unchanged_condition_is_not_written_again_by_anybody():
    async def main():
        scene = Scene()
        for name in "abc":
            scene.put(name)
        scene.it.changed()
        await asyncio.sleep(5)
        assert len(scene.api.patches) == 3
        for name in "abc":  # a heartbeat, some minutes, another leader
            pod = scene.api.pods[f"u-{name}"]
            scene.api.put({**pod, "status": {**pod["status"], "startTime": at(9)}})
        await asyncio.sleep(600)
        await scene.it.close()
        again = scene.replica()
        again.changed()
        await asyncio.sleep(600)
        assert scene.counted() == {MISSED: 3.0}
        await again.close()
        assert len(scene.api.patches) == len(scene.api.events) == 3

    run(main())


def test_a_thousand_pods_are_written_one_by_one_and_slowly():
    async def main():
        scene = Scene()
        scene.world.spaces["shop"] = at(-1800)
        for number in range(1000):
            scene.put(f"p{number}", None)
        scene.it.changed()
        await asyncio.sleep(600)
        names = Counter(name for _, name, _ in scene.api.patches)
        assert len(names) == 1000
        assert set(names.values()) == {1}
        assert len(scene.api.events) == 1000
        seconds = Counter(int(when) for when, _, _ in scene.api.patches)
        assert max(seconds.values()) <= 2 * AT_A_TIME
        assert max(seconds) - min(seconds) >= 1000 / AT_A_TIME - 2
        assert scene.counted() == {MISSED: 1000.0}
        assert Counter(scene.api.lists) == {("", f"{LABEL}=true"): 1, ("shop", f"!{LABEL}"): 1000 // CHUNK}
        await scene.it.close()

    run(main())


def test_a_replica_that_does_not_lead_asks_and_writes_nothing():
    async def main():
        scene = Scene()
        scene.leads = False
        scene.put("web")
        scene.it.changed()
        await asyncio.sleep(300)
        assert scene.api.lists == scene.api.patches == []
        scene.leads = True
        scene.it.changed()
        await asyncio.sleep(5)
        assert scene.counted() == {MISSED: 1.0}
        scene.leads = False
        scene.it.changed()
        await asyncio.sleep(5)
        assert scene.counted() == {}
        assert sum(scene.api.watches.values()) == 0
        scene.put("other")
        await asyncio.sleep(300)
        assert len(scene.api.patches) == 1
        await scene.it.close()

    run(main())


def test_labels_of_a_namespace_come_and_go():
    async def main():
        scene = Scene()
        scene.put("quiet", None, made=-7200)
        scene.put("no", "false")
        scene.it.world_changed()
        await asyncio.sleep(60)
        assert scene.api.patches == []
        scene.world.spaces["shop"] = at(-60)
        scene.it.world_changed()
        await asyncio.sleep(5)
        assert scene.api.told("u-quiet") == {CONDITION: "CreatedBefore"}
        assert scene.api.events == [("quiet", "Normal", "NoSidecar", "CreatedBefore")]
        del scene.world.spaces["shop"]
        scene.it.world_changed()
        await asyncio.sleep(5)
        assert scene.api.told("u-quiet") == {}
        assert scene.counted() == {}
        assert scene.api.watches[("shop", f"!{LABEL}")] == 0
        assert len(scene.api.patches) == 2
        await scene.it.close()

    run(main())


def test_the_condition_goes_with_the_label_of_a_pod():
    async def main():
        scene = Scene()
        scene.put("web")
        scene.it.changed()
        await asyncio.sleep(5)
        scene.put("web", "false", conditions=scene.api.pods["u-web"]["status"]["conditions"])
        await asyncio.sleep(5)
        assert scene.api.told("u-web") == {}
        assert scene.counted() == {}
        await scene.it.close()

    run(main())


def test_what_happened_while_the_watch_was_away_is_seen_by_the_next_listing():
    async def main():
        scene = Scene()
        scene.put("a")
        scene.put("b")
        scene.it.changed()
        await asyncio.sleep(5)
        scene.api.no["watch"] = 503
        scene.api.changed.set()
        await asyncio.sleep(1)
        scene.api.drop("u-a")
        scene.put("c")
        scene.api.forgotten = scene.api.version
        del scene.api.no["watch"]
        await asyncio.sleep(120)
        assert scene.counted() == {MISSED: 2.0}
        assert scene.api.told("u-c") == {CONDITION: "MissedWebhook"}
        await scene.it.close()

    run(main())


def test_a_watch_that_is_cut_goes_on_without_listing_anew():
    async def main():
        scene = Scene()
        scene.it.changed()
        await asyncio.sleep(5)
        scene.api.no["watch"] = 0
        scene.api.changed.set()
        await asyncio.sleep(1)
        scene.put("late")
        del scene.api.no["watch"]
        await asyncio.sleep(60)
        assert scene.counted() == {MISSED: 1.0}
        assert len(scene.api.lists) == 1
        await scene.it.close()

    run(main())


@pytest.mark.parametrize("status", [403, 500, 409])
def test_a_pod_that_cannot_be_written_keeps_nobody_from_the_others(status):
    async def main():
        scene = Scene()
        bad = [f"bad{number}" for number in range(AT_A_TIME + 5)]
        for name in (*bad, "good"):
            scene.put(name)
        scene.api.no.update(dict.fromkeys(bad, status))
        scene.it.changed()
        await asyncio.sleep(10)
        assert scene.api.told("u-good") == {CONDITION: "MissedWebhook"}
        tried = Counter(name for _, name, _ in scene.api.patches)
        assert set(tried.values()) == {1}
        assert scene.counted() == {MISSED: len(bad) + 1.0}
        scene.api.no.clear()
        await asyncio.sleep(3 * AGAIN_SECONDS)
        assert all(scene.api.told(f"u-{name}") for name in bad)
        assert len(scene.api.events) == len(bad) + 1
        await scene.it.close()

    run(main())


def test_an_event_that_cannot_be_written_is_no_reason_to_write_the_condition_again():
    async def main():
        scene = Scene()
        scene.put("web")
        scene.api.no["event"] = 403
        scene.it.changed()
        await asyncio.sleep(300)
        assert len(scene.api.patches) == 1
        await scene.it.close()

    run(main())


def test_another_pod_of_the_same_name_is_not_told_what_the_first_one_was():
    async def main():
        scene = Scene()
        scene.put("web", spec={"hostNetwork": True})
        scene.it.changed()
        await asyncio.sleep(5)
        assert scene.api.told("u-web") == {CONDITION: "Refused"}
        scene.api.drop("u-web")
        scene.put("web", None, meta={"uid": "other"})
        await asyncio.sleep(300)
        assert scene.api.told("other") == {}
        await scene.it.close()

    run(main())


def test_with_namespaces_that_are_named_only_those_are_asked_for():
    async def main():
        scene = Scene(watched=("shop",))
        created = {"creationTimestamp": at(-1800), "labels": {LABEL: "true"}}
        scene.api.spaces = {"shop": {"metadata": {"name": "shop", **created}}, "spillway": {"metadata": {"name": "s"}}}
        scene.put("mine", None)
        scene.put("theirs", namespace="else")
        scene.it.changed()
        await asyncio.sleep(5)
        assert scene.counted() == {MISSED: 1.0}
        assert {namespace for namespace, _ in scene.api.lists} == {"shop"}
        await scene.it.close()

    run(main())


def test_without_the_api_server_what_was_seen_stays():
    async def main():
        scene = Scene()
        scene.put("web")
        scene.it.changed()
        await asyncio.sleep(5)
        scene.api.no.update({"get": 0, "list": 0, "watch": 0})
        scene.api.changed.set()
        await asyncio.sleep(600)
        assert scene.counted() == {MISSED: 1.0}
        scene.api.no.clear()
        scene.put("late")
        await asyncio.sleep(120)
        assert scene.counted() == {MISSED: 2.0}
        await scene.it.close()

    run(main())


def test_beyond_many_namespaces_one_watch_serves_all_and_nobody_else_is_told():
    async def main():
        scene = Scene()
        scene.world.spaces = {f"n{number}": at(-1800) for number in range(30)}
        for number, space in itertools.product(range(3), ("n1", "n2", "quiet")):
            scene.put(f"{space}-{number}", None, namespace=space)
        scene.it.changed()
        await asyncio.sleep(5)
        assert sum(scene.api.watches.values()) == 2
        assert {name.partition("-")[0] for _, name, _ in scene.api.patches} == {"n1", "n2"}
        del scene.world.spaces["n2"]
        scene.it.changed()
        await asyncio.sleep(10)
        assert [scene.api.told(f"u-{space}-0") for space in ("n1", "n2")] == [{CONDITION: "MissedWebhook"}, {}]
        assert len(scene.api.patches) == 9
        assert sum(scene.api.watches.values()) == 2
        await scene.it.close()

    run(main())


def test_a_pod_that_is_not_understood_keeps_nobody_from_the_others(caplog):
    async def main():
        scene = Scene()
        scene.put("odd", spec={"containers": [{"no": "name"}]})
        scene.put("web")
        scene.it.changed()
        await asyncio.sleep(5)
        assert scene.counted() == {MISSED: 1.0}
        await scene.it.close()

    run(main())
    assert "Pod shop/odd could not be understood: KeyError" in caplog.text


def test_what_changes_elsewhere_wakes_nobody():
    async def main():
        scene = Scene()
        scene.put("web")
        scene.it.changed()
        scene.it.world_changed()
        await asyncio.sleep(5)
        looks = []
        scene.it.changed = lambda: looks.append(1)
        for _ in range(100):
            scene.it.world_changed()
        assert looks == []
        scene.world.spaces["shop"] = at(0)
        scene.it.world_changed()
        assert looks == [1]
        await scene.it.close()

    run(main())
