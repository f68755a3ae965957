"""How a test reaches an API server, whichever tier it is of: requests, kubectl, tokens, its audit log."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""


class Refused(Exception):
    """The API server said no; `answer` is its Status object."""

    def __init__(self, status: int, answer: Any) -> None:
        text = answer.get("message", answer) if isinstance(answer, dict) else answer
        super().__init__(f"{status}: {text}")
        self.status = status
        self.answer = answer

    @property
    def causes(self) -> list[str]:
        """Each field error of an invalid object as `path: message`, an empty path for the object itself."""
        found = self.answer.get("details", {}).get("causes", [])
        return [f"{cause.get('field', '').removeprefix('<nil>')}: {cause['message']}" for cause in found]


class Api:
    """One HTTP connection to an API server under one log-in. For one thread."""

    def __init__(self, url: str, token: str, authority: Path) -> None:
        """`authority`: the certificates to trust, PEM."""
        self.url = url
        self.token = token
        self.authority = authority
        self._context = ssl.create_default_context(cafile=authority)
        self._held: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def again(self) -> Api:
        """The same log-in on a connection of its own, for another thread."""
        return Api(self.url, self.token, self.authority)

    def call(self, method: str, path: str, body: Any = None, *, kind: str | None = None, timeout: float = 20.0) -> Any:
        """The JSON value that is answered, or its text where it is no JSON.

        `kind` is the content type of `body`; without it a PATCH is a merge patch. Raises Refused for a status of 400
        and above, OSError and HTTPException where the server cannot be reached.
        """
        if kind is None:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._send(method, path, data, kind, timeout)
            text = answer.read().decode()
        except BaseException:
            self.close()
            raise
        is_json = "json" in (answer.getheader("content-type") or "")
        value = json.loads(text) if is_json else text
        if answer.status >= 400:
            raise Refused(answer.status, value)
        return value

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def watch(self, path: str, seconds: int = 600) -> Generator[Object, None, None]:
        """The events of a watch; `path` is that of a list. On a connection of its own."""
        lines = self.again()
        try:
            joint = "&" if "?" in path else "?"
            answer = lines._send("GET", f"{path}{joint}watch=true&timeoutSeconds={seconds}", None, "", seconds + 5)
            for line in answer:
                yield json.loads(line)
        finally:
            lines.close()

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _send(self, method: str, path: str, data: bytes | None, kind: str, timeout: float) -> http.client.HTTPResponse:
        headers = {"authorization": f"Bearer {self.token}"}
        if data is not None:
            headers["content-type"] = kind
        for fresh in (self._held is None, True):
            if self._held is None:
                self._held = http.client.HTTPSConnection(urlsplit(self.url).netloc, context=self._context)
            self._held.timeout = timeout
            if self._held.sock is not None:
                self._held.sock.settimeout(timeout)
            try:
                self._held.request(method, path, data, headers)
                return self._held.getresponse()
            except (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                # A kept connection may have been closed meanwhile: by a server that has started anew, or for idleness.
                self.close()
                if fresh:
                    raise
        raise AssertionError("unreachable")


class Audited(NamedTuple):
    """One request as the audit log has it. `group` is empty for the core API, `name` for lists and creations."""

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    status: int
    allowed: bool
    """By its rights; a 403 can have other reasons, such as a namespace that is being emptied."""

    @classmethod
    def of(cls, event: Object) -> Audited:
        at = event.get("objectRef", {})
        return cls(
            event["user"]["username"],
            event["verb"],
            at.get("apiGroup", ""),
            at.get("resource", ""),
            at.get("subresource", ""),
            at.get("namespace", ""),
            at.get("name", ""),
            event.get("responseStatus", {}).get("code", 0),
            event.get("annotations", {}).get("authorization.k8s.io/decision") != "forbid",
        )


class Kubernetes:
    """An API server and what its administrator does there. `state` is a folder of its own."""

    def __init__(self, state: Path, programs: Path, api: Api) -> None:
        self.state = state
        self.programs = programs
        self.api = api
        self.kubeconfig = state / "kubeconfig-admin"
        self._write_kubeconfig(self.kubeconfig, api.token, "default")

    @property
    def url(self) -> str:
        return self.api.url

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 100.0) -> str:
        """What kubectl prints, as the administrator. Raises CalledProcessError, whose notes hold what it said."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return checked(command, stdin, timeout)

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with success, within two seconds."""
        try:
            self.api.call("GET", path, timeout=2.0)
        except (OSError, http.client.HTTPException, Refused):
            return False
        return True

    def has_account(self, namespace: str) -> bool:
        """Whether Pods may be made in a namespace: its default ServiceAccount is there."""
        return self.answers(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")

    @contextlib.contextmanager
    def new_namespace(self, name: str) -> Iterator[str]:
        """A namespace for the time of the block, in which Pods may be made from the start."""
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            until(lambda: self.has_account(name), f"the default ServiceAccount of {name}")
            yield name
        finally:
            # Emptied in the background: the next test has a namespace of its own.
            self.api.call("DELETE", f"/api/v1/namespaces/{name}")

    def apply(self, *objects: Object, namespace: str = "default") -> None:
        """Server-side apply of objects as the administrator."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=text)

    def token_of(
        self,
        namespace: str,
        account: str,
        *,
        audience: str | None = None,
        pod: str | None = None,
        seconds: int = 3600,
    ) -> str:
        """A token of a ServiceAccount by TokenRequest, as a projected volume gets it.

        `audience`: for whom, without it the API server itself; `pod`: bound to that Pod of the ServiceAccount, whose
        name a TokenReview then tells.
        """
        spec: Object = {"audiences": [audience] if audience else [], "expirationSeconds": seconds}
        if pod is not None:
            uid = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.api.call("POST", path, body)["status"]["token"])

    def api_as(self, namespace: str, account: str) -> Api:
        """The API server as a ServiceAccount sees it; to be closed."""
        return Api(self.url, self.token_of(namespace, account), self.api.authority)

    def kubeconfig_of(self, namespace: str, account: str) -> Path:
        """A kubeconfig with which a program on this machine is the ServiceAccount, as in a Pod of it."""
        path = self.state / f"kubeconfig-{namespace}-{account}-{secrets.token_hex(4)}"
        self._write_kubeconfig(path, self.token_of(namespace, account), namespace)
        return path

    def audit(self, user: str | None = None) -> list[Audited]:
        """What was asked of the API server, oldest first: of one user ("system:serviceaccount:ns:name"), or of all.

        The cluster's own parts are left out, see audit.yaml.
        """
        events = []
        for line in (self.state / "audit.log").read_text().splitlines(keepends=True):
            if line.endswith("\n") and (user is None or f'"{user}"' in line):
                event = Audited.of(json.loads(line))
                if user is None or event.user == user:
                    events.append(event)
        return events

    def picture(self, namespace: str) -> str:
        """What somebody would look at first after a failure: objects, events and the Pods' last lines. Never raises."""
        asked = (
            ("get", "pods,deployments,endpointslices,modelpools,routepolicies", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "--selector=!none", "--all-containers", "--prefix", "--tail=30", "--ignore-errors"),
        )
        parts = []
        for arguments in asked:
            command = [
                str(self.programs / "kubectl"),
                "--kubeconfig",
                str(self.kubeconfig),
                "-n",
                namespace,
                *arguments,
            ]
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(command, capture_output=True, text=True, timeout=20)
                parts.append(f"$ kubectl {' '.join(arguments)}\n{done.stdout[-6000:]}{done.stderr[-1000:]}")
        return "\n".join(parts)

    def _write_kubeconfig(self, path: Path, token: str, namespace: str) -> None:
        # kubectl, helm, kopf and the kubernetes client all read JSON as the YAML that it is.
        authority = base64.b64encode(self.api.authority.read_bytes()).decode()
        cluster = {"server": self.api.url, "certificate-authority-data": authority}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user", "namespace": namespace}}],
        }
        path.touch(0o600)
        path.write_text(json.dumps(config))


def until(check: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Waits until something holds. Raises TimeoutError that says what did not."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s: {what}")
        time.sleep(0.05)


def checked(command: list[str], stdin: str | None = None, timeout: float = 100.0) -> str:
    """What a command prints. Raises CalledProcessError with what it printed as a note."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    try:
        done.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        raise
    return done.stdout
