"""The same objects in a cluster and on a laptop: from files, what only a cluster knows is a note and no error."""

from __future__ import annotations

import aiohttp
import pytest
import yaml
from typer.testing import CliRunner

from spillway_balancer.commands import app
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge

SOURCES = {
    "pods": {"selector": {"matchLabels": {"app": "vllm"}}, "ports": [8000]},
    "service": {"name": "vllm", "port": "http"},
    "inferencePool": {"name": "vllm"},
}
ASK = {"model": "chat", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
TIERS = [
    {"name": "home", "pools": [{"name": "home"}], "spill": {"whenUnavailable": True}},
    {"name": "away", "pools": [{"name": "local"}]},
]


def pool_of(objects, kind):
    document = objects.pool("home")
    document["spec"]["source"] = {kind: dict(SOURCES[kind])}
    return document


@pytest.fixture
def file(tmp_path):
    def write(*documents):
        path = tmp_path / "spillway.yaml"
        path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
        return path

    return write


@pytest.mark.parametrize("kind", list(SOURCES))
def test_a_source_of_a_cluster_is_noted_at_its_place_and_its_pool_is_empty(kind, file, objects):
    path = file(pool_of(objects, kind), objects.route("home"))
    judged = judge((path,), "default", Credentials(None))
    assert judged.errors == ()
    (note,) = judged.notes
    line = next(at for at, text in enumerate(path.read_text().splitlines(), 1) if f"{kind}:" in text)
    assert note.startswith(f"{path}:{line}:")
    assert note.endswith(
        f"ModelPool/default/home: spec.source.{kind}: NoEndpoints: "
        "its endpoints are known in a cluster only; from files the pool has none"
    )
    assert judged.snapshot is not None
    assert [(pool.name, pool.endpoints) for pool in judged.snapshot.pools] == [("default/home", ())]


@pytest.mark.parametrize("kind", list(SOURCES))
def test_lint_says_so_and_exits_0(kind, file, objects):
    result = CliRunner().invoke(app, ["lint", "-f", str(file(pool_of(objects, kind), objects.route("home")))])
    assert result.exit_code == 0
    assert result.output.startswith("note: ")
    assert "from files the pool has none" in result.output
    assert "ok: 1 pools, 0 endpoints, models chat" in result.output


def test_lint_still_refuses_what_a_cluster_would(file, objects):
    document = pool_of(objects, "pods")
    document["spec"]["source"]["pods"]["selector"] = {}
    result = CliRunner().invoke(app, ["lint", "-f", str(file(document))])
    assert result.exit_code == 1
    assert "an empty selector would take every pod of the namespace" in result.output


def test_a_pool_of_another_namespace_works_from_files_as_its_owner_allows(file, objects):
    shared = objects.pool("shared", "http://127.0.0.1:9", allowedRoutes={"from": "All"})
    shared["metadata"]["namespace"] = "team"
    tiers = [{"name": "only", "pools": [{"name": "shared", "namespace": "team"}]}]
    judged = judge((file(shared, objects.route(tiers=tiers)),), "default", Credentials(None))
    assert (judged.errors, judged.notes) == ((), ())
    shared["spec"]["allowedRoutes"] = {"from": "Same"}
    (error,) = judge((file(shared, objects.route(tiers=tiers)),), "default", Credentials(None)).errors
    assert "NotAllowedByPool" in error


@pytest.mark.parametrize("kind", list(SOURCES))
async def test_requests_go_where_there_is_something(kind, serve, engine, objects):
    home = pool_of(objects, kind)
    lb = await serve(docs=[home, objects.pool("local", await engine()), objects.route(tiers=TIERS)])
    async with aiohttp.ClientSession() as client, client.post(f"{lb.url}/v1/chat/completions", json=ASK) as answer:
        assert answer.status == 200
    assert lb.sample("spillway_tier_requests_total", tier="away") == 1


async def test_with_nothing_anywhere_the_client_is_told_that_it_may_come_again(serve, objects):
    lb = await serve(docs=[pool_of(objects, "pods"), objects.route("home")])
    async with aiohttp.ClientSession() as client, client.post(f"{lb.url}/v1/chat/completions", json=ASK) as answer:
        assert answer.status == 503
        assert "error" in await answer.json()
