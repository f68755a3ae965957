"""Policies in files, and the two commands that say offline what they would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from spillway_balancer.commands import app

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT = "the zebra and the quagga"


class Said(NamedTuple):
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Bench:
    """Files of one test, and the commands on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, value: Any) -> Path:
        path = self.folder / name
        if isinstance(value, list) and name.startswith("policies"):
            path.write_text(yaml.safe_dump_all(value, sort_keys=False))
        else:
            path.write_text(value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False))
        return path

    @staticmethod
    def spillway(*arguments: object, text: str | None = None) -> Said:
        found = CliRunner().invoke(app, [*map(str, arguments)], input=text)
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return Said(found.exit_code, found.stdout, found.stderr)

    def explain(self, policies: Path, *options: object, state: Any = None, body: Any = None, **fields: Any) -> Said:
        """With --json unless `body` is text."""
        if state is not None:
            options = (*options, "--state", self.write("state.yaml", state))
        if body is None:
            body = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], **fields}
        text = body if isinstance(body, str) else json.dumps(body)
        return self.spillway("explain", "-", "-f", policies, *options, text=text)

    def account(self, policies: Path, *options: object, **given: Any) -> Any:
        """The account as JSON; the request is served."""
        said = self.explain(policies, *options, "--json", **given)
        assert said.code in (0, 1), said
        return said.json()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def examples() -> Path:
    return EXAMPLES


def pool(name: str, *endpoints: str, models: Any = None, **spec: Any) -> dict[str, Any]:
    static = [{"name": each, "url": f"http://{each}:8000"} for each in endpoints or ("e1", "e2")]
    base = {"models": models or [{"name": f"{name}-model"}], "source": {"static": {"endpoints": static}}}
    return _object("ModelPool", name, {**base, **spec})


def policy(*tiers: dict[str, Any], rules: Any = None, **spec: Any) -> dict[str, Any]:
    rules = rules or [{"name": "all", "tiers": list(tiers)}]
    return _object("RoutePolicy", "chat", {"models": ["chat"], "rules": rules, **spec})


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def two_tiers(bench: Bench) -> Callable[..., Path]:
    """`two_tiers(**spill)`: `local` of two endpoints, then `cloud` of one."""

    def make(enter_on: Any = None, **spill: Any) -> Path:
        local: dict[str, Any] = {"name": "local", "pools": [{"name": "own"}]}
        if spill:
            local["spill"] = spill
        cloud: dict[str, Any] = {"name": "cloud", "pools": [{"name": "other"}]}
        if enter_on is not None:
            cloud["enterOn"] = enter_on
        return bench.write("policies.yaml", [pool("own"), pool("other", "main"), policy(local, cloud)])

    return make
