"""A node that runs nothing and says of every Pod that it runs: what is derived from Pods can then be tested."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tests.kube.access import Api, Kubernetes, Object, Refused

WATCH_SECONDS = 2
"""A short watch, so that the end of the thread is not waited for long."""
GONE = (OSError, http.client.HTTPException, ValueError)


class PretendNode:
    """Binds Pods to itself, says that they run and are ready, and finishes their deletion.

    Enough for Deployments to be rolled out and for Pods to become the endpoints of Services. A Pod may say otherwise
    of itself by the label `pretend`: "never" leaves it Pending, "unready" lets it run without being ready.
    """

    NAME = "pretended"

    def __init__(self, kube: Kubernetes) -> None:
        self._watcher: Api = kube.api.again()
        self._api: Api = kube.api.again()
        self._addresses = _addresses()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        # Without a Node object the controllers leave a Pod out of every EndpointSlice.
        with contextlib.suppress(Refused):  # there already
            self._api.call("POST", "/api/v1/nodes", {"metadata": {"name": self.NAME}})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(timeout=WATCH_SECONDS + 5)
        self._api.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            # A watch without a version begins with every Pod there is, so nothing is missed between two.
            with contextlib.suppress(*GONE):
                for event in self._watcher.watch("/api/v1/pods", WATCH_SECONDS):
                    if self._ended.is_set():
                        return
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._attend(event["object"])
            self._ended.wait(0.1)

    def _attend(self, pod: Object) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        wish = meta.get("labels", {}).get("pretend")
        with contextlib.suppress(Refused):  # changed or gone meanwhile
            if "deletionTimestamp" in meta:
                self._api.call("DELETE", path, {"gracePeriodSeconds": 0})
            elif "nodeName" not in pod["spec"] and wish != "never":
                binding = {"metadata": {"name": meta["name"]}, "target": {"kind": "Node", "name": self.NAME}}
                self._api.call("POST", f"{path}/binding", binding)
                status = _running(pod["spec"], next(self._addresses), ready=wish != "unready")
                self._api.call("PATCH", f"{path}/status", {"status": status})


def _addresses() -> Iterator[str]:
    return (f"10.204.{high}.{low}" for high in range(256) for low in range(1, 255))


def _running(spec: Object, address: str, *, ready: bool) -> Object:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    holds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True" if held else "False", "lastTransitionTime": now}
            for kind, held in holds.items()
        ],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": ready,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in spec["containers"]
        ],
    }
