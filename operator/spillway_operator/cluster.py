"""The one module that talks to the API server outside of kopf's watches; objects go in and out as plain JSON.

It stands over `kubernetes.aio`'s ApiClient, whose models are never loaded: beside kopf, which imports the package
too, it costs nothing measurable (60 MB and 0.5 s for both, 59 MB and 0.5 s for kopf alone). A retry is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, SERVICE_TOKEN_FILENAME, load_incluster_config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, load_kube_config

MANAGER: Final = "spillway-operator"
"""Owner of the fields that are written; the name in `kubectl get --show-managed-fields`."""
TIMEOUT: Final = 10.0
"""Seconds for one call, its answer included."""
LISTING: Final = 60.0
"""Seconds for a page of a long listing."""
SERIES: Final = timedelta(minutes=10)
"""An event that comes again this soon after the last time is counted and not written anew."""

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""

_KINDS: Final = {
    ("v1", "configmaps"): "ConfigMap",
    ("v1", "pods"): "Pod",
    ("v1", "secrets"): "Secret",
    ("apps/v1", "deployments"): "Deployment",
    ("coordination.k8s.io/v1", "leases"): "Lease",
    ("events.k8s.io/v1", "events"): "Event",
    ("spillway.dev/v1alpha1", "modelpools"): "ModelPool",
    ("spillway.dev/v1alpha1", "routepolicies"): "RoutePolicy",
}
_PLURALS: Final = {(api, kind): plural for (api, plural), kind in _KINDS.items()}
_SCALED: Final = {("apps/v1", "Deployment"): "deployments", ("apps/v1", "StatefulSet"): "statefulsets"}
_CONFIDENTIAL: Final = frozenset({"secrets", "tokenreviews"})
"""Resources whose error messages may quote what they hold."""
_NOTE_BYTES: Final = 1024
"""Longest `note` that the API server takes."""


class ApiError(Exception):
    """The API server said no, or could not be asked: status 0. Raised for every failure of a call."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status or 'no answer'} {reason}: {message}")
        self.status = status
        self.reason = reason
        """Kubernetes' own, such as Forbidden; Unreachable and Timeout where nothing was answered."""
        self.message = message


class Conflict(ApiError):
    """The object is there already, or has changed since the version that was given."""


class _Seen(NamedTuple):
    """An event that was written: where it stands, how often it was seen, and when last."""

    name: str
    times: int
    at: datetime


class Cluster:
    """The API server of one cluster. Every method raises ApiError unless it says otherwise."""

    def __init__(self, api: Any, kubeconfig: str | None = None) -> None:
        """Use `connect`. `kubeconfig` is read again when a log-in is refused: its tokens run out."""
        self._api = api
        self._kubeconfig = kubeconfig
        self._instance = (os.environ.get("POD_NAME") or socket.gethostname())[:128]
        self._seen: dict[tuple[str, ...], _Seen] = {}
        self._telling = asyncio.Lock()
        self._plurals: dict[tuple[str, str], str] = {}

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Cluster:
        """With the Pod's ServiceAccount, whose token is read again every minute; outside of a cluster by KUBECONFIG.

        A `kubeconfig` that is given goes before both. Raises ApiError when there is no log-in.
        """
        configuration = Configuration()
        file: str | None = None
        try:
            in_cluster = SERVICE_HOST_ENV_NAME in os.environ and os.path.exists(SERVICE_TOKEN_FILENAME)  # noqa: ASYNC240
            if kubeconfig is None and in_cluster:
                load_incluster_config(client_configuration=configuration)
            else:
                # The variable is read now and not when the client's package was imported.
                file = str(kubeconfig or os.environ.get("KUBECONFIG") or KUBE_CONFIG_DEFAULT_LOCATION)
                await load_kube_config(config_file=file, client_configuration=configuration)
            # Watches hold their connections, and a renewal of the Lease must not wait for one.
            configuration.connection_pool_maxsize = 0
            api = ApiClient(configuration)
        except (ConfigException, OSError) as error:
            raise ApiError(0, "NoLogin", str(error)) from None
        api.user_agent = MANAGER
        return cls(api, file)

    async def close(self) -> None:
        await self._api.close()

    async def apply(self, obj: Object) -> Object:
        """Server-side apply of one object with a name; other managers' claims on its fields are overruled.

        Returns the object as it stands then. Raises KeyError for a kind that is not in the table above.
        """
        api, meta = obj["apiVersion"], obj["metadata"]
        path = _path(api, _PLURALS[api, obj["kind"]], meta["namespace"], meta["name"])
        return await self._apply(path, obj)

    async def apply_status(self, api: str, plural: str, namespace: str, name: str, body: Object) -> None:
        """Server-side apply of `body["status"]`; nothing happens when the object is gone.

        apiVersion, kind and name are put to the body where it lacks them.
        """
        meta = {"name": name, "namespace": namespace, **body.get("metadata", {})}
        whole = {"apiVersion": api, "kind": _KINDS[api, plural], **body, "metadata": meta}
        try:
            await self._apply(_path(api, plural, namespace, name, "status"), whole)
        except ApiError as error:
            if error.status != 404:
                raise

    async def get(self, api: str, plural: str, namespace: str, name: str) -> Object | None:
        """One object, None when it is not there."""
        try:
            return await self._call("GET", _path(api, plural, namespace, name), plural=plural)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list_named(self, api: str, plural: str, namespace: str, name: str) -> list[Object]:
        """The objects of one name, in all namespaces where that is empty; the right to list that name is enough."""
        query = {"fieldSelector": f"metadata.name={name}"}
        answer = await self._call("GET", _path(api, plural, namespace), query=query, plural=plural)
        items = answer.get("items")
        return items if isinstance(items, list) else []

    async def list(self, api: str, plural: str, namespace: str, labels: str) -> list[Object]:
        """The objects of a namespace that a label selector takes. For a few: they come in one answer."""
        answer = await self._call("GET", _path(api, plural, namespace), query={"labelSelector": labels}, plural=plural)
        items = answer.get("items")
        return items if isinstance(items, list) else []

    async def page(self, api: str, plural: str, namespace: str, query: dict[str, str]) -> bytes:
        """One page of a listing as it comes, for who keeps little of it. Of all namespaces where that is empty."""
        path = _path(api, plural, namespace)
        async with self._asked("GET", path, aiohttp.ClientTimeout(total=LISTING), query) as answer:
            return await answer.read()

    async def watch(
        self, api: str, plural: str, namespace: str, query: dict[str, str], silence: float
    ) -> AsyncGenerator[bytes, None]:
        """The events of a watch, a JSON text each, until the server ends it or `silence` seconds bring nothing."""
        path = _path(api, plural, namespace)
        timeout = aiohttp.ClientTimeout(sock_connect=TIMEOUT, sock_read=silence)
        async with self._asked("GET", path, timeout, query) as answer:
            begun = bytearray()
            async for data in answer.content.iter_any():  # lines may be longer than what `readline` takes
                begun += data
                *lines, begun = begun.split(b"\n")
                for line in lines:
                    yield bytes(line)

    async def create(self, api: str, plural: str, namespace: str, body: Object) -> Object:
        """A new object. Raises Conflict when its name is taken."""
        path = _path(api, plural, namespace)
        return await self._call("POST", path, body, query={"fieldManager": MANAGER}, plural=plural)

    async def replace(self, api: str, plural: str, namespace: str, body: Object) -> Object:
        """Puts the object in the place of the version that it names (metadata.resourceVersion).

        Raises Conflict when that is no longer the current one.
        """
        path = _path(api, plural, namespace, body["metadata"]["name"])
        return await self._call("PUT", path, body, query={"fieldManager": MANAGER}, plural=plural)

    async def scale(self, api: str, kind: str, namespace: str, name: str) -> Object | None:
        """The scale subresource of an object (autoscaling/v1 Scale), None when there is no such object or kind."""
        plural = await self._plural(api, kind)
        if plural is None:
            return None
        try:
            return await self._call("GET", _path(api, plural, namespace, name, "scale"))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def rescale(self, api: str, kind: str, scale: Object, replicas: int) -> None:
        """Sets the replicas of what `scale` was read from. Raises Conflict when it has changed since."""
        meta = scale["metadata"]
        path = _path(api, str(await self._plural(api, kind)), meta["namespace"], meta["name"], "scale")
        await self._patch(
            path, {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"replicas": replicas}}
        )

    async def _plural(self, api: str, kind: str) -> str | None:
        """The resource of a kind; of those that are not built in, as the API server says."""
        known = _SCALED.get((api, kind)) or self._plurals.get((api, kind))
        if known is None:
            try:
                found = await self._call("GET", f"/apis/{quote(api)}" if "/" in api else f"/api/{quote(api)}")
            except ApiError as error:
                if error.status == 404:
                    return None
                raise
            for each in found.get("resources") or ():
                if each.get("kind") == kind and "/" not in each["name"]:
                    known = self._plurals[api, kind] = str(each["name"])
        return known

    async def review_token(self, token: str, audience: str) -> Object:
        """What the API server knows of a token: `status` of its TokenReview, `authenticated` only for the audience."""
        api = "authentication.k8s.io/v1"
        body = {"apiVersion": api, "kind": "TokenReview", "spec": {"token": token, "audiences": [audience]}}
        path = f"/apis/{api}/tokenreviews"
        answer = await self._call("POST", path, body, plural="tokenreviews")
        status = answer.get("status")
        return status if isinstance(status, dict) else {}

    async def event(self, regarding: Object, type: str, reason: str, message: str, now: datetime) -> None:
        """Tells something about an object (an ObjectReference), `type` Normal or Warning, at `now` with a time zone.

        The same of the same object within ten minutes of the last time raises the count of its series.
        """
        note = message.encode()[:_NOTE_BYTES].decode(errors="ignore")
        parts = ("apiVersion", "kind", "namespace", "name", "uid")
        key = (*(str(regarding.get(part, "")) for part in parts), type, reason, note)
        namespace = regarding.get("namespace") or "default"
        async with self._telling:  # a second one of the same must find the first one written
            self._seen = {key: seen for key, seen in self._seen.items() if now - seen.at < SERIES}
            if (seen := self._seen.get(key)) is not None:
                times = seen.times + 1
                series = {"series": {"count": times, "lastObservedTime": micro_time(now)}}
                try:
                    await self._patch(_path("events.k8s.io/v1", "events", namespace, seen.name), series)
                except ApiError as error:
                    if error.status != 404:  # the API server forgets events after an hour, or somebody deleted it
                        raise
                else:
                    self._seen[key] = _Seen(seen.name, times, now)
                    return
            # As client-go names them: the object and the nanosecond.
            name = f"{str(regarding.get('name', 'none'))[:200]}.{int(now.timestamp() * 1e6) * 1000:x}"
            body = {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "eventTime": micro_time(now),
                "reportingController": "spillway.dev/operator",
                "reportingInstance": self._instance,
                "action": "Reconcile",
                "reason": reason,
                "type": type,
                "regarding": regarding,
                "note": note,
            }
            while True:
                try:
                    await self.create("events.k8s.io/v1", "events", namespace, body)
                    break
                except Conflict:  # two events of an object in one microsecond
                    name += "0"
                    body["metadata"] = {"name": name, "namespace": namespace}
            self._seen[key] = _Seen(name, 1, now)

    async def _apply(self, path: str, body: Object) -> Object:
        query = {"fieldManager": MANAGER, "force": "true"}
        secret = "secrets" if body["kind"] == "Secret" else ""
        return await self._call("PATCH", path, body, "application/apply-patch+yaml", query, secret)

    async def _patch(self, path: str, body: Object) -> Object:
        return await self._call("PATCH", path, body, "application/merge-patch+json", {"fieldManager": MANAGER})

    async def _call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        kind: str = "application/json",
        query: dict[str, str] | None = None,
        plural: str = "",
    ) -> Object:
        async with self._asked(method, path, aiohttp.ClientTimeout(total=TIMEOUT), query, body, kind, plural) as answer:
            data = await answer.read()
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):  # a proxy in between
            raise ApiError(200, "NotJSON", f"{method} {path}: the answer is no JSON object")
        return value

    @contextlib.asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        kind: str = "application/json",
        plural: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of success, for the time of the block; what fails in the block raises ApiError too."""
        headers = {"Accept": "application/json", "Content-Type": kind}
        answer: aiohttp.ClientResponse | None = None
        try:
            # Fills in the log-in, and asks for a new token where the old one may have run out.
            _, url, headers, _, _ = await self._api.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"]
            )
            url = f"{url}?{urlencode(query)}" if query else url
            answer = (await self._api.call_api(method, url, headers, body, _request_timeout=timeout)).response
            assert answer is not None
            if not 200 <= answer.status < 300:
                data = await answer.read()
                if answer.status == 401 and self._kubeconfig is not None:
                    await self._log_in_again(self._kubeconfig)
                raise _refusal(answer.status, data, f"{method} {path}", plural in _CONFIDENTIAL)
            yield answer
        except TimeoutError:
            within = f"no answer within {timeout.total or timeout.sock_read:g} s"
            raise ApiError(0, "Timeout", f"{method} {path}: {within}") from None
        except (aiohttp.ClientError, OSError, ConfigException) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error}") from None
        finally:
            if answer is not None:
                answer.release()

    async def _log_in_again(self, kubeconfig: str) -> None:
        try:
            await load_kube_config(config_file=kubeconfig, client_configuration=self._api.configuration)
        except (ConfigException, OSError) as error:
            raise ApiError(0, "NoLogin", str(error)) from None


def micro_time(at: datetime) -> str:
    """Kubernetes' MicroTime: RFC 3339 in UTC with microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _path(api: str, plural: str, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
    group = f"/apis/{api}" if "/" in api else f"/api/{api}"
    parts = [group, *(["namespaces", quote(namespace, safe="")] if namespace else []), plural]
    parts += [quote(part, safe="") for part in (name, subresource) if part is not None]
    return "/".join(parts)


def _refusal(status: int, data: bytes, call: str, confidential: bool) -> ApiError:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    told = answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}
    reason = str(told.get("reason") or "Unknown")
    # A message about a Secret's field may quote the field; where it stands and why is enough.
    message = call if confidential else f"{call}: {told.get('message', 'no reason given')}"
    return (Conflict if status == 409 else ApiError)(status, reason, message)
