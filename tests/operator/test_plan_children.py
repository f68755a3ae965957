"""The plan: what a gateway's balancers boot from and find their keys in."""

from __future__ import annotations

import base64
import copy
import json

import pytest
import tests.operator.objects as make
from tests.operator.fleets import SECRETS, Fleet
from tests.operator.test_plan import FACTS, USUAL

from spillway_api.credentials import file_of
from spillway_api.snapshot import Snapshot
from spillway_api.stream import Saved
from spillway_operator import plan
from spillway_operator.facts import model_pool
from spillway_operator.plan import boot_config_map, credentials_secret, referenced, saved_in


def owner(child):
    (only,) = child["metadata"]["ownerReferences"]
    return only


def test_the_config_map_that_a_new_balancer_boots_from():
    fleet = Fleet().see(*USUAL)
    saved = fleet.progress["default"].saved
    child = boot_config_map(FACTS, "spillway", saved)
    assert child is not None
    assert (child["kind"], child["metadata"]["name"]) == ("ConfigMap", "spillway-gateway-boot")
    assert child["metadata"]["namespace"] == "spillway"
    assert child["metadata"]["labels"]["spillway.dev/gateway"] == "default"
    expected = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "spillway-gateway", "uid": "uid-7"}
    assert owner(child) == expected
    assert saved_in(json.loads(json.dumps(child))) == saved
    assert boot_config_map(FACTS, "spillway", saved) == child


@pytest.mark.parametrize(
    "config_map",
    [
        None,
        {},
        {"data": {"snapshot.json.gz": "x"}},
        {"binaryData": None},
        {"binaryData": {}},
        {"binaryData": {"snapshot.json.gz": "no base64!"}},
        {"binaryData": {"snapshot.json.gz": base64.b64encode(b"no gzip").decode()}},
        {"binaryData": {"snapshot.json.gz": base64.b64encode(plan.stream.gzip.compress(b'{"digest": 5}')).decode()}},
    ],
)
def test_whatever_a_config_map_holds_it_is_a_saved_state_or_none(config_map):
    assert saved_in(config_map) is None


def test_a_snapshot_that_is_too_large_for_a_config_map(monkeypatch):
    saved = Saved("d", 0.0, Snapshot("default", (), ()))
    assert boot_config_map(FACTS, "spillway", saved) is not None
    monkeypatch.setattr(plan, "BOOT_BYTES", 10)
    assert boot_config_map(FACTS, "spillway", saved) is None


def secret_of(fleet):
    compiled = fleet.progress["default"].compiled
    return credentials_secret(FACTS, "spillway", compiled.snapshot, fleet.value)


def test_the_secret_holds_the_referenced_values_of_the_snapshots_pools_and_no_others():
    unused = make.model_pool("unused", auth={"secretRef": {"name": "engine"}})
    secrets = SECRETS | {"default/openai": {"api-key": "sk-quagga-openai", "billing": "sk-quagga-billing"}}
    fleet = Fleet(secrets=secrets).see(*USUAL, unused)
    child = secret_of(fleet)
    values = {key: base64.b64decode(value).decode() for key, value in child["data"].items()}
    assert values == {
        file_of("default/openai", "api-key"): "sk-quagga-openai",
        file_of("default/groq", "api-key"): "sk-quagga-groq",
    }
    assert (child["metadata"]["name"], child["type"]) == ("spillway-gateway-credentials", "Opaque")
    assert owner(child)["uid"] == "uid-7"


def test_without_credentials_the_secret_is_there_and_empty():
    assert secret_of(Fleet().see(make.model_pool("llama"), make.route_policy()))["data"] == {}


def test_a_rotated_value_changes_the_secret_and_nothing_else():
    fleet = Fleet().see(*USUAL)
    before, mark = secret_of(fleet), fleet.progress["default"].digest
    fleet.secrets = {**SECRETS, "default/openai": {"api-key": "rotated"}}
    fleet.see(*USUAL)
    assert secret_of(fleet) != before
    assert fleet.progress["default"].digest == mark


def test_nothing_of_a_value_is_anywhere_else():
    engine = make.model_pool("engine", auth={"secretRef": {"name": "engine"}}, models=("m",))
    route = make.route_policy("e", "engine", models=("e",))
    fleet = Fleet().see(*USUAL, engine, route).acknowledge()
    progress = fleet.progress["default"]
    seen = [
        repr(fleet.statuses()),
        json.dumps([each.status for each in fleet.statuses().values()]),
        repr(progress.compiled),
        repr(progress.saved),
        plan.stream.gzip.decompress(plan.stream.pack(progress.saved)).decode(),
    ]
    assert len(secret_of(fleet)["data"]) == 3
    for text in seen:
        assert "openai" in text
        for marker in ("sk-quagga", base64.b64encode(b"sk-quagga-openai").decode()[:12]):
            assert marker not in text


def test_which_secrets_are_referred_to():
    pools = [
        model_pool(body)
        for body in (
            *USUAL[:2],
            make.model_pool("engine", auth={"secretRef": {"name": "engine"}}, namespace="team"),
            make.model_pool("open", {"provider": {"type": "OpenAI", "accounts": [{"name": "free"}]}}),
            {**make.model_pool("unreadable"), "spec": None},
        )
    ]
    assert referenced(pools) == {"default/openai", "default/groq", "team/engine"}


def test_the_secrets_of_a_pool_that_cannot_be_read_any_more_are_kept():
    fleet = Fleet().see(*USUAL)
    last = fleet.progress["default"].last_good
    broken = [model_pool({**copy.deepcopy(body), "spec": {"models": 5}}) for body in USUAL[:2]]
    assert referenced(broken, [None, last]) == {"default/openai", "default/groq"}
    assert referenced(broken) == frozenset()
