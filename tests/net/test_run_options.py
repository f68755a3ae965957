"""`spillway run`: where its configuration comes from is said once, and what does not fit together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_balancer import running
from spillway_balancer.app import Settings
from spillway_balancer.commands import app
from spillway_balancer.net.operator_source import Where
from spillway_balancer.net.sidecar import Sidecar

OPERATOR = ("--operator", "https://o:9443")
BESIDE = (*OPERATOR, "--sidecar", "--gateway-url", "http://g:80")


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
        (["-f", "x.yaml", "--admin-host", "0.0.0.0"], "--admin-host without --admin-port"),
        (["-f", "x.yaml", "--route", "chat"], "--route without --sidecar"),
        ([*OPERATOR, "--gateway-url", "http://g", "--gateway-token-file", "t"], "--gateway-token-file without --side"),
        (["-f", "x.yaml", "--sidecar", "--gateway-url", "http://g"], "--sidecar without --operator"),
        ([*OPERATOR, "--sidecar"], "--sidecar without --gateway-url"),
        ([*OPERATOR, "--sidecar", "--gateway-url", "g:80"], "use http://HOST:PORT or https://HOST:PORT"),
        ([*OPERATOR, "--sidecar", "--gateway-url", "http://g/v1"], "use http://HOST:PORT or https://HOST:PORT"),
        ([*OPERATOR, "--sidecar", "--gateway-url", "http://a:b@g"], "use http://HOST:PORT or https://HOST:PORT"),
        ([*BESIDE, "--secrets", "s"], "a sidecar has no credentials"),
        ([*BESIDE, "--boot", "b"], "that is a gateway's state"),
        ([*BESIDE, "--route", "a/b/c"], "use NAME or NAMESPACE/NAME of a RoutePolicy"),
        ([*BESIDE, "--route", "Chat"], "use NAME or NAMESPACE/NAME of a RoutePolicy"),
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

    monkeypatch.setattr(running, "serve", serve)
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


def test_what_an_injected_container_says_is_what_the_sidecar_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Settings] = []

    async def serve(settings: Settings) -> bool:
        got.append(settings)
        return True

    monkeypatch.setattr(running, "serve", serve)
    args = (
        "run --sidecar --operator=https://o.ns.svc:9443/ --gateway=edge --gateway-url=http://edge.ns.svc:80/"
        " --route=team/chat --route=chat --route=chat --token-file=/t/token --gateway-token-file=/t/gateway-token"
        " --pod-ip=10.1.2.3"
        " --ca-file=/t/ca.crt --state=/s --host=127.0.0.1 --port=8787 --admin-host=0.0.0.0 --admin-port=9797"
    )
    result = CliRunner().invoke(app, args.split())
    assert result.exit_code == 0, result.output
    sidecar = Sidecar("http://edge.ns.svc:80", Path("/t/gateway-token"), ("chat", "team/chat"), "10.1.2.3")
    where = Where("https://o.ns.svc:9443", "edge", Path("/t/token"), Path("/t/ca.crt"), sidecar)
    assert got == [Settings(operator=where, state=Path("/s"), admin_host="0.0.0.0", admin_port=9797, gateway="edge")]


def test_the_docs_name_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "run.md").read_text()
    options = [name for action in running.parser()._actions for name in action.option_strings]
    options = [name for name in options if name not in ("-h", "--help")]
    assert {"-f", "--operator", "--linger"} <= set(options)
    assert [name for name in options if f"`{name}`" not in page] == []
