"""Spillway's programs as processes of this machine, and what they say over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.kube.assets import HERE

PROGRAMS = Path(sys.executable).parent


class Answer(NamedTuple):
    """Of an HTTP server."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def fetch(
    port: int, path: str, body: Any = None, timeout: float = 10.0, key: str = "", more: Mapping[str, str] | None = None
) -> Answer:
    """GET, or POST of JSON where there is a body, on loopback. Raises OSError and HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        headers |= {"authorization": f"Bearer {key}"} if key else {}
        headers |= more or {}
        connection.request("GET" if body is None else "POST", path, data, headers)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
    finally:
        connection.close()


class Process:
    """A program that ends with the test, and what it has written."""

    def __init__(self, folder: Path, name: str, *command: str, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        guard = [sys.executable, "-IS", str(HERE / "guard.py"), str(os.getpid())]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*guard, str(PROGRAMS / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """The end, in good order."""
        assert self.stop() == 0

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM; its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.name} did not end in {seconds:g} s:\n{self.log[-3000:]}") from None


class Paged(Process):
    """A program with pages at an admin port."""

    admin: int

    def page(self, path: str) -> Answer | None:
        """None where nobody answers."""
        try:
            return fetch(self.admin, path, timeout=3.0)
        except (OSError, http.client.HTTPException):
            return None

    def says(self, path: str) -> bool:
        answer = self.page(path)
        if answer is None and not self.running:
            raise AssertionError(f"{self.name} has ended:\n{self.log[-3000:]}")
        return answer is not None and answer.status == 200

    @property
    def metrics(self) -> str:
        answer = self.page("/metrics")
        return answer.text if answer else ""

    def metric(self, series: str) -> float | None:
        """The value of a series by its exact name and labels."""
        lines = (line.rpartition(" ") for line in self.metrics.splitlines())
        return next((float(value) for name, _, value in lines if name == series), None)


class OperatorProcess(Paged):
    """`spillway-operator run`, one replica."""

    port: int
    webhook: int
    """Port on which it is asked for sidecars, if there are any."""
    login: str
    """What its requests are known by in the audit log; replicas share a ServiceAccount."""

    @property
    def ready(self) -> bool:
        return self.says("/readyz")

    @property
    def leads(self) -> bool:
        return self.metric("spillway_operator_leads") == 1.0


class BalancerProcess(Paged):
    """`spillway run --operator`."""

    port: int
    secrets: Path

    def serves(self, pool: str, endpoint: str) -> bool:
        """Whether the endpoint is in force here, by a page that may be a second old."""
        return any(
            f'pool="{pool}"' in line and f'endpoint="{endpoint}"' in line
            for line in self.metrics.splitlines()
            if line.startswith("spillway_endpoint_state{")
        )

    def ask(self, model: str, key: str = "", **headers: str) -> Answer:
        """A chat completion, asked for with a consumer's key. Of `headers` an underscore is a dash."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return fetch(self.port, "/v1/chat/completions", body, key=key, more=named)


class Traffic:
    """A client that asks a balancer without a pause for the time of the `with` block."""

    def __init__(self, balancer: BalancerProcess, model: str) -> None:
        self._balancer = balancer
        self._model = model
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            try:
                answer = self._balancer.ask(self._model)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            else:
                self.answered += 1
                if answer.status != 200:
                    self.failures.append(answer.text)
