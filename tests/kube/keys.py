"""Keys on their way to a balancer, and all the places where none of them may be told."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tests.kube.listener import Listener
from tests.kube.operating import GATEWAY, Installation
from tests.kube.processes import BalancerProcess

from spillway_operator.plan import saved_in


def mount(installed: Installation, balancer: BalancerProcess) -> None:
    """What the kubelet does with the credentials Secret."""
    data: dict[str, Any] = installed.child("secrets", f"{GATEWAY}-credentials").get("data") or {}
    for name, value in data.items():
        wanted = base64.b64decode(value)
        file = balancer.secrets / name
        if not file.exists() or file.read_bytes() != wanted:
            fresh = balancer.secrets / f"{name}.fresh"
            fresh.write_bytes(wanted)
            fresh.rename(file)


def state_of(balancer: BalancerProcess) -> list[Path]:
    """The files that it boots from where nobody answers."""
    return [path for path in (balancer.secrets.parent / "state").rglob("*") if path.is_file()]


def told(installed: Installation, balancer: BalancerProcess, listener: Listener) -> dict[str, str]:
    """All that anybody can read but the Secrets, by what it is."""
    operator, plane = installed.operators[0], installed.plane
    return {
        "the operator's log": operator.log,
        "the balancer's log": balancer.log,
        "the operator's metrics": operator.metrics,
        "the balancer's metrics": balancer.metrics,
        "events": plane.kubectl("get", "events", "-A", "-o", "json"),
        "statuses": plane.kubectl("get", "modelpools,routepolicies", "-A", "-o", "json"),
        "config maps": plane.kubectl("get", "configmaps", "-n", installed.namespace, "-o", "json"),
        "what balancers boot from": repr(saved_in(installed.child("configmaps", f"{GATEWAY}-boot"))),
        "the snapshot": repr(listener.snapshot),
        "the lease": plane.kubectl("get", "leases", "-n", installed.namespace, "-o", "json"),
        **{str(path): path.read_text(errors="replace") for path in state_of(balancer)},
    }


def telling(places: dict[str, str], marker: str) -> list[str]:
    """Those that tell a key which begins with `marker`, as it is or in base64."""
    encoded = base64.b64encode(marker.encode()).decode()[:16]
    return [where for where, text in places.items() if marker in text or encoded in text]
