"""Clients with the balancer in their own Pods, under a steady load: what they lose when something goes, and who holds
what. The tests share the load and follow each other.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter

import pytest
from tests.kube.access import until
from tests.kube.installed import labelled, objects, seen
from tests.kube.installed.beside import Beside, sidecar
from tests.kube.installed.labelled import ASKERS, SHARED, STEADY
from tests.kube.installed.load import Load
from tests.kube.installed.release import GATEWAY, MODELS, OPERATOR, SYSTEM

MOST_MB = 60.0
"""Of memory that an idle sidecar holds."""
START_SECONDS = 2.0
"""It takes half a second; but the machine may be busy with other Pods."""


@pytest.fixture(scope="module")
def beside(release):
    """Ten Pods that ask what they are told, each with its sidecar, and nobody else who asks."""
    release.kubectl("delete", "pod", "client", "--ignore-not-found")
    release.injects()
    release.cluster.apply(objects.programs(), *labelled.world(), labelled.askers(ASKERS), namespace=MODELS)
    beside = Beside(release)
    release.settled("shared", SHARED)
    release.settled("small", 1)
    release.kubectl("wait", "--for=condition=Ready", "routepolicy", "--all", "--timeout=60s")
    beside.settled(ASKERS)
    for pod in beside.names():
        until(lambda pod=pod: beside.endpoints(pod, "shared"), f"{pod} knows its engines")
    yield beside
    release.kubectl(
        "delete",
        "--wait=false",
        "--ignore-not-found",
        "deployment/askers",
        "pod/late",
        *(f"pod/{name}" for name in STEADY),
    )


@pytest.fixture(scope="module")
def steady(release, beside):
    """Two Pods of the SDK's requests without an end."""
    release.cluster.apply(*map(labelled.steady, STEADY), namespace=MODELS)
    release.kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in STEADY), "--timeout=60s")
    steady = Load(lambda: "".join(release.kubectl("logs", name, "-c", "client") for name in STEADY))
    with steady.phase(3.0):
        pass
    return steady


def test_idle_sidecars_are_small_and_soon_ready(release, beside):
    pods = beside.pods()
    held = [seen.rss(release.cluster, pod) for pod in pods]
    print(f"RSS of {len(pods)} idle sidecars: {min(held):.1f} to {max(held):.1f} MB")
    assert max(held) < MOST_MB
    assert not any(sidecar(pod)["restartCount"] for pod in pods)
    assert all(beside.connected(pod["metadata"]["name"]) for pod in pods)
    # One that starts alone and has no state: what it serves from came from the operator.
    *_, name = beside.names()
    beside.forget(name)
    beside.kill(name)
    until(lambda: beside.endpoints(name, "shared"), f"{name} knows its engines again")
    pod = release.cluster.api.get(f"/api/v1/namespaces/{MODELS}/pods/{name}")
    took = beside.in_force_since(name) - seen.began(release.cluster, pod)
    print(f"a sidecar has the operator's snapshot in force {took:.2f} s after its process began")
    assert took < START_SECONDS


def test_a_job_of_an_unmodified_client_speaks_to_its_sidecar_and_ends(release, beside):
    """One label, and no address anywhere: engines see the Pod itself, and the Pod ends when its client does."""
    release.cluster.apply(labelled.job(), namespace=MODELS)
    began = time.monotonic()
    release.kubectl("wait", "--for=condition=Complete", "job/unmodified", "--timeout=60s")
    print(f"the Job was complete after {time.monotonic() - began:.1f} s")
    listed = release.cluster.api.get(f"/api/v1/namespaces/{MODELS}/pods?labelSelector=job-name=unmodified")
    (pod,) = listed["items"]
    assert pod["status"]["phase"] == "Succeeded"
    assert sidecar(pod)["state"]["terminated"]["exitCode"] == 0
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    said = release.kubectl("logs", name, "-c", "client").splitlines()
    asked = [line.split() for line in said]
    assert [way for _, way, _ in asked] == ["plain", "stream", "message"]
    assert all(base.startswith("http://127.0.0.1:8787") and int(length) for base, _, length in asked), said
    sources = _sources(release, "engines")
    assert sources[address] == len(asked), sources
    gateways = {each["status"]["podIP"] for each in release.pods(GATEWAY)}
    assert not gateways & _sources(release, "engines", "--since=20s").keys()


def test_engines_are_restarted_one_by_one(release, steady):
    with steady.phase() as phase:
        release.restart("engines")
    phase.check("beside sidecars: engines rolled")


def test_all_send_a_session_to_the_same_engine(release, beside):
    """Two sidecars and the gateway, none of which has seen the others' requests."""
    one, other = beside.names()[:2]
    gateway = f"http://spillway.{SYSTEM}.svc/v1"
    homes = Counter()
    for number in range(12):
        asked = {"session": f"session-{number}", "text": f"the question of session {number}"}
        ways = ((one, ""), (other, ""), (one, gateway))
        ends = {beside.ask(pod, "shared", base=base, **asked).endpoint for pod, base in ways}
        assert len(ends) == 1, (number, ends)
        homes[ends.pop()] += 1
    assert len(homes) > 1, homes


def test_many_sidecars_find_the_cache_of_one(release, beside):
    """Each turn of a conversation is asked by any of them, as of a service of many replicas: the engines count."""
    names = beside.names()
    shares = {
        "1 sidecar": beside.converse(names[:1], "shared"),
        f"{ASKERS} sidecars": beside.converse(names, "shared"),
        f"{ASKERS} sidecars by dice": beside.converse(names, "by-dice"),
    }
    print("prompt tokens found in a cache: " + ", ".join(f"{who} {share:.0%}" for who, share in shares.items()))
    assert shares[f"{ASKERS} sidecars"] >= shares["1 sidecar"] - 0.15
    assert shares[f"{ASKERS} sidecars"] > shares[f"{ASKERS} sidecars by dice"] + 0.2


def test_what_gateways_have_scraped_leads_a_sidecar_past_an_engine_that_is_busy_with_others(beside):
    first, second = beside.behind_others(beside.names()[:3], "load-shared")
    print(f"others' work at the home of a session, load shared: answered after {second.seconds:.2f} s")
    assert second.endpoint != first.endpoint


def test_what_needs_a_key_goes_by_the_gateway_and_no_sidecar_holds_the_key(release, beside):
    pod = beside.pods()[0]
    name = pod["metadata"]["name"]
    gateways = release.names(GATEWAY)
    said = beside.ask(name, "keyed")
    assert (said.status, said.by_gateway) == (200, True), said
    with beside.busy(name, "burst"):
        spilled = beside.ask(name, "burst")
    assert (spilled.status, spilled.by_gateway) == (200, True), spilled
    assert beside.ask(name, "burst").by_gateway is False
    assert pod["status"]["podIP"] not in _sources(release, "keyed")
    # By the Pod's token: else the gateway would have served these as any others.
    assert sum(release.sample(each, "spillway_forwarded_requests_total", vouched="known") for each in gateways) >= 2
    key = _key(release)
    gateway = release.pods(GATEWAY)[0]
    assert seen.holds(release.cluster, gateway, seen.MAIN, key) == ["memory", "files"], "this would find it"
    assert seen.holds(release.cluster, pod, seen.SIDECAR, key) == []
    assert key not in json.dumps(pod)


def test_what_goes_by_the_gateway_outlives_its_restart(release, beside):
    with beside.asking(beside.names()[:4], "keyed") as answers:
        release.restart(GATEWAY, SYSTEM)
    print(f"{len(answers)} requests by a gateway that was rolled")
    assert {(each.status, each.by_gateway) for each in answers} == {(200, True)}, [
        each for each in answers if each.status != 200
    ][:3]
    assert len(answers) > 40


def test_the_gateway_is_deleted_and_comes_back(release, beside, steady):
    """Requests to pools go on, endpoints come and go; what needs the gateway is refused, or stays at home."""
    name = beside.names()[0]
    engine = release.names("engines")[0]
    try:
        with steady.phase() as phase:
            release.kubectl("delete", f"deployment/{GATEWAY}", namespace=SYSTEM)
            until(lambda: not release.pods(GATEWAY), "no gateway", 60.0)
            _without_gateway(release, beside, name, engine)
            time.sleep(3)
        phase.check("beside sidecars: no gateway")
    finally:
        release.upgrade({})
    with steady.phase() as phase:
        release.settled(GATEWAY, 2)
        until(lambda: beside.ask(name, "keyed").status == 200, "the provider again", 30.0)
        with beside.busy(name, "burst"):
            assert beside.ask(name, "burst").by_gateway
    phase.check("beside sidecars: gateway back")


def _without_gateway(release, beside, name, engine):
    refused = beside.ask(name, "keyed")
    print(f"without a gateway: {refused.status} after {refused.seconds:.1f} s: {refused.text[:300]}")
    assert refused.status == 503
    assert refused.seconds < 5.0
    with beside.busy(name, "burst"):
        at_home = beside.ask(name, "burst")
    assert (at_home.status, at_home.by_gateway) == (200, False), at_home
    first, second = beside.behind_others(beside.names()[3:6], "nothing-shared")
    print(f"others' work at the home of a session, no gateway: answered after {second.seconds:.2f} s")
    assert second.endpoint == first.endpoint
    release.serve(engine, False)
    until(lambda: engine not in str(beside.endpoints(name, "by-pods")), "an endpoint gone", 10.0)
    release.serve(engine, True)
    until(lambda: engine in str(beside.endpoints(name, "by-pods")), "an endpoint back", 10.0)


def test_the_operator_is_restarted_and_killed(release, beside, steady):
    with steady.phase() as phase:
        release.restart(OPERATOR, SYSTEM)
        for pod in release.names(OPERATOR):
            release.kill(pod, namespace=SYSTEM)
        for pod in beside.names():
            until(lambda pod=pod: beside.connected(pod), f"{pod} is connected", 60.0)
    phase.check("beside sidecars: operator rolled, then killed")


def test_without_an_operator_a_sidecar_starts_from_what_it_has(release, beside, steady):
    """Its last good state, or the gateway by its name where it has none."""
    kept, bare, *_ = beside.names()
    with steady.phase() as phase:
        release.scale(OPERATOR, 0, SYSTEM)
        beside.forget(bare)
        for pod in (kept, bare):
            began = time.monotonic()
            beside.kill(pod)
            said = beside.ask(pod, "chat")
            print(f"started again without an operator, answers {time.monotonic() - began:.1f} s after the kill")
            assert (said.status, said.by_gateway) == (200, pod == bare), said
            assert not beside.connected(pod)
        assert beside.ask(kept, "keyed").by_gateway
        # Nobody can give it a sidecar now. It is made all the same, and said to lack one as soon as somebody can.
        release.cluster.apply(labelled.late(), namespace=MODELS)
        release.kubectl("wait", "--for=condition=Ready", "pod/late", "--timeout=60s")
        release.scale(OPERATOR, 2, SYSTEM)
        until(lambda: beside.ask(bare, "chat").by_gateway is False, "its own way to the engines", 60.0)
        release.kubectl("wait", "--for=condition=spillway.dev/Sidecar=False", "pod/late", "--timeout=60s")
    phase.check("beside sidecars: no operator")
    late = release.cluster.api.get(f"/api/v1/namespaces/{MODELS}/pods/late")
    assert "initContainers" not in late["spec"]
    (told,) = (each for each in late["status"]["conditions"] if each["type"] == "spillway.dev/Sidecar")
    assert told["reason"] == "MissedWebhook", told


def test_nothing_has_failed_between_the_tests_either(release, beside, steady):
    failed = [each for each in steady.all() if each.failed]
    print(f"{len(steady.all())} requests in all")
    assert not failed, failed[:5]
    for name in STEADY:
        pod = release.cluster.api.get(f"/api/v1/namespaces/{MODELS}/pods/{name}")
        assert sidecar(pod)["restartCount"] == 0
        print(f"RSS of {name}'s sidecar after all of that: {seen.rss(release.cluster, pod):.1f} MB")
    said = release.kubectl("logs", "-l", "app=askers", "-c", "spillway", "--tail=-1")
    said += "".join(release.kubectl("logs", name, "-c", "spillway") for name in STEADY)
    errors = [line for line in said.splitlines() if " ERROR " in line]
    assert not errors, errors[:5]


def _sources(release, app, *more):
    """From which addresses the engines of an app say that they were asked, and how often."""
    said = release.kubectl("logs", "-l", f"app={app}", "--tail=-1", *more)
    return Counter(re.findall(r" POST /v1/\S+ \S+ \S+ from (\S+)", said))


def _key(release):
    secret = release.cluster.api.get(f"/api/v1/namespaces/{MODELS}/secrets/account")
    return base64.b64decode(secret["data"]["api-key"]).decode()
