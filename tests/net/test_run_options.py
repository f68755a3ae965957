"""`spillway run`: where its configuration comes from is said once, and what does not fit together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from spillway_balancer import app as balancer_app
from spillway_balancer.app import Settings
from spillway_balancer.cli import app
from spillway_balancer.net.operator_source import Where


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "nothing to serve: use -f FILE, or --operator URL in a cluster"),
        (["-f", "x.yaml", "--operator", "https://o:9443"], "-f and --operator exclude each other"),
        (["--operator", "http://o:9443"], "use https://HOST:PORT"),
        (["--operator", "o:9443"], "use https://HOST:PORT"),
        (["--operator", "https://"], "use https://HOST:PORT"),
        (["--operator", "https://o:x"], "use https://HOST:PORT"),
        (["--operator", "https://user:key@o:9443"], "use https://HOST:PORT"),
        (["--operator", "https://o:9443/v1/stream"], "use https://HOST:PORT"),
        (["-f", "x.yaml", "--state", "s", "--token-file", "t"], "--token-file without --operator"),
        (["-f", "x.yaml", "--boot", "b"], "--boot without --operator"),
        (["-f", "x.yaml", "--ca-file", "c"], "--ca-file without --operator"),
    ],
)
def test_what_does_not_fit_together_is_refused(args: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["run", *args])
    assert result.exit_code == 2
    assert says in result.output


def test_what_a_gateways_deployment_says_is_what_the_balancer_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Settings] = []

    async def serve(settings: Settings) -> bool:
        got.append(settings)
        return True

    monkeypatch.setattr(balancer_app, "serve", serve)
    args = (
        "run --operator https://spillway-operator.ns.svc:9443 --gateway edge --token-file /t/token --ca-file /c/ca.crt"
        " --state /s --boot /b/snapshot.json.gz --secrets /k --host 0.0.0.0 --port 8080 --admin-port 8081"
        " --linger 5 --drain 600"
    )
    result = CliRunner().invoke(app, args.split())
    assert result.exit_code == 0, result.output
    where = Where("https://spillway-operator.ns.svc:9443", "edge", Path("/t/token"), Path("/c/ca.crt"))
    assert got == [
        Settings(
            operator=where,
            state=Path("/s"),
            boot=Path("/b/snapshot.json.gz"),
            host="0.0.0.0",
            port=8080,
            admin_port=8081,
            gateway="edge",
            secrets=Path("/k"),
            linger_seconds=5.0,
            drain_seconds=600.0,
            record_limit=256 << 20,
        )
    ]


def test_the_docs_name_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "run.md").read_text()
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    options = [name for option in command.params for name in option.opts]
    assert {"-f", "--operator", "--linger"} <= set(options)
    assert [name for name in options if f"`{name}`" not in page] == []
