"""`spillway prices` and `--prices`: what models cost, who says so, and that a list of one's own is followed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from spillway_balancer.commands import app
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge

POOLS = [
    {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": "openai"},
        "spec": {
            "models": [
                {"name": "small", "upstreamName": "gpt-5-mini"},
                {"name": "own", "price": {"input": "1.50"}},
                {"name": "strange"},
            ],
            "source": {"provider": {"type": "OpenAI", "accounts": [{"name": "main"}]}},
        },
    },
    {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": "engines"},
        "spec": {
            "models": [{"name": "gpt-5-mini"}],
            "source": {"static": {"endpoints": [{"name": "a", "url": "http://10.0.0.1:8000"}]}},
        },
    },
    {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "RoutePolicy",
        "metadata": {"name": "chat"},
        "spec": {
            "models": ["chat"],
            "rules": [{"name": "all", "tiers": [{"name": "t", "pools": [{"name": "openai", "model": "small"}]}]}],
        },
    },
]


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    path = tmp_path / "objects.yaml"
    path.write_text(yaml.safe_dump_all(POOLS))
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text('OpenAI: {gpt-5-mini: {input: "0.20", output: "1.60", longContext: [{above: 9000, input: "3"}]}}\n')
    return path


def lines(*arguments: object) -> list[str]:
    done = CliRunner().invoke(app, ["prices", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_of_models_by_name(own: Path) -> None:
    openai = next(each for each in lines("gpt-5-mini") if each.startswith("OpenAI gpt-5-mini: "))
    assert openai.startswith("OpenAI gpt-5-mini: input 0.25, cached input 0.025, output 2 USD (table, ")
    told = "OpenAI gpt-5-mini: input 0.20, output 1.60 USD; above 9000 tokens input 3 (overlay: gpt-5-mini)"
    assert told in lines("gpt-5-mini", "--prices", own)
    assert lines("nobody-has-it") == ["nobody-has-it: unknown"]


def test_of_pools(objects: Path) -> None:
    table, pool, unknown, engines = lines("-f", objects)
    assert table.startswith("ModelPool/default/openai small: input 0.25,")
    assert table.endswith(": gpt-5-mini)")
    assert pool == "ModelPool/default/openai own: input 1.50 USD (its own)"
    assert unknown == "ModelPool/default/openai strange: unknown; its requests are counted as unpriced"
    assert engines == "ModelPool/default/engines gpt-5-mini: unknown; own engines have what their owner says"


def test_what_cannot_be_told_is_said(tmp_path: Path, objects: Path) -> None:
    (tmp_path / "bad.yaml").write_text("OpenAI: 5")
    (tmp_path / "wrong.yaml").write_text("kind: ModelPool\n")
    for arguments, why in (
        ([], "of what?"),
        (["-f", objects, "--prices", tmp_path / "bad.yaml"], "bad.yaml: "),
        (["-f", tmp_path / "wrong.yaml"], "wrong.yaml"),
    ):
        done = CliRunner().invoke(app, ["prices", *map(str, arguments)])
        assert (done.exit_code, why in done.output) == (2, True)


def test_a_list_of_ones_own_is_what_files_are_served_by(objects: Path, own: Path, tmp_path: Path) -> None:
    def price(prices: Path | None) -> str | None:
        judged = judge((objects,), "default", Credentials(None), prices=prices)
        assert judged.snapshot is not None
        found = judged.snapshot.pools[0].models[0].price
        assert found is not None
        return found.input

    assert (price(None), price(own)) == ("0.25", "0.20")
    judged = judge((objects,), "default", Credentials(None), prices=tmp_path / "none.yaml")
    assert judged.snapshot is None
    assert "No such file" in judged.errors[0]


def test_lint_notes_what_nobody_knows_the_price_of(objects: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["lint", "-f", str(objects)])
    assert done.exit_code == 0, done.output
    (note,) = [line for line in done.output.splitlines() if "unpriced" in line]
    assert note.startswith('note: ModelPool/default/openai: nobody knows what model "strange" costs')
    (tmp_path / "prices.yaml").write_text('OpenAI: {strange: {input: "1"}}')
    done = CliRunner().invoke(app, ["lint", "-f", str(objects), "--prices", str(tmp_path / "prices.yaml")])
    assert "unpriced" not in done.output


def test_lint_and_run_take_it(objects: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("OpenAI: 5")
    for command in ("lint", "run"):
        done = CliRunner().invoke(app, [command, "-f", str(objects), "--prices", str(tmp_path / "bad.yaml")])
        assert done.exit_code != 0
        assert "expected are types of providers" in done.output
    done = CliRunner().invoke(app, ["run", "--operator", "https://a:1", "--prices", str(tmp_path / "bad.yaml")])
    assert (done.exit_code, "--prices" in done.output) == (2, True)


def test_explain_takes_it(objects: Path, own: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"model": "chat", "messages": [{"role": "user", "content": "hi"}]}')
    for prices in ([], ["--prices", str(own)]):
        done = CliRunner().invoke(app, ["explain", str(request), "-f", str(objects), *prices])
        assert done.exit_code == 0, done.output
    (tmp_path / "bad.yaml").write_text("OpenAI: 5")
    done = CliRunner().invoke(
        app, ["explain", str(request), "-f", str(objects), "--prices", str(tmp_path / "bad.yaml")]
    )
    assert (done.exit_code, "bad.yaml" in done.output) == (2, True)
