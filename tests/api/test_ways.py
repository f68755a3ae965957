"""How a pool is reached: authorities and proxies, and what is missing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trustme

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.files import load
from spillway_api.snapshot import Credential, Proxy, Trust
from spillway_api.types import ModelPool, RoutePolicy

CA = trustme.CA().cert_pem.bytes().decode()
ROUTE = {
    "apiVersion": "spillway.dev/v1alpha1",
    "kind": "RoutePolicy",
    "metadata": {"name": "chat"},
    "spec": {"models": ["chat"], "rules": [{"name": "all", "tiers": [{"name": "only", "pools": [{"name": "p"}]}]}]},
}


def pool(tls: Any = None, proxy: Any = None) -> dict[str, Any]:
    provider: dict[str, Any] = {"type": "OpenAI", "accounts": [{"name": "main"}]}
    spec: dict[str, Any] = {"models": [{"name": "chat"}], "source": {"provider": provider}}
    if proxy is not None:
        provider["proxy"] = proxy
    if tls is not None:
        spec["tls"] = tls
    return {"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelPool", "metadata": {"name": "p"}, "spec": spec}


def compiled(item: dict[str, Any], maps: Any = None, secrets: Any = ()) -> Any:
    objects = [msgspec.convert(item, ModelPool), msgspec.convert(ROUTE, RoutePolicy)]
    cluster = Cluster(config=lambda name, key: (maps or {}).get((name, key)))
    return compile_snapshot(objects, "default", lambda name, key: (name, key) in secrets, cluster)


def test_authorities_stand_in_the_snapshot_and_a_proxys_log_in_does_not():
    item = pool(
        {"caConfigMapRef": {"name": "ca"}, "serverName": "llm.internal"},
        {"url": "http://proxy:3128/", "secretRef": {"name": "proxy"}},
    )
    found = compiled(item, {("default/ca", "ca.crt"): CA}, {("default/proxy", "api-key")})
    (made,) = found.snapshot.pools
    assert made.trust == Trust(CA, "llm.internal")
    assert made.proxy == Proxy(
        "http://proxy:3128", Credential("default/proxy", "api-key", "Proxy-Authorization", "Basic ")
    )
    assert [each.secret for each in made.credentials()] == ["default/proxy"]
    assert len(made.endpoints) == 1
    assert found.problems == ()


def test_of_a_list_of_authorities_the_certificates_are_taken_and_nothing_else():
    """As browsers' lists are handed around: with names in all scripts between them, perhaps with a byte order mark."""
    other = trustme.CA().cert_pem.bytes().decode()
    key = "-----BEGIN PRIVATE KEY-----\nMIIBmarker\n-----END PRIVATE KEY-----\n"
    listed = (
        f"\ufeff# Label: NetLock Arany (Class Gold) F\u0151tan\u00fas\u00edtv\u00e1ny\n{CA}\n{key}# \u79c1\n{other}"
    )
    found = compiled(pool({"caConfigMapRef": {"name": "ca"}}), {("default/ca", "ca.crt"): listed})
    assert found.problems == ()
    assert found.snapshot.pools[0].trust == Trust(CA + other)


@pytest.mark.parametrize(
    ("held", "reason", "message"),
    [
        ({}, "ConfigMapNotFound", 'no ConfigMap "ca" with a key "ca.crt"; the pool gets no requests'),
        (
            {("default/ca", "ca.crt"): "no certificate"},
            "Invalid",
            'key "ca.crt" of ConfigMap "ca" holds no certificates in PEM; the pool gets no requests',
        ),
        (
            {("default/ca", "ca.crt"): CA + CA[:200]},
            "Invalid",
            'key "ca.crt" of ConfigMap "ca" holds no certificates in PEM; the pool gets no requests',
        ),
        (
            {("default/ca", "ca.crt"): CA.replace("M", "\u0141")},
            "Invalid",
            'key "ca.crt" of ConfigMap "ca" holds no certificates in PEM; the pool gets no requests',
        ),
        (
            {("default/ca", "ca.crt"): CA.replace("M", "!", 20)},
            "Invalid",
            'key "ca.crt" of ConfigMap "ca" holds no certificates in PEM; the pool gets no requests',
        ),
    ],
)
def test_a_pool_that_cannot_know_whom_to_believe_gets_no_requests(held, reason, message):
    found = compiled(pool({"caConfigMapRef": {"name": "ca"}}), held)
    assert found.snapshot.pools[0].endpoints == ()
    assert [(each.path, each.reason, each.message) for each in found.problems] == [
        ("spec.tls.caConfigMapRef", reason, message)
    ]


def test_a_pool_whose_proxy_asks_for_a_log_in_that_is_missing_gets_no_requests():
    found = compiled(pool(proxy={"url": "http://proxy:3128", "secretRef": {"name": "proxy"}}))
    assert found.snapshot.pools[0].endpoints == ()
    assert [(each.path, each.reason) for each in found.problems] == [
        ("spec.source.provider.proxy.secretRef", "SecretNotFound")
    ]


def test_settings_without_authorities_go_with_the_systems():
    (made,) = compiled(pool({"serverName": "llm.internal"})).snapshot.pools
    assert made.trust == Trust(None, "llm.internal")
    (plain,) = compiled(pool()).snapshot.pools
    assert (plain.trust, plain.proxy) == (None, None)


def test_config_maps_of_files_are_read_and_looked_at(tmp_path):
    file = tmp_path / "maps.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: team}\ndata: {ca.crt: text}\n")
    loaded = load([file])
    assert loaded.problems == loaded.skipped == ()
    assert loaded.config("team/ca", "ca.crt") == "text"
    assert loaded.config("team/ca", "other") is None
    assert loaded.config("default/ca", "ca.crt") is None
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {a: 1}\n---\n" * 2)
    assert [str(each).removeprefix(f"{file}:") for each in load([file]).problems] == [
        "4:8: ConfigMap/default/ca: data.a: Invalid value: data.a in body must be of type string (put it in quotes)",
        "9:8: ConfigMap/default/ca: data.a: Invalid value: data.a in body must be of type string (put it in quotes)",
    ]
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: [1]\n")
    assert "data in body must be of type object" in str(load([file]).problems[0])
