"""A reconciler over an API server in memory, with balancers that acknowledge at once, on a clock that jumps."""

from __future__ import annotations

import asyncio
import base64
import copy
import random
from types import SimpleNamespace

import tests.operator.objects as make
from tests.operator.balancers import Balancer

from spillway_operator import reconcile
from spillway_operator.cluster import ApiError, Conflict
from spillway_operator.injection import Sidecar
from spillway_operator.metrics import Metrics
from spillway_operator.reconcile import Reconciler
from spillway_operator.settings import Settings

MARKER = "sk-quagga-key"
LLAMA, OPENAI, CHAT = "ModelPool/default/llama", "ModelPool/default/openai", "RoutePolicy/default/chat"
USUAL = [
    make.model_pool("llama", make.pods()),
    make.model_pool("openai", make.provider("openai"), models=("gpt-mini",)),
    make.route_policy("chat", "llama", "openai"),
    make.pod("a"),
]


class Api:
    """An API server in memory with the methods of `Cluster`: it takes statuses and children, and may say no."""

    def __init__(self):
        self.objects = copy.deepcopy(USUAL)
        self.deployments = [make.deployment("spillway-gateway", "default")]
        self.config_maps = {}
        self.secrets = {"default/openai": {"data": {"api-key": base64.b64encode(MARKER.encode()).decode()}}}
        self.writes = []
        self.events = []
        self.scales = {}
        """Replicas by kind/namespace/name; the version of each goes up with every write."""
        self.no = {}
        self.on_write = lambda: None

    async def get(self, api, plural, namespace, name):
        await asyncio.sleep(0.001)
        self._may("get", plural)
        return {"secrets": self.secrets, "configmaps": self.config_maps}[plural].get(f"{namespace}/{name}")

    async def list(self, api, plural, namespace, labels):
        self._may("list", plural)
        return self.deployments

    async def apply(self, obj):
        await asyncio.sleep(0.001)
        self._may("apply", obj["kind"])
        self.writes.append((obj["kind"], asyncio.get_running_loop().time(), obj))
        if obj["kind"] == "ConfigMap":
            self.config_maps[f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"] = obj
        return obj

    async def apply_status(self, api, plural, namespace, name, body):
        await asyncio.sleep(0.001)
        kind = {"modelpools": "ModelPool", "routepolicies": "RoutePolicy"}[plural]
        self._may("status", f"{kind}/{namespace}/{name}")
        self.writes.append((f"{kind}/{namespace}/{name}", asyncio.get_running_loop().time(), body))
        for index, each in enumerate(self.objects):
            if (each["kind"], each["metadata"]["name"]) == (kind, name):
                self.objects[index] = {**each, "status": body["status"]}
        self.on_write()

    async def event(self, regarding, type, reason, message, now):
        self._may("event", regarding["name"])
        self.events.append((regarding["kind"], regarding["name"], type, reason))

    async def scale(self, api, kind, namespace, name):
        await asyncio.sleep(0.001)
        self._may("scale", f"{kind}/{name}")
        replicas = self.scales.get(f"{kind}/{namespace}/{name}")
        meta = {"namespace": namespace, "name": name, "resourceVersion": str(len(self.written("Scale")))}
        return None if replicas is None else {"metadata": meta, "spec": {"replicas": replicas}}

    async def rescale(self, api, kind, scale, replicas):
        await asyncio.sleep(0.001)
        self._may("rescale", f"{kind}/{scale['metadata']['name']}")
        if scale["metadata"]["resourceVersion"] != str(len(self.written("Scale"))):
            raise Conflict(409, "Conflict", "the object has been modified")
        self.writes.append(("Scale", asyncio.get_running_loop().time(), replicas))
        self.scales[f"{kind}/{scale['metadata']['namespace']}/{scale['metadata']['name']}"] = replicas

    def _may(self, verb, what):
        status = self.no.get(verb, self.no.get(what, self.no.get("*")))
        if status is not None:
            raise ApiError(status, "Whatever", f"{verb} {what}")

    def written(self, what):
        return [round(at, 3) for each, at, _ in self.writes if each == what]

    def last(self, what):
        return [body for each, _, body in self.writes if each == what][-1]

    def secret(self):
        return {key: base64.b64decode(value).decode() for key, value in self.last("Secret")["data"].items()}

    def conditions(self, key):
        return {each["type"]: (each["status"], each["reason"]) for each in self.last(key)["status"]["conditions"]}


class Streams:
    """The config stream: who is there acknowledges at once what is published, unless it is told not to."""

    def __init__(self):
        self.synced = False
        self.published = []
        self.withdrawn = []
        self.replicas = 2
        self.reports = {}
        self.digest = {}

    def publish(self, gateway, snapshot, digest, at):
        self.published.append((gateway, asyncio.get_running_loop().time(), snapshot))
        self.digest[gateway] = digest

    def withdraw(self, gateway):
        self.withdrawn.append(gateway)

    def subscribers(self, gateway):
        mark, report = self.digest.get(gateway), self.reports.get(gateway)
        return tuple(Balancer(f"b{number}", mark, report=report) for number in range(self.replicas))

    def wanted(self, gateway):
        return {pool for each in self.subscribers(gateway) if each.report for pool in each.report.wanted}


class Bench:
    """A reconciler over an API server in memory; `leads` may be turned."""

    def __init__(self, monkeypatch, api=None, leads=True, sidecars=()):
        """`sidecars`: gateways that Pods' sidecars may name."""
        loop = asyncio.get_running_loop()
        clock = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time, time=loop.time)
        monkeypatch.setattr(reconcile, "time", clock)
        self.api = api or Api()
        self.streams = Streams()
        self.leads = leads
        beside = Sidecar("image", "https://operator", dict.fromkeys(sidecars, "http://gateway")) if sidecars else None
        settings = Settings(namespace="spillway", name="operator-1", address="10.0.0.1", sidecars=beside)
        wall = lambda: 1_767_268_800.0 + loop.time()  # noqa: E731
        self.it = Reconciler(settings, self.api, self.streams, lambda: self.leads, Metrics(), random.Random(7), wall)
        self.api.on_write = self.status_seen

    async def start(self):
        self.it.leadership_changed()
        await self.it.gateways.refresh()
        self.see()
        return self

    def see(self, *bodies):
        """The watch shows what there is."""
        if bodies:
            self.api.objects = list(bodies)
        self._look()
        self.it.config_changed()

    def status_seen(self):
        self._look()
        self.it.status_changed()

    def _look(self):
        """The world is one object that changes under whoever looks at it, as kopf's indices do."""
        now = make.world(*self.api.objects)
        self.it.world = self.it.world or now
        vars(self.it.world).update(vars(now))

    def edit(self, name, **spec):
        body = next(each for each in self.api.objects if each["metadata"]["name"] == name)
        new = copy.deepcopy(body)
        new["spec"] |= spec
        new["metadata"]["generation"] += 1
        self.see(*(new if each is body else each for each in self.api.objects))

    async def pods(self, *pods):
        self.see(*(each for each in self.api.objects if each["kind"] != "Pod"), *pods)
        await asyncio.sleep(0.5)
