"""Pods that asked for a sidecar and have none: which they are, and what is to be said of each. Pure.

The webhook fails open, so a Pod that asks for a sidecar may start without one. Nothing can be added to it then, as
init containers of a Pod cannot be changed; but it can be told, by a condition, an event and a metric. A reason is one
of three, and the order says which wins:

- `Refused`: the Pod is of a shape that cannot have a sidecar; the message has the words of the injection. To make it
  anew changes nothing.
- `CreatedBefore`: the Pod was there before somebody asked, or before the webhook was installed. It gets its sidecar
  when it is made anew, as by `kubectl rollout restart`.
- `MissedWebhook`: it should have got one. The API server did not reach the webhook in time, or there is none.

Since when a label asks is known from `managedFields`: the server notes there when the owner of a field last changed one
of its fields, so that is the latest moment at which the label can have come. A Pod that was once told `MissedWebhook`
stays so, since that moment may move on. Finished Pods and those that end are told nothing: it would help nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from .cluster import Object
from .injection import LABEL, Sidecar, asked, injected, refusal

CONDITION: Final = "spillway.dev/Sidecar"
"""Type of the Pod condition; it is False or not there."""
NEVER: Final = frozenset({"kube-system"})
"""Namespaces whose Pods get no sidecars, whatever they ask for; beside these the operator's own."""

_SLACK: Final = timedelta(seconds=2)
"""Creation is told in whole seconds, and API servers hear of a new label or webhook a moment later."""

Reason: TypeAlias = Literal["Refused", "CreatedBefore", "MissedWebhook"]


class Lack(NamedTuple):
    """Why a Pod has no sidecar."""

    reason: Reason
    message: str


class Shown(NamedTuple):
    """What the condition of a Pod says now, and since when it is False."""

    reason: str
    message: str
    since: str


class Seen(NamedTuple):
    """What is kept of a Pod without a sidecar; of all others nothing is."""

    namespace: str
    name: str
    uid: str
    created: str
    """RFC 3339, as all times here."""
    asked: str
    """Since when its own label asks for a sidecar. Empty where it says nothing itself: its namespace decides."""
    refusal: str
    shown: Shown | None


def seen(pod: Object, spared: Collection[str], sidecar: Sidecar) -> Seen | None:
    """What is to be known of a Pod; None where nothing can be lacking. `spared`: namespaces without sidecars."""
    meta = pod["metadata"]
    phase = (pod.get("status") or {}).get("phase")
    if meta["namespace"] in spared or "deletionTimestamp" in meta or phase in ("Succeeded", "Failed"):
        return None
    itself = LABEL in (meta.get("labels") or {})
    if (itself and not asked(pod, {})) or injected(pod):
        return None
    created = meta["creationTimestamp"]
    since = (labelled_since(meta) or created) if itself else ""
    return Seen(meta["namespace"], meta["name"], meta["uid"], created, since, refusal(pod, sidecar), _shown(pod))


def lack(pod: Seen, asking: Mapping[str, str], webhook: str | None) -> Lack | None:
    """What is to be said of a Pod; None where neither it nor its namespace asks for a sidecar.

    `asking`: the namespaces whose label asks for sidecars, with the time since when; `webhook`: when that was
    installed, None where it is not.
    """
    since = pod.asked or asking.get(pod.namespace)
    if since is None:
        return None
    if pod.refusal:
        return Lack("Refused", f"this Pod has no sidecar: {pod.refusal}")
    told = pod.shown is not None and pod.shown.reason == "MissedWebhook"
    if webhook is None:
        return Lack("MissedWebhook", "this Pod asked for a sidecar, but the webhook that adds them is not installed")
    if not told and _before(pod.created, webhook):
        return _too_early("sidecars were installed")
    if not told and pod.asked and _time(pod.asked) - _time(pod.created) > _SLACK:
        return _too_early(f"its label {LABEL} was set")
    if not told and not pod.asked and _before(pod.created, since):
        return _too_early(f"its namespace was labelled {LABEL}")
    said = "this Pod asked for a sidecar, but the API server did not get one from the webhook when the Pod was made"
    return Lack("MissedWebhook", f"{said}; make the Pod anew to get one")


def differs(lack: Lack | None, shown: Shown | None) -> bool:
    """Whether a Pod's condition is to be written."""
    if lack is None or shown is None:
        return (lack is None) != (shown is None)
    return (lack.reason, lack.message) != (shown.reason, shown.message)


def condition(lack: Lack, shown: Shown | None, now: str) -> Object:
    """The condition that says so."""
    since = shown.since if shown is not None else ""
    return {
        "type": CONDITION,
        "status": "False",
        "lastTransitionTime": since or now,
        "reason": lack.reason,
        "message": lack.message,
    }


def labelled_since(meta: Mapping[str, Any]) -> str:
    """The latest moment at which the label can have come to an object, by its `metadata`; empty where nobody knows."""
    times = [
        each["time"]
        for each in meta.get("managedFields") or ()
        if "time" in each and f"f:{LABEL}" in _within(each.get("fieldsV1"), "f:metadata", "f:labels")
    ]
    return min(times, default="")


def _within(fields: Any, *path: str) -> Mapping[str, Any]:
    for step in path:
        fields = (fields or {}).get(step)
    return fields or {}


def _shown(pod: Object) -> Shown | None:
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each["type"] == CONDITION:
            return Shown(each.get("reason", ""), each.get("message", ""), each.get("lastTransitionTime") or "")
    return None


def _before(created: str, since: str) -> bool:
    return _time(created) < _time(since) + _SLACK


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _too_early(when: str) -> Lack:
    return Lack("CreatedBefore", f"this Pod was made before {when}, so it has no sidecar; make it anew to get one")
