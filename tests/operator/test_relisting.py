"""What was deleted while kopf's watch was away is told after all: kopf itself lists anew and says nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import ClassVar

import kopf
import pytest
import tests.operator.objects as make
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kopf._cogs.clients.watching import Bookmark
from tests.operator.clock import run

from spillway_operator.relisting import with_missed
from spillway_operator.watching import Watching, settings_for


async def stream(events):
    for event in events:
        yield event


def heard(events, known):
    async def main():
        return [event async for event in with_missed(stream(events), known)]

    return run(main())


def listed(*names):
    return [{"type": None, "object": make.pod(name)} for name in names]


def of(type, name):
    return {"type": type, "object": make.pod(name)}


def gone(events):
    return [
        event["object"]["metadata"]["name"]
        for event in events
        if isinstance(event, dict) and event["type"] == "DELETED"
    ]


def test_a_first_listing_and_its_watch_pass_as_they_are():
    events = [
        *listed("a", "b"),
        Bookmark.LISTED,
        of("ADDED", "c"),
        of("DELETED", "a"),
        {"type": "BOOKMARK", "object": {}},
    ]
    assert heard(events, {}) == events


def test_what_a_second_listing_lacks_is_told_before_it_ends():
    known = {}
    heard([*listed("a", "b", "c"), Bookmark.LISTED, of("ADDED", "d"), of("DELETED", "a")], known)
    again = heard([*listed("b"), Bookmark.LISTED], known)
    assert sorted(gone(again)) == ["c", "d"]
    assert again[-1] is Bookmark.LISTED
    assert gone(heard([*listed("b"), Bookmark.LISTED], known)) == []


def test_an_empty_listing_deletes_everything():
    known = {}
    heard([*listed("a"), Bookmark.LISTED], known)
    assert gone(heard([Bookmark.LISTED], known)) == ["a"]


def test_a_listing_that_breaks_off_deletes_nothing():
    known = {}
    heard([*listed("a", "b"), Bookmark.LISTED], known)
    assert gone(heard(listed("a"), known)) == []
    assert gone(heard([*listed("a"), Bookmark.LISTED], known)) == ["b"]


def test_what_came_back_under_its_name_is_another_object():
    known = {}
    heard([{"type": None, "object": make.pod("a", uid="old")}, Bookmark.LISTED], known)
    again = heard([{"type": None, "object": make.pod("a", uid="new")}, Bookmark.LISTED], known)
    assert [event["object"]["metadata"]["uid"] for event in again[1:-1]] == ["old"]
    assert known.keys() == {"new"}


names = st.sampled_from("abcd")
rounds = st.lists(
    st.tuples(
        st.sets(names), st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), names), max_size=5)
    ),
    max_size=4,
)


@given(rounds)
def test_whoever_believes_every_event_knows_what_there_is_after_each_listing(rounds):
    known, believed = {}, set()
    for there, changes in rounds:
        events = [*listed(*sorted(there)), Bookmark.LISTED, *(of(type, name) for type, name in changes)]
        for event in heard(events, known):
            if event is Bookmark.LISTED:
                assert believed == there
            elif event["type"] == "DELETED":
                believed.discard(event["object"]["metadata"]["name"])
            else:
                believed.add(event["object"]["metadata"]["name"])


# ---- kopf itself, on a real socket


def group(name, version):
    return {"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}}


def resources(*those):
    verbs = ["list", "watch", "patch"]
    found = [
        {"name": plural, "singularName": "", "kind": kind, "namespaced": True, "verbs": verbs} for plural, kind in those
    ]
    return {"resources": found}


class Server:
    """As much of an API server as kopf needs for Pods, pools and Services; every watch can be ended with 410 Gone."""

    def __init__(self):
        self.objects = {"pods": [], "modelpools": [], "namespaces": [], "customresourcedefinitions": []}
        self.listings = 0
        self.gone = asyncio.Event()

    async def start(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return self.runner.addresses[0][1]

    PAGES: ClassVar = {
        "/api": {"versions": ["v1"]},
        "/apis": {"groups": [group("spillway.dev", "v1alpha1"), group("apiextensions.k8s.io", "v1")]},
        "/api/v1": resources(("pods", "Pod"), ("namespaces", "Namespace")),
        "/apis/spillway.dev/v1alpha1": resources(("modelpools", "ModelPool")),
        "/apis/apiextensions.k8s.io/v1": resources(("customresourcedefinitions", "CustomResourceDefinition")),
    }

    async def _serve(self, request):
        if request.path in self.PAGES:
            return web.json_response(self.PAGES[request.path])
        plural = request.path.rsplit("/", 1)[1]
        if plural not in self.objects:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        if "watch" not in request.query:
            self.listings += plural == "pods"
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.objects[plural]})
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await self.gone.wait()
        error = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
        await answer.write(json.dumps(error).encode() + b"\n")
        return answer


@pytest.fixture
async def server(tmp_path, monkeypatch):
    server = Server()
    port = await server.start()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    yield server
    await server.runner.cleanup()


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nobody tells when kopf is done
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def watched(server):
    """kopf watches the server; a pool selects the Pods a and b. No fixture: in the end kopf cancels all later tasks."""
    server.objects["modelpools"] = [make.model_pool("llama", make.pods())]
    server.objects["pods"] = [make.pod("a"), make.pod("b", "10.0.0.2")]
    server.woken = []
    watching = Watching(lambda: server.woken.append(1), lambda: None)
    settings = settings_for(None, 70.0)
    settings.watching.reconnect_backoff = 0.01
    stop = asyncio.Event()
    registry = watching.registry()
    running = asyncio.ensure_future(
        kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True, stop_flag=stop)
    )
    try:
        await until(lambda: watching.synced)
        yield watching
    finally:
        stop.set()
        await asyncio.wait([running], timeout=20)


async def test_a_pod_that_went_while_the_watch_was_away_is_an_endpoint_no_more(server):
    async with watched(server) as watching:

        def endpoints():
            (pool,) = watching.world.pools()
            return [each.name for each in watching.world.found(pool.item).discovered.endpoints]

        assert endpoints() == ["a:8000", "b:8000"]
        server.objects["pods"] = [make.pod("a")]
        before = len(server.woken)
        server.gone.set()
        await until(lambda: server.listings > 1)
        server.gone.clear()
        await until(lambda: endpoints() == ["a:8000"])
        assert len(server.woken) > before


async def test_watches_that_run_are_told_from_those_that_do_not(server):
    """By the names of kopf's tasks. What this server does not have nobody watches."""
    async with watched(server) as watching:
        assert sorted(watching.lost()) == ["endpointslices", "routepolicies", "services"]
    assert {"pods", "modelpools", "namespaces"} < set(watching.lost())
