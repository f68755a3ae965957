"""`spillway explain` from end to end: what it reads, what it refuses and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROMPT = "the zebra and the quagga"


def test_an_envelope_says_path_and_headers(bench, two_tiers) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}]}
    path = bench.write("request.json", json.dumps({"headers": {"x-session-id": "ann"}, "body": body}))
    said = bench.spillway("explain", path, "-f", two_tiers(), "--json")
    assert said.json()["key"] == "Header x-session-id"
    envelope = {"path": "/v1/embeddings", "body": {"model": "chat", "input": PROMPT}}
    account = bench.account(two_tiers(), body=envelope)
    assert account["path"] == "/v1/embeddings"
    assert bench.account(two_tiers(), "--path", "/v1/responses", body={"model": "chat", "input": "hi"})["path"] == (
        "/v1/responses"
    )


def test_no_word_of_the_prompt_is_said(bench, two_tiers) -> None:
    for options in ((), ("--json",)):
        said = bench.explain(two_tiers(), *options, "-H", "authorization: Bearer sk-zebra")
        assert said.code == 0
        assert "zebra" not in said.out + said.err


BAD = [
    ({"model": "chat", "stream": "yes"}, 400, "bad_request"),
    ("not json", 400, "invalid_json"),
    ({"messages": []}, 400, "missing_model"),
    ({"model": "chatt"}, 404, "model_not_found"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD, ids=[code for _, _, code in BAD])
def test_a_request_that_is_refused_is_answered_as_by_the_balancer(bench, two_tiers, body, status, code) -> None:
    said = bench.explain(two_tiers(), "--json", body=body if isinstance(body, str) else json.dumps(body))
    assert said.code == 1
    assert (said.json()["outcome"]["status"], said.json()["outcome"]["code"]) == (status, code)
    told = bench.explain(two_tiers(), body=body if isinstance(body, str) else json.dumps(body))
    assert f"answer   {status} {code}" in told.out


MISTAKES = [
    ({"pools": {"owm": {}}}, 'state.yaml:2:3: pools.owm: no pool "owm" (did you mean "own"?)'),
    ({"pools": {"own": {"inflight": 3}}}, 'unknown field "pools.own.inflight" (did you mean "inFlight"?)'),
    ({"pools": {"own": {"endpoints": {"e3": {}}}}}, 'no endpoint "e3"'),
    ({"pools": {"own": {"ready": 3}}}, "the pool has 2 endpoints"),
    ({"pools": {"own": {"circuit": "Ajar"}}}, 'supported values: "Closed", "Open", "HalfOpen"'),
    ({"pools": {"own": {"queued": 3, "inFlight": 2}}}, "queued is a part of inFlight"),
    ({"pools": {"own": {"predictedTTFT": "51s"}}}, "predictedTTFT must be at most 50s"),
    ({"pools": {"own": {"predictedTTFT": "soon"}}}, "a duration such as"),
    ({"pools": {"own": {"kvCachePercent": 101}}}, "less than or equal to 100"),
    ({"now": "today"}, "no time; write it like 2026-05-01T21:30:00Z"),
    ("pools: [", "not YAML"),
    ("- pools", "not a mapping"),
    ("a: 1\n---\nb: 1\n", "holds 2 documents; one is wanted"),
]


@pytest.mark.parametrize(("state", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_slip_in_the_state_is_said_with_its_place(bench, two_tiers, state, message) -> None:
    said = bench.explain(two_tiers(), state=state)
    assert said.code == 2
    assert message in said.err
    assert not said.out


def test_what_cannot_be_read_is_said(bench, two_tiers) -> None:
    assert bench.spillway("explain", "nowhere.json", "-f", two_tiers()).code == 2
    assert "write it as 'name: value'" in bench.explain(two_tiers(), "-H", "nothing").err
    assert "no such path; there are /v1/chat/completions" in bench.explain(two_tiers(), "--path", "/v2").err
    bad = bench.write("bad.yaml", "kind: ModelPool\n")
    said = bench.spillway("explain", "-", "-f", bad, text="{}")
    assert said.code == 2
    assert "bad.yaml:1:1" in said.err
    odd = bench.explain(two_tiers(), body=json.dumps({"body": {}, "header": {}}))
    assert "header: beside body there may be path and headers" in odd.err
    assert bench.explain(two_tiers(), body=json.dumps({"body": {}, "path": 3})).code == 2


def test_endpoints_that_only_a_cluster_knows_are_assumed(bench, two_tiers) -> None:
    text = two_tiers().read_text().replace("static:", "pods: {selector: {matchLabels: {a: b}}, ports: [8000]}\n#", 1)
    lines = text.split("\n")
    at = next(index for index, line in enumerate(lines) if "pods:" in line)
    end = next(index for index in range(at + 1, len(lines)) if lines[index].startswith("---"))
    policies = bench.write("policies.yaml", "\n".join([*lines[: at + 1], *lines[end:]]))
    said = bench.explain(policies)
    assert said.code == 0, said
    assert "own-0" in said.out
    assert "note: pool default/own finds its endpoints in a cluster; 2 are assumed" in said.err
    three = bench.account(policies, state={"pools": {"own": {"ready": 3}}})
    assert len(three["steps"][0]["endpoints"]) == 3
    named = bench.account(policies, state={"pools": {"own": {"endpoints": {"blue": {}, "green": {}}}}})
    assert [each["name"] for each in named["steps"][0]["endpoints"]] == ["blue", "green"]


def test_credentials_are_taken_to_be_there_unless_a_folder_is_named(bench, examples, tmp_path) -> None:
    state = {"pools": {"llama-8b": {"ready": 0}}}
    account = bench.account(examples / "spillover.yaml", state=state)
    assert account["outcome"]["endpoint"] == "main"
    said = bench.explain(examples / "spillover.yaml", "--secrets", tmp_path, state=state)
    assert said.code == 1
    assert "SecretNotFound" in said.err


def test_it_needs_no_network_and_no_server(two_tiers, bench) -> None:
    """The modules of sockets are not even loaded."""
    request = bench.write("request.json", json.dumps({"model": "chat", "messages": []}))
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('a socket')\n"
        "socket.socket.connect = refuse\n"
        "from spillway_balancer.explain.command import run_explain\n"
        "from pathlib import Path\n"
        f"run_explain(request=Path({str(request)!r}), file=[Path({str(two_tiers())!r})], gateway='default', "
        "secrets=None, headers=(), path='/v1/chat/completions', state=None, seed=1, as_json=True)\n"
        "assert 'aiohttp' not in sys.modules, 'aiohttp'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
