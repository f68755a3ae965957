"""The example and the page of the sidecar say what the code does."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spillway_api.compile import compile_snapshot
from spillway_api.files import load
from spillway_api.sidecars import Asked, remote_name, view
from spillway_operator import amounts, injection
from spillway_operator.injection import Sidecar, asked, inject

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sidecar.yaml"
PAGE = (ROOT / "docs" / "sidecar.md").read_text()
SIDECAR = Sidecar("spillway-balancer:1.0", "https://operator:9443", {"default": "http://spillway"})


def pods() -> dict[str, Any]:
    """What its workloads make, as the API server would."""
    found = [each for each in yaml.safe_load_all(EXAMPLE.read_text()) if each["kind"] in ("Deployment", "Job")]
    return {each["kind"]: each["spec"]["template"] for each in found}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_the_pods_of_the_example_get_a_sidecar(kind: str) -> None:
    pod = copy.deepcopy(pods()[kind])
    assert asked(pod, {})
    made = inject(pod, "default", SIDECAR)
    assert not made.refused
    (container,) = (each for step in made.patch for each in _listed(step["value"]) if each.get("name") == "spillway")
    assert container["restartPolicy"] == "Always"
    assert [word for word in container["args"] if word.startswith("--route")] == ["--route=default/chat"]


def _listed(value: Any) -> list[Any]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def test_its_engines_are_asked_by_the_sidecar_and_its_provider_by_the_gateway() -> None:
    snapshot = compile_snapshot(load([EXAMPLE]).objects, "default", lambda _secret, _key: True).snapshot
    given = view(snapshot, Asked(None, frozenset({"default/chat"})))
    (route,) = (each for each in given.routes if each.name == "default/chat")
    tiers = {tier.name: [target.pool for target in tier.targets] for tier in route.rules[0].tiers}
    assert tiers == {"local": ["default/llama-8b"], "cloud": [remote_name("default")]}
    assert all(endpoint.credential is None for pool in given.pools for endpoint in pool.endpoints)


def test_the_page_has_every_annotation_and_no_other() -> None:
    ours = {injection._GATEWAY, injection._PORT, injection._ROUTES, *amounts.ANNOTATIONS}
    rows = [line for line in PAGE.splitlines() if line.startswith("| `spillway.dev/")]
    assert {name for row in rows for name in re.findall(r"spillway\.dev/[\w-]+", row.split("|")[1])} == ours


def test_the_page_has_the_defaults() -> None:
    resources = SIDECAR.resources
    for amount in (*resources["requests"].values(), *resources["limits"].values()):
        assert amount in PAGE
    assert str(injection.ADMIN_PORT) in PAGE
