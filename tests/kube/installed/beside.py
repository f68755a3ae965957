"""Clients with sidecars on the installed chart: the Pods, what is asked in them, and what is seen of their sidecars."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tests.kube.access import until
from tests.kube.installed.release import MODELS, Object, Release, is_ready
from tests.kube.installed.seen import SIDECAR

ADMIN_PORT = 9797
CONVERSATIONS, TURNS = 12, 4
HEAVY = 12
"""Requests of some seconds of prefill together."""
HEARD_SECONDS = 2.5
"""In which what one gateway has scraped is known to all sidecars."""


class Said(NamedTuple):
    """An answer that a client got."""

    status: int
    headers: dict[str, str]
    text: str
    first: float
    """Seconds to its head."""
    seconds: float

    @property
    def endpoint(self) -> str:
        return self.headers.get("x-spillway-endpoint", "")

    @property
    def by_gateway(self) -> bool:
        return self.headers.get("x-spillway-served-by") == "gateway"


class Beside:
    """The client Pods with their sidecars."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self._conversations = 0

    def pods(self) -> list[Object]:
        """Those that are asked, by name."""
        return sorted(self.release.pods("askers"), key=lambda pod: str(pod["metadata"]["name"]))

    def names(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods()]

    def ask(self, pod: str, model: str, *, api: Any = None, base: str = "", **more: Any) -> Said:
        """One chat, asked by a Pod's client at its OpenAI base URL, or at `base`. `session`: its key; `text`: what it
        says. AssertionError where it got no answer."""
        headers = {"x-spillway-explain": "1"}
        if "session" in more:
            headers["x-session-id"] = more.pop("session")
        text = more.pop("text", "hello")
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 3} | more
        path = f"/api/v1/namespaces/{MODELS}/pods/{pod}:8000/proxy/ask"
        api = api or self.release.cluster.api
        said = api.call("POST", path, {"body": body, "headers": headers, "base": base}, timeout=70.0)
        assert "error" not in said, said
        return Said(**said)

    def page(self, pod: str) -> str:
        """A sidecar's metrics."""
        return str(self.release.ask(pod, "/metrics", port=ADMIN_PORT, namespace=MODELS))

    def connected(self, pod: str) -> bool:
        return re.search(r"^spillway_config_connected\{.*\} 1(\.0)?$", self.page(pod), re.MULTILINE) is not None

    def endpoints(self, pod: str, pool: str) -> set[str]:
        """What a sidecar sends to."""
        found = re.findall(r"^spillway_endpoint_in_flight\{(.*)\} \S+$", self.page(pod), re.MULTILINE)
        each = [dict(re.findall(r'(\w+)="([^"]*)"', labels)) for labels in found]
        return {labels["endpoint"] for labels in each if labels["pool"] == f"{MODELS}/{pool}"}

    def kill(self, pod: str) -> None:
        self.release.kill(pod, SIDECAR)

    @contextlib.contextmanager
    def asking(self, pods: Sequence[str], model: str) -> Iterator[list[Said]]:
        """While each of these Pods asks again and again, one request after the other; all that they were told."""
        enough = threading.Event()
        answers: list[Said] = []

        def ask(pod: str) -> None:
            api = self.release.cluster.api.again()
            while not enough.is_set():
                answers.append(self.ask(pod, model, api=api))
            api.close()

        with ThreadPoolExecutor(len(pods)) as threads:
            asked = [threads.submit(ask, pod) for pod in pods]
            try:
                yield answers
            finally:
                enough.set()
            for each in asked:
                each.result()

    @contextlib.contextmanager
    def busy(self, pod: str, model: str) -> Iterator[None]:
        """While a Pod has an answer under way at the one endpoint of a model."""
        api = self.release.cluster.api.again()
        long = threading.Thread(target=lambda: self.ask(pod, model, api=api, max_tokens=100))
        long.start()
        try:
            until(lambda: self._under_way(pod), f"a request under way in {pod}")
            yield
        finally:
            long.join()
            api.close()

    def _under_way(self, pod: str) -> bool:
        found = re.search(r"^spillway_requests_in_flight (\S+)$", self.page(pod), re.MULTILINE)
        return found is not None and float(found[1]) > 0

    def forget(self, pod: str) -> None:
        """Takes what its sidecar has put away for its next start."""
        program = "import os; [os.remove(e.path) for e in os.scandir('/var/lib/spillway') if e.is_file()]"
        self.release.kubectl("exec", pod, "-c", "spillway", "--", "python3", "-c", program)

    def converse(self, pods: Sequence[str], model: str) -> float:
        """The part of prompt tokens that the engines find in their caches, of conversations whose turns are asked by
        any of these Pods."""
        self._conversations += 1
        dice = random.Random(self._conversations)

        def before() -> tuple[float, float]:
            return self.counted("shared", "prefix_cache_queries_total"), self.counted(
                "shared", "prefix_cache_hits_total"
            )

        def talk(number: int) -> None:
            api = self.release.cluster.api.again()
            name = f"{self._conversations}-{number}"
            messages: list[Object] = []
            for turn in range(TURNS):
                words = " ".join(f"{name}-{turn}-{word}" for word in range(60))
                messages.append({"role": "user", "content": words})
                said = self.ask(dice.choice(pods), model, api=api, session=name, messages=messages, max_tokens=1)
                assert said.status == 200, said
                messages.append({"role": "assistant", "content": "Go on."})
            api.close()

        queried, found = before()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(talk, range(CONVERSATIONS)))
        then_queried, then_found = before()
        return (then_found - found) / (then_queried - queried)

    def behind_others(self, pods: Sequence[str], session: str) -> tuple[Said, Said]:
        """What two Pods in turn are told of one session, where others, of whom neither has seen anything, come to its
        engine in between with work for seconds."""
        first = self.ask(pods[0], "shared", session=session, text=session)
        engine = next(pod for pod in self.release.pods("shared") if first.endpoint.startswith(pod["metadata"]["name"]))
        straight = f"http://{engine['status']['podIP']}:8000/v1"

        def work(number: int) -> None:
            api = self.release.cluster.api.again()
            text = " ".join(f"{session}-{number}-{word}" for word in range(600))
            self.ask(pods[2], "demo", api=api, base=straight, text=text)
            api.close()

        with ThreadPoolExecutor(HEAVY) as threads:
            others = [threads.submit(work, number) for number in range(HEAVY)]
            time.sleep(HEARD_SECONDS)
            second = self.ask(pods[1], "shared", session=session, text=session)
            for each in others:
                each.result()
        return first, second

    def in_force_since(self, pod: str) -> float:
        """When a sidecar took in force what it serves from now. Unix time."""
        found = re.search(r"^spillway_config_last_change_timestamp_seconds (\S+)$", self.page(pod), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def settled(self, count: int) -> None:
        def holds() -> bool:
            pods = self.release.pods("askers")
            return len(pods) == count and all(is_ready(pod) for pod in pods)

        until(holds, f"{count} ready askers", 120.0)

    def counted(self, app: str, name: str) -> float:
        """Sum over the engines of an app of one of their counters."""
        return sum(
            float(value)
            for pod in self.release.names(app)
            for value in re.findall(
                rf"^vllm:{name}(?:\{{.*\}})? (\S+)$",
                str(self.release.ask(pod, "/metrics", port=8000, namespace=MODELS)),
                re.MULTILINE,
            )
        )


def sidecar(pod: Object) -> Object:
    """Its status."""
    return next(each for each in pod["status"][SIDECAR] if each["name"] == "spillway")
