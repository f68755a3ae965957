"""kopf's part: what is watched, how much of it is kept, and whom a change wakes.

Only indices and event handlers are registered, so kopf writes nothing to anybody's objects. Every handler is
`async def`, since kopf runs others in threads, and ends in a wake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import kopf

from spillway_api.types import GROUP, VERSION

from . import barrier, facts, relisting
from .facts import SERVICE_LABEL, Watched
from .world import Fact, Indices, World

CHUNK = 500
"""Objects of one page of a listing: bounds what the first listing of a big cluster costs both sides at a time."""
WATCH_SECONDS = 290
"""After so long the server ends a watch and kopf goes on from where it was; proxies cut what stays open longer."""


class Kind(NamedTuple):
    """A resource that is watched."""

    name: str
    resource: tuple[str, str, str]
    facts: Callable[[Mapping[str, Any]], Any]
    key: Callable[[Any], Any]


KINDS = (
    Kind("pools", (GROUP, VERSION, "modelpools"), facts.model_pool, lambda it: it.namespace),
    Kind("policies", (GROUP, VERSION, "routepolicies"), facts.route_policy, lambda it: it.namespace),
    Kind("pods", ("", "v1", "pods"), facts.pod, lambda it: it.namespace),
    Kind("services", ("", "v1", "services"), facts.service, lambda it: (it.namespace, it.name)),
    Kind(
        "slices",
        ("discovery.k8s.io", "v1", "endpointslices"),
        facts.endpoint_slice,
        lambda it: (it.namespace, it.service),
    ),
    Kind(
        "inference_pools",
        ("inference.networking.k8s.io", "v1", "inferencepools"),
        facts.inference_pool,
        lambda it: (it.namespace, it.name),
    ),
    Kind("namespaces", ("", "v1", "namespaces"), facts.namespace, lambda it: it.name),
)


class Watching:
    """Turns watch events into wakes. `world` is there from kopf's start on; `synced` once all indices are filled."""

    def __init__(
        self, changed: Callable[[], None], status_changed: Callable[[], None], namespaces: Collection[str] = ()
    ) -> None:
        """`changed` is called when something that is served may have changed, `status_changed` when only a status has.

        Without `namespaces` all are watched; with them Namespaces themselves are not, for no Role lets them be read.
        """
        self._namespaces = tuple(namespaces)
        self._changed = changed
        self._status_changed = status_changed
        self._kinds = tuple(kind for kind in KINDS if kind.name != "namespaces" or not namespaces)
        self._last: dict[tuple[str, str, str], Any] = {}
        self._before: dict[tuple[str, str, str], Any] = {}
        self.started = asyncio.Event()
        """kopf runs, and has set up its handlers of signals."""
        self.world: World | None = None
        self.synced = False

    def registry(self) -> kopf.OperatorRegistry:
        """The handlers, for `kopf.operator(registry=…)`."""
        barrier.install()
        relisting.install([kind.resource for kind in self._kinds])
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(_login)
        kopf.on.startup(registry=registry, id="indices")(self._startup)
        for kind in self._kinds:
            self._watch(registry, kind)
        return registry

    async def _startup(self, **kwargs: Any) -> None:
        self.world = World(Indices(*(kwargs.get(name, {}) for name in Indices._fields)))
        self.started.set()

    def lost(self) -> list[str]:
        """Resources whose watch has ended. kopf opens one anew after whatever the network does, but a task of it that
        fails otherwise ends in silence. A kind that is not installed has no watch: InferencePools may come and go.
        """
        if not self.synced:
            return []
        running = {task.get_name() for task in asyncio.all_tasks()}
        return [
            kind.resource[2]
            for kind in self._kinds
            if kind.name != "inference_pools"
            and any(_watcher(kind, namespace) not in running for namespace in self._namespaces or (None,))
        ]

    def _watch(self, registry: kopf.OperatorRegistry, kind: Kind) -> None:
        async def index(body: Mapping[str, Any], **_: Any) -> dict[Any, Any]:
            there = self._take(kind, body)
            return {kind.key(there): there}

        async def heard(event: Mapping[str, Any], body: Mapping[str, Any], **_: Any) -> None:
            self._heard(kind, event["type"] == "DELETED", body)

        kopf.index(*kind.resource, id=kind.name, registry=registry)(index)
        kopf.on.event(*kind.resource, id=f"{kind.name}-changed", registry=registry)(heard)

    def _take(self, kind: Kind, body: Mapping[str, Any]) -> Any:
        """Facts of an object; the very ones of before where nothing has changed."""
        key = _key(kind, body)
        before = self._last.get(key)
        there = kind.facts(body)
        if before is not None:
            there = before if there == before else _with_same_item(before, there)
        self._before[key] = before
        self._last[key] = there
        return there

    def _heard(self, kind: Kind, deleted: bool, body: Mapping[str, Any]) -> None:
        first, self.synced = not self.synced, True
        if first:  # all that the first listings brought is in the indices, and no news any more
            self._before = dict(self._last)
        key = _key(kind, body)
        before = self._before.pop(key, None)
        there = self._last.get(key)
        if deleted:
            before, there = self._last.pop(key, None), None
        if first or self._concerns(before, there):
            self._changed()
        elif before is not there and isinstance(there, Watched):
            self._status_changed()

    def _concerns(self, before: Any, there: Any) -> bool:
        """Whether what is served may differ."""
        if before is there:
            return False
        assert self.world is not None
        known = before if there is None else there
        match known:
            case Watched():
                if there is None:
                    self.world.forget(known.namespace, known.name)
                return before is None or there is None or before.item is not there.item
            case facts.NamespaceFacts():
                return True
            case _:
                fact: Fact = known
                return bool(self.world.concerned(before, fact))


def _watcher(kind: Kind, namespace: str | None) -> str:
    """How kopf names the task that watches."""
    group, version, plural = kind.resource
    return f"watcher for {plural}.{version}{'.' if group else ''}{group}@{namespace}"


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """As the Pod's ServiceAccount, else by KUBECONFIG. Asked again when the API server refuses the token."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _key(kind: Kind, body: Mapping[str, Any]) -> tuple[str, str, str]:
    meta = body["metadata"]
    return kind.name, meta.get("namespace", ""), meta["name"]


def _with_same_item(before: Any, there: Any) -> Any:
    """A change of the status alone leaves what the object says the same object: nothing is looked up anew for it."""
    if isinstance(there, Watched) and there.item is not None and there.item == before.item:
        return there._replace(item=before.item)
    return there


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf copies every object to compare it with what it was; nobody here handles changes by field."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is written to anybody's objects."""


class _NoProgress(kopf.ProgressStorage):
    """Handlers of events have no progress to keep."""

    def fetch(self, *, key: Any, body: kopf.Body) -> Any:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is written to anybody's objects."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """There is nothing."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Nothing is written to anybody's objects."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def settings_for(pod_selector: str | None, silence: float) -> kopf.OperatorSettings:
    """kopf's settings: nothing is written, nothing that is not needed is sent by the API server.

    `silence`: seconds after which a watch that brings nothing is opened anew.
    """
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    watching = settings.watching
    watching.chunk_size = CHUNK
    watching.server_timeout = WATCH_SECONDS
    watching.client_timeout = WATCH_SECONDS + 30
    watching.connect_timeout = 5.0
    watching.inactivity_timeout = silence
    watching.field_selectors["", "v1", "pods"] = "status.phase=Running"
    watching.label_selectors["discovery.k8s.io", "v1", "endpointslices"] = SERVICE_LABEL
    if pod_selector:
        watching.label_selectors["", "v1", "pods"] = pod_selector
    settings.queueing.idle_timeout = 1.0
    settings.networking.request_timeout = 60.0
    return settings
