"""Under a steady load of streams and plain requests by the OpenAI SDK, which does not retry: nothing fails.

The tests share one load and follow each other; each judges the requests that ended in its own time.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest
from tests.kube.access import until
from tests.kube.installed import objects
from tests.kube.installed.release import GATEWAY, MODELS, OPERATOR, SYSTEM, restarts

AWAY_SECONDS = 60.0
"""How long the operator is away at least."""


def test_nothing_fails_while_nothing_happens(release, load):
    with load.phase() as phase:
        time.sleep(8)
    phase.check("quiet")


def test_engines_are_restarted_one_by_one(release, load):
    with load.phase() as phase:
        release.restart("engines")
    phase.check("engines rolled")


def test_the_gateway_is_restarted_one_by_one(release, load):
    with load.phase() as phase:
        release.restart(GATEWAY, SYSTEM)
    phase.check("gateway rolled")


def test_a_gateway_that_leaves_still_serves_who_hears_of_it_late(release, load):
    """On large clusters Services follow by seconds: for eight of them a Pod that is to end takes new connections."""
    pod = release.pods(GATEWAY)[0]
    url = f"http://{pod['status']['podIP']}:8080/v1/models"
    with load.phase() as phase:
        release.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", namespace=SYSTEM)
        end = time.monotonic() + 8.0
        codes = Counter()
        while time.monotonic() < end:
            said = release.cluster.exec("sh", "-c", f"curl -s -o /dev/null -m 5 -w '%{{http_code}}' {url} || true")
            codes[said] += 1
            time.sleep(0.1)
        release.settled(GATEWAY, 2)
    phase.check("gateway left late")
    print(f"new connections to the Pod that left: {dict(codes)}")
    assert set(codes) == {"200"}, codes


def test_an_engine_is_killed(release, load):
    """Streams of which the client has seen something end with an error event; all other requests go elsewhere."""
    with load.phase(3.0) as phase:
        for _ in range(3):
            time.sleep(1)
            release.kill(release.busiest())
    # Two of three long streams and some short ones, spread over four engines: at worst all are on the one that dies.
    phase.check("three engines killed", cut=15)
    assert phase.cut, "nobody noticed: the load was too light for this test"
    release.settled("engines", objects.ENGINES)


def test_a_policy_is_broken_and_mended(release, load):
    """Its last good version goes on serving, and `kubectl get` says so at every step."""
    good = {"ready": "True", "reason": "Programmed", "tiers": "default: local=Open"}
    with load.phase() as phase:
        release.shows("routepolicy", "chat", **good)
        release.cluster.apply(objects.policy("chat", "by-ponds"), namespace=MODELS)
        release.shows("routepolicy", "chat", ready="False", reason="PoolNotFound")
        for condition in ("Ready", "ResolvedRefs"):
            said = release.condition("routepolicies", "chat", condition)
            assert "by-ponds" in said["message"]
            assert "last good version" in said["message"]
        assert release.condition("routepolicies", "chat", "Programmed")["reason"] == "Pending"
        # Nobody else is touched.
        assert release.row("routepolicy", "chat-service")["ready"] == "True"
        assert release.row("modelpool", "by-pods")["ready"] == "True"
        time.sleep(2)
        release.cluster.apply(objects.policy("chat", "by-pods"), namespace=MODELS)
        release.shows("routepolicy", "chat", **good)
        release.kubectl("wait", "--for=condition=Ready", "routepolicy/chat", "--timeout=10s")
        events = release.kubectl("get", "events", "--field-selector", "involvedObject.name=chat")
        assert "PoolNotFound" in events
    phase.check("policy broken and mended")


def test_a_key_is_rotated(release, load):
    """The engines take both keys for a while, then the new one only; no balancer is started anew for it."""
    before = sorted(release.names(GATEWAY))
    with load.phase() as phase:
        _roll_keyed(release, objects.OLD, objects.NEW)
        changed = time.monotonic()
        release.cluster.apply(objects.secret(objects.NEW), namespace=MODELS)
        until(lambda: all(_has_read(release, pod) for pod in before), "the new key in both balancers", 120.0)
        lag = time.monotonic() - changed
        _roll_keyed(release, objects.NEW)
        began = time.time()
        until(lambda: any(each.at > began and each.model == "keyed" for each in load.all()), "requests by the new key")
        time.sleep(1)
    print(f"a rotated key is in force in both balancers after {lag:.0f} s")
    phase.check("key rotated")
    assert sorted(release.names(GATEWAY)) == before
    assert not any(restarts(pod) for pod in release.pods(GATEWAY))
    release.shows("modelpool", "keyed", ready="True", endpoints="1/1")


def _roll_keyed(release, *keys):
    before = set(release.names("keyed"))
    release.cluster.apply(objects.keyed(*keys), namespace=MODELS)
    release.rolled("keyed", before, 2)


def _has_read(release, pod):
    return "credentials have changed" in release.kubectl("logs", pod, namespace=SYSTEM)


@pytest.mark.timeout(600)
def test_the_operator_is_away(release, load):
    """Engines go and come meanwhile, and a balancer starts that has never seen an operator."""
    ready = {"ready": "True", "endpoints": f"{objects.ENGINES}/{objects.ENGINES}"}
    with load.phase() as phase:
        release.scale(OPERATOR, 0, SYSTEM)
        away = time.monotonic()
        restarted = release.busiest()
        gone = next(name for name in release.names("engines") if name != restarted)
        release.kubectl("delete", "pod", gone, "--wait=false")
        release.kill(restarted)
        gateways = set(release.names(GATEWAY))
        first = min(gateways)
        release.kubectl("delete", "pod", first, namespace=SYSTEM)
        release.settled(GATEWAY, 2)
        (new,) = set(release.names(GATEWAY)) - gateways
        assert not release.connected(new)
        assert {each["id"] for each in release.ask(new, "/v1/models")["data"]} == set(objects.MODELS)
        said = release.ask(new, "/v1/chat/completions", objects.question("chat"))
        assert said["choices"][0]["message"]["content"]
        release.settled("engines", objects.ENGINES)
        time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - away)))
        print(f"the operator was away for {time.monotonic() - away:.0f} s")
    # Of a killed engine the streams under way are cut.
    phase.check("operator away", cut=7)
    with load.phase() as phase:
        release.scale(OPERATOR, 2, SYSTEM)
        began = time.monotonic()
        pods = set(release.names("engines"))
        for gateway in release.names(GATEWAY):
            until(lambda gateway=gateway: _knows(release, gateway, pods), f"{gateway} knows all engines", 60.0)
        print(f"in force {time.monotonic() - began:.1f} s after the operator was ready again")
        release.shows("modelpool", "by-pods", **ready)
        release.shows("modelpool", "by-service", **ready)
        release.shows("routepolicy", "chat", ready="True", reason="Programmed")
    phase.check("operator back")


def _knows(release, gateway, pods):
    names = release.endpoints(gateway, "by-pods")
    return len(names) == len(pods) and all(any(pod in name for name in names) for pod in pods)


def test_an_upgrade_rolls_the_gateway(release, load):
    before = set(release.names(GATEWAY))
    with load.phase() as phase:
        release.upgrade({"gateway": {"maxBodyMiB": 16}})
        release.rolled(GATEWAY, before, 2)
    phase.check("upgraded")
    assert "--max-body=16" in release.pods(GATEWAY)[0]["spec"]["containers"][0]["args"]


def test_nothing_has_failed_between_the_tests_either(load):
    failed = [each for each in load.all() if each.failed]
    print(f"{len(load.all())} requests in all")
    assert not failed, failed[:5]
