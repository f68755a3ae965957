"""The operator's own pages, metrics, logs and command line."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import aiohttp
import pytest
from kopf._cogs.structs.references import Selector
from kopf._core.reactor import observation
from prometheus_client.parser import text_string_to_metric_families
from tests.operator.fleets import Fleet
from tests.operator.objects import model_pool, pod, pods, route_policy
from typer.testing import CliRunner

from spillway_operator.cli import cli
from spillway_operator.health import Health
from spillway_operator.logs import Format, set_up
from spillway_operator.metrics import Metrics
from spillway_operator.settings import Settings


class Pages:
    """The pages on a real socket; what is wrong can be set."""

    def __init__(self):
        self.metrics = Metrics()
        self.alive = self.ready = ""
        self.refreshed = 0
        self.health = Health(self.metrics, lambda: self.alive, lambda: self.ready, self.refresh)

    def refresh(self):
        self.refreshed += 1

    async def start(self):
        self.runner = await self.health.start("127.0.0.1", 0)
        self.port = self.runner.addresses[0][1]

    async def get(self, path):
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text(), answer.headers


@pytest.fixture
async def pages():
    pages = Pages()
    await pages.start()
    yield pages
    await pages.runner.cleanup()


async def test_well(pages):
    for path in ("/healthz", "/readyz"):
        status, text, _ = await pages.get(path)
        assert (status, text) == (200, "ok\n")


async def test_alive_and_ready_are_two_things_and_each_says_what_is_wrong(pages):
    pages.ready = "the first listing is not done"
    assert (await pages.get("/readyz"))[:2] == (503, "the first listing is not done\n")
    assert (await pages.get("/healthz"))[0] == 200
    pages.alive = "ended: leadership"
    assert (await pages.get("/healthz"))[:2] == (503, "ended: leadership\n")


async def test_the_metrics_page_is_refreshed_when_it_is_asked(pages):
    pages.metrics.reconciled("snapshot", 0.02)
    status, text, headers = await pages.get("/metrics")
    assert (status, pages.refreshed) == (200, 1)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'spillway_operator_reconcile_duration_seconds_count{what="snapshot"} 1.0' in text


async def test_there_is_nothing_else(pages):
    assert (await pages.get("/"))[0] == 404
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{pages.port}/metrics") as answer:
        assert answer.status == 405


# ---- metrics


class Shared:
    """What a gateway's balancers have shared half a second ago."""

    bytes_sent = 567

    def age(self, gateway):
        return 0.5 if gateway == "default" else None


class Connections:
    """A config stream with so many balancers, two of them known from another replica."""

    bytes_sent = 1234
    connected = 3
    sharing = Shared()

    def subscribers(self, gateway):
        return range(5) if gateway == "default" else ()

    def sidecars(self, gateway):
        return {"Current": 7, "Behind": 1} if gateway == "default" else {}


def samples(metrics) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            yield sample.name, tuple(sample.labels.values()), sample.value


def test_what_is_counted():
    metrics = Metrics()
    fleet = Fleet().see(model_pool("llama", pods(8000, 8001)), route_policy(), pod("a"), pod("b"))
    compiled = fleet.progress["default"].compiled
    metrics.published("default", compiled.snapshot)
    metrics.published("default", compiled.snapshot)
    metrics.written("Secret")
    metrics.refresh(True, Connections(), ["default", "edge"])
    seen = {(name, *labels): value for name, labels, value in samples(metrics)}
    assert seen["spillway_operator_snapshots_published_total", "default"] == 2
    assert seen["spillway_operator_snapshot_endpoints", "default"] == 4
    assert seen["spillway_operator_snapshot_routes", "default"] == 1
    assert seen["spillway_operator_writes_total", "Secret"] == 1
    assert seen["spillway_operator_subscribers", "default"] == 5
    assert seen["spillway_operator_subscribers", "edge"] == 0
    assert seen["spillway_operator_connections",] == 3
    assert seen["spillway_operator_sidecars", "default", "Current"] == 7
    assert seen["spillway_operator_sidecars", "default", "Behind"] == 1
    assert seen["spillway_operator_stream_sent_bytes",] == 1234
    assert seen["spillway_operator_loads_sent_bytes",] == 567
    assert seen["spillway_operator_loads_age_seconds", "default"] == 0.5
    assert ("spillway_operator_loads_age_seconds", "edge") not in seen
    assert seen["spillway_operator_leads",] == 1


def test_a_gateway_that_is_gone_is_counted_no_more():
    metrics = Metrics()
    metrics.refresh(True, Connections(), ["default", "edge"])
    metrics.refresh(False, Connections(), ["edge"])
    seen = {(name, *labels): value for name, labels, value in samples(metrics)}
    assert ("spillway_operator_subscribers", "default") not in seen
    assert seen["spillway_operator_leads",] == 0


def test_labels_are_few_and_nobodys_text():
    families = list(text_string_to_metric_families(Metrics().page().decode()))
    assert families
    assert all(family.name.startswith("spillway_operator_") for family in families)
    assert all(family.documentation.endswith(".") for family in families)


# ---- logs


@pytest.fixture
def untouched():
    """Loggers as they were, whatever a test sets up."""
    names = ("kopf", "aiohttp.access")
    root = logging.getLogger()
    before = root.level, list(root.handlers), [logging.getLogger(name).level for name in names]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in zip(names, before[2], strict=True):
        logging.getLogger(name).setLevel(level)


def logged(form, level=logging.INFO):
    stream = io.StringIO()
    set_up(level, form, stream)
    log = logging.getLogger("spillway.test")
    log.info("gateway %s", "über\nalles")
    log.debug("only for the curious")
    logging.getLogger("kopf.objects").info("Handler is invoked")
    try:
        raise ValueError("no")
    except ValueError:
        log.warning("it failed", exc_info=True)
    return stream.getvalue()


@pytest.mark.usefixtures("untouched")
def test_json_lines_for_whoever_collects_them():
    first, second = map(json.loads, logged(Format.JSON).splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "info", "logger": "spillway.test", "message": "gateway über\nalles"}
    assert second["level"] == "warning"
    assert second["exception"].endswith("ValueError: no")


@pytest.mark.usefixtures("untouched")
def test_lines_for_people():
    text = logged(Format.TEXT)
    assert "INFO    spillway.test gateway über" in text
    assert "curious" not in text
    assert "Handler is invoked" not in text


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("missing", "level", "says"),
    [
        (["inferencepools"], "info", "the kind InferencePool is not installed"),
        (["inferencepools", "modelpools"], "warning", "modelpools"),
    ],
)
def test_a_kind_that_clusters_may_lack_is_no_warning(missing, level, says):
    stream = io.StringIO()
    set_up(logging.INFO, Format.JSON, stream)
    selectors = frozenset(Selector("example.com", "v1", name) for name in missing)
    observation._disable_mismatched_selectors(resources=set(), selectors=selectors)  # kopf's own words
    line = json.loads(stream.getvalue())
    assert line["level"] == level
    assert says in line["message"]


@pytest.mark.usefixtures("untouched")
def test_kopf_speaks_to_the_curious_only():
    assert "Handler is invoked" in logged(Format.TEXT, logging.DEBUG)


# ---- the command line


def test_an_unknown_log_level_is_refused_before_anything_runs():
    result = CliRunner().invoke(cli, ["run", "--namespace", "s", "--name", "n", "--log-level", "loud"])
    assert result.exit_code == 2
    assert "use debug, info, warning or error" in result.output


def test_prices_that_cannot_be_read_are_refused_before_anything_runs(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("OpenAI: {gpt-5-mini: {input: 1}}")
    result = CliRunner().invoke(cli, ["run", "--namespace", "s", "--name", "n", "--prices", str(path)])
    assert result.exit_code == 2
    assert f"--prices {path}: OpenAI.gpt-5-mini.input: " in result.output


def test_prices_are_those_of_the_file(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("spillway_operator.app.serve", lambda settings: _note(seen, settings))
    monkeypatch.setattr("spillway_operator.cli.set_up", lambda *_: None)
    path = tmp_path / "prices.yaml"
    path.write_text('OpenAI: {gpt-5-mini: {input: "1"}}')
    for more in ([], ["--prices", str(path)]):
        result = CliRunner().invoke(cli, ["run", "--namespace", "s", "--name", "n", *more])
        assert result.exit_code == 0, result.output
    assert [settings.prices("OpenAI", "gpt-5-mini").source for settings in seen] == ["table", "overlay"]


def test_there_are_no_sidecars_unless_it_is_told_which_routes_they_may_have(monkeypatch):
    seen = []
    monkeypatch.setattr("spillway_operator.app.serve", lambda settings: _note(seen, settings))
    monkeypatch.setattr("spillway_operator.cli.set_up", lambda *_: None)
    for more in ([], ["--sidecar-routes", "All"], ["--sidecar-routes", "Same"]):
        result = CliRunner().invoke(cli, ["run", "--namespace", "s", "--name", "n", *more])
        assert result.exit_code == 0, result.output
    assert [settings.sidecar_routes for settings in seen] == ["None", "All", "Same"]
    result = CliRunner().invoke(cli, ["run", "--namespace", "s", "--name", "n", "--sidecar-routes", "some"])
    assert result.exit_code == 2
    assert "'some' is not one of 'All', 'Same', 'None'" in result.output


def test_what_a_pod_knows_of_itself_comes_from_its_environment(monkeypatch):
    seen = []
    monkeypatch.setattr("spillway_operator.app.serve", lambda settings: _note(seen, settings))
    monkeypatch.setattr("spillway_operator.cli.set_up", lambda *_: None)
    environment = {"POD_NAMESPACE": "spillway", "POD_NAME": "operator-1", "POD_IP": "fd00::1"}
    arguments = ["run", "--fullname", "x-spillway", "--watch-namespace", "a", "--watch-namespace", "b", "--given-tls"]
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exit_code == 0, result.output
    (settings,) = seen
    assert (settings.namespace, settings.name, settings.address) == ("spillway", "operator-1", "fd00::1")
    assert settings.stream_address == "[fd00::1]:9443"
    assert settings.namespaces == ("a", "b", "spillway")
    assert settings.given_tls


async def _note(seen, settings):
    seen.append(settings)


def test_without_a_namespace_it_does_not_run():
    result = CliRunner().invoke(cli, ["run", "--name", "n"], env={"POD_NAMESPACE": None})
    assert result.exit_code == 2
    assert "--namespace" in result.output


def test_a_misfit_is_told_in_one_line(monkeypatch):
    from spillway_operator.app import Unfit

    async def unfit(settings):
        raise Unfit("cannot listen on port 8081: Address already in use")

    monkeypatch.setattr("spillway_operator.app.serve", unfit)
    monkeypatch.setattr("spillway_operator.cli.set_up", lambda *_: None)
    result = CliRunner().invoke(cli, ["run", "--namespace", "s", "--name", "n"])
    assert result.exit_code == 1
    assert result.output == "cannot listen on port 8081: Address already in use\n"


def test_names_of_one_installation():
    settings = Settings(namespace="spillway", name="operator-1", address="10.0.0.1", fullname="x-spillway")
    assert settings.names[:3] == (
        "x-spillway-operator",
        "x-spillway-operator.spillway",
        "x-spillway-operator.spillway.svc",
    )
    assert settings.namespaces == ()
    assert settings.stream_address == "10.0.0.1:9443"
    assert {settings.lease, settings.service_account} == {"x-spillway-operator"}
    assert (settings.tls_secret, settings.ca_config_map) == ("x-spillway-operator-tls", "x-spillway-operator-ca")


def test_asking_for_help_loads_no_kopf():
    """`--help` and a wrong option answer at once."""
    import subprocess

    code = "import sys, spillway_operator.cli; print('kopf' in sys.modules, 'kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
