"""What somebody sees who has just installed the chart: `helm test`, and the notes."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from tests.chart.found import named
from tests.chart.value_sets import CHART, VALUES


class Answering(BaseHTTPRequestHandler):
    """Answers every GET with what `pages` of its server has for the path."""

    def do_GET(self):
        page = self.server.pages.get(self.path.partition("?")[0])
        body = json.dumps(page).encode()
        self.send_response(200 if page is not None else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def answering(pages) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.pages = pages
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_helm_test_asks_every_gateway_through_its_service(render):
    pod = named(render(VALUES["two-gateways"]), "Pod", "spillway-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    code, *urls = pod["spec"]["containers"][0]["args"]
    assert urls == [
        "http://spillway.spillway-system.svc:80/v1/models",
        "http://spillway-internal.spillway-system.svc:80/v1/models",
    ]
    with answering({"/v1/models": {"data": [{"id": "chat"}]}, "/none": {"data": []}}) as base:
        command = [sys.executable, "-c", code, f"{base}/v1/models", f"{base}/none"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "serves chat" in done.stdout
        assert "no model yet" in done.stdout
        refused = subprocess.run(
            [sys.executable, "-c", code.replace("range(20)", "range(1)"), f"{base}/503"], capture_output=True, text=True
        )
        assert refused.returncode == 1
        assert "404" in refused.stderr


@pytest.fixture
def notes(helm, tmp_path):
    """`notes(values, routes)`: the text after an install. `helm template` leaves it out, so it is made a template."""
    chart = tmp_path / "spillway"
    subprocess.run(["cp", "-r", CHART, chart], check=True)
    text = (chart / "templates/NOTES.txt").read_text()
    for path in (chart / "templates").iterdir():
        if path.is_file() and path.name != "_helpers.tpl":
            path.unlink()
    (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}\n' + text + "{{- end }}")
    (chart / "templates/notes.yaml").write_text('{"text": {{ include "notes" . | toJson }}}\n')

    def run(values=None, routes=()):
        resource = {"name": "routepolicies", "namespaced": True, "kind": "RoutePolicy", "verbs": ["list"]}
        api = "/apis/spillway.dev/v1alpha1"
        version = {"apiVersion": "spillway.dev/v1alpha1"}
        pages = {
            api: {"kind": "APIResourceList", "groupVersion": "spillway.dev/v1alpha1", "resources": [resource]},
            f"{api}/routepolicies": {
                **version,
                "kind": "RoutePolicyList",
                "items": [{**version, "kind": "RoutePolicy", **route} for route in routes],
            },
        }
        with answering(pages) as base:
            options = ["--dry-run=server", "--kube-apiserver", base, "--skip-tests"]
            options += ["--api-versions", "spillway.dev/v1alpha1/RoutePolicy", "--show-only", "templates/notes.yaml"]
            done = helm("template", "spillway", chart, "--namespace", "llm", *options, values=values or {})
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)["text"]

    return run


def test_notes_without_a_route_show_two_objects_that_would_be_accepted(notes, conform):
    said = notes()
    assert "http://spillway.llm.svc/v1" in said
    text = said.split("<<'END'\n")[1].split("\nEND\n")[0]
    documents = list(yaml.safe_load_all(text))
    assert [one["kind"] for one in documents] == ["ModelPool", "RoutePolicy"]
    done = conform(text)
    assert done.returncode == 0, done.stdout
    assert "Valid: 2" in done.stdout


def test_notes_with_a_route_show_a_request_that_names_its_model(notes):
    route = {"metadata": {"name": "talk", "namespace": "team"}, "spec": {"models": ["talk"]}}
    said = notes({"gateway": {"service": {"port": 8000}}}, [route])
    assert "http://spillway.llm.svc:8000/v1/chat/completions" in said
    assert said.count('"model": "talk"') == 2
    assert "<<'END'" not in said
    code = said.split("python -c '")[1].split("'\n")[0]
    (body,) = [node.value for node in ast.walk(ast.parse(code)) if isinstance(getattr(node, "value", None), bytes)]
    assert json.loads(body)["model"] == "talk"


def test_notes_do_not_count_routes_of_other_gateways(notes):
    route = {"metadata": {"name": "talk", "namespace": "team"}, "spec": {"models": ["talk"], "gateways": ["internal"]}}
    assert "<<'END'" in notes({}, [route])
    said = notes({"gateways": {"default": None, "internal": {}}}, [route])
    assert "http://spillway-internal.llm.svc/v1" in said
    assert "<<'END'" not in said


def test_notes_say_how_to_get_a_sidecar_where_there_are_any(notes):
    said = notes({"sidecars": {"enabled": True}})
    assert "\n\nPods get a balancer of their own" in said
    assert "\n\nFrom your own machine:" in said
    assert "sidecar" not in notes()
