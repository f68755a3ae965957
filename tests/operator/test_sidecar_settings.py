"""The file with which an operator is told of sidecars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spillway_operator.amounts import DEFAULT
from spillway_operator.cli import cli
from spillway_operator.injection import Sidecar
from spillway_operator.sidecar_settings import BadSidecars, read_sidecars

FILE: dict[str, Any] = {
    "image": "spillway-balancer:1",
    "operator": "https://spillway-operator.infra.svc:9443",
    "gateways": {"default": "http://spillway.infra.svc"},
}


def read(folder: Path, **said: Any) -> Sidecar:
    path = folder / "sidecars.json"
    path.write_text(json.dumps({**FILE, **said}))
    return read_sidecars(path)


def test_what_is_said_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, pullPolicy="Always", pullSecrets=["a"], resources={"limits": {"memory": "1Gi"}})
    assert found == Sidecar(*FILE.values(), "Always", ("a",), {"limits": {"memory": "1Gi"}})
    assert read(tmp_path, resources={}).resources == {}


def test_who_says_nothing_of_resources_does_not_get_sidecars_without_any(tmp_path: Path) -> None:
    assert read(tmp_path).resources == DEFAULT


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"image": ""}, "needs an image"),
        ({"gateways": {}}, "and a gateway"),
        ({"gateway": "x"}, "unknown field `gateway`"),
        ({"resources": {"limits": {"memory": "128m"}}}, "resources.limits.memory: 128m is too little"),
        ({"image": 7}, "Expected `str`, got `int` - at `$.image`"),
        ({"resources": {"limits": {"memory": "1e9"}}}, "resources.limits.memory: '1e9' is no quantity"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSidecars) as told:
        read(tmp_path, **said)
    assert words in str(told.value)


def test_an_operator_that_is_told_wrongly_does_not_begin(tmp_path: Path) -> None:
    path = tmp_path / "absent.json"
    run = ["run", "--namespace", "infra", "--name", "o", "--sidecars", str(path)]
    done = CliRunner().invoke(cli, run)
    assert done.exit_code == 2
    assert f"--sidecars {path}" in done.output
