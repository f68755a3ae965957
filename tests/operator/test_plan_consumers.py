"""Consumers in the plan: their keys reach the one Secret that the gateway mounts, and nothing else."""

from __future__ import annotations

import base64
import gzip
import json

import tests.operator.objects as make
from tests.operator.fleets import SECRETS, Fleet

from spillway_api import stream
from spillway_api.credentials import file_of
from spillway_api.labelled import Labelled
from spillway_operator import plan
from spillway_operator.facts import GatewayFacts, route_policy
from spillway_operator.plan import credentials_secret, selections

FACTS = GatewayFacts("default", "spillway-gateway", "uid-7", "spillway-gateway", 2)
CHAT = "RoutePolicy/default/chat"
CLOSED = {"consumers": {"secretSelector": {"matchLabels": {"b": "2", "a": "1"}}}}
BODIES = [
    make.model_pool("openai", make.provider("openai")),
    make.route_policy("chat", "openai", **CLOSED),
]
KEYS = {f"default/{name}": {"api-key": f"sk-quagga-{name}"} for name in ("team-a", "team-b")}


def fleet_of(*names, secrets=KEYS):
    fleet = Fleet(secrets={**SECRETS, **secrets})
    fleet.consumers = [("default", Labelled(name, {"a": "1", "b": "2"}, {})) for name in names]
    return fleet.see(*BODIES)


def files(fleet):
    compiled = fleet.progress["default"].compiled
    data = credentials_secret(FACTS, "spillway", compiled.snapshot, fleet.value)["data"]
    return {file: base64.b64decode(value).decode() for file, value in data.items()}


def test_by_what_consumers_are_found():
    open_one, closed = route_policy(make.route_policy()), route_policy(BODIES[1])
    unreadable = route_policy({**BODIES[1], "spec": {"models": 5}})
    assert selections([open_one, closed]) == {("default", "a=1,b=2")}
    assert selections([unreadable]) == frozenset()
    last = fleet_of("team-a").progress["default"].last_good
    assert selections([unreadable], [None, last]) == {("default", "a=1,b=2")}


def test_their_keys_stand_in_the_gateways_secret_beside_the_providers():
    assert files(fleet_of("team-a", "team-b")) == {
        file_of("default/openai", "api-key"): "sk-quagga-openai",
        file_of("default/team-a", "api-key"): "sk-quagga-team-a",
        file_of("default/team-b", "api-key"): "sk-quagga-team-b",
    }


def test_where_there_is_no_room_for_all_the_providers_come_first(monkeypatch):
    monkeypatch.setattr(plan, "CREDENTIAL_BYTES", 120)
    assert list(files(fleet_of("team-a", "team-b"))) == [
        file_of("default/openai", "api-key"),
        file_of("default/team-a", "api-key"),
    ]


def test_what_is_amiss_is_a_condition():
    fleet = fleet_of("team-a").acknowledge()
    assert fleet.condition(CHAT, "Ready") == ("True", "Programmed")
    fleet = fleet_of("team-a", "gone").acknowledge()
    assert fleet.condition(CHAT, "ResolvedRefs") == ("False", "SecretKeyNotFound")
    assert fleet.condition(CHAT, "Accepted") == ("True", "Accepted")
    fleet.consumers = None
    fleet.see(*BODIES).acknowledge()
    assert fleet.condition(CHAT, "Ready") == ("False", "SecretsNotListed")
    assert "consumers.enabled" in fleet.message(CHAT, "ResolvedRefs")
    assert fleet.routes()["default/chat"].consumers.members == ()


def test_nothing_of_a_key_is_anywhere_else():
    fleet = fleet_of("team-a", "team-b").acknowledge()
    progress = fleet.progress["default"]
    seen = [
        repr(fleet.statuses()),
        json.dumps([each.status for each in fleet.statuses().values()]),
        repr(progress.compiled),
        repr(progress.saved),
        gzip.decompress(stream.pack(progress.saved)).decode(),
    ]
    for text in seen:
        assert "sk-quagga" not in text
        assert base64.b64encode(b"sk-quagga-team-a").decode()[:12] not in text
    assert "team-a" in seen[-1]
