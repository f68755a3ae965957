"""A ModelPool to the Pool of a snapshot: endpoints that can be dialled and have their credential."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from spillway_api.known import Cluster, Discovered, HasSecret, Problem, key_of, missing_secret, named
from spillway_api.priced import unpriced
from spillway_api.prices import Prices
from spillway_api.providers import PRESETS, address
from spillway_api.snapshot import Credential, Endpoint, Identity, Pool
from spillway_api.types import Model, ModelPool, Provider, SecretRef
from spillway_api.ways import way

_REGION = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?").fullmatch


def compile_pool(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> Pool:
    """The pool of an object, with the endpoints that can be dialled and have their credential."""
    spec = item.spec
    provider = spec.source.provider
    endpoints = _accounts(item, secrets, cluster, problems) + _addresses(item, secrets, cluster, problems)
    reached = way(item, secrets, cluster, problems)
    made = Pool(
        name="/".join(key_of(item)),
        models=tuple(_resolved(model, provider, cluster.prices) for model in spec.models),
        engine=spec.engine,
        provider=None if provider is None else provider.type,
        endpoints=tuple(endpoints) if reached.known else (),
        dispatch=spec.dispatch,
        capacity=spec.capacity,
        metrics=spec.metrics,
        health=spec.health,
        data_handling=spec.data_handling,
        wakes=_wakes(item, endpoints, cluster),
        budget=spec.budget,
        cost=spec.cost,
        trust=reached.trust,
        proxy=reached.proxy,
    )
    if made.budget is not None:
        missing = unpriced(made, None, [model.name for model in made.models], made.budget)
        if missing is not None:
            problems.append(Problem(named(item), "spec.budget", "Invalid", missing, fatal=True))
    return made


def _resolved(model: Model, provider: Provider | None, prices: Prices) -> Model:
    """A model with the name that is sent upstream, and its price: its own, else what a provider is known to charge.
    What own engines cost nobody else can know."""
    upstream, price = model.upstream_name or model.name, model.price
    if price is None and provider is not None:
        found = prices(provider.type, upstream)
        price = None if found is None else found.price
    return msgspec.structs.replace(model, upstream_name=upstream, price=price)


def _accounts(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> list[Endpoint]:
    provider = item.spec.source.provider
    if provider is None:
        return []
    path = "spec.source.provider"
    preset = PRESETS[provider.type]
    if provider.base_url is not None and not _dialled(item, provider.base_url, f"{path}.baseURL", problems):
        return []
    endpoints = []
    for index, account in enumerate(provider.accounts):
        ref, credential, region = account.secret_ref, None, account.region or ""
        if region and not _REGION(region):
            message = f'"{region}" is no region; write it like us-east-1'
            problems.append(Problem(named(item), f"{path}.accounts[{index}].region", "Invalid", message, fatal=True))
            continue
        url = address(provider.type, provider.base_url, region, account.project or "")
        if ref is not None:
            credential = _credential(item, ref, preset.header, preset.prefix)
            left_out = f'account "{account.name}" is left out'
            if not _found(item, ref, f"{path}.accounts[{index}].secretRef", left_out, secrets, cluster, problems):
                continue
        own = account.identity
        identity: Identity | UnsetType = UNSET
        if own is not None:
            own_tls = item.spec.tls is not None
            identity = Identity(item.metadata.namespace, own_tls, own.aws, own.gcp, own.azure)
        told = account.limits or UNSET, identity, account.region or UNSET
        endpoints.append(Endpoint(account.name, url, account.weight, credential, *told))
    return endpoints


def _addresses(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> list[Endpoint]:
    """Self-hosted endpoints: those written down, or those found."""
    static, auth = item.spec.source.static, item.spec.auth
    if item.spec.source.provider is not None:
        return []
    if static is not None:
        endpoints = [
            Endpoint(endpoint.name, endpoint.url.rstrip("/"), endpoint.weight)
            for index, endpoint in enumerate(static.endpoints)
            if _dialled(item, endpoint.url, f"spec.source.static.endpoints[{index}].url", problems)
        ]
    else:
        found = cluster.discovered(item)
        endpoints = list(found.endpoints)
        problems += [Problem(named(item), *problem, fatal=False) for problem in found.problems]
    if auth is None:
        return endpoints
    credential = _credential(item, auth.secret_ref, auth.header, auth.prefix)
    left_out = "all endpoints of the pool are left out"
    if not _found(item, auth.secret_ref, "spec.auth.secretRef", left_out, secrets, cluster, problems):
        return []
    return [msgspec.structs.replace(endpoint, credential=credential) for endpoint in endpoints]


def _wakes(item: ModelPool, endpoints: list[Endpoint], cluster: Cluster) -> bool:
    """Whether it is woken when a request wants it. That helps nobody where something else is wrong than that it sleeps:
    the credential of its endpoints is missing, or its source, or the cluster, as from files."""
    scaling = item.spec.scaling
    if scaling is None or scaling.from_zero != "Wake":
        return False
    found = Discovered() if item.spec.source.static is not None else cluster.discovered(item)
    return bool(endpoints) or not (found.endpoints or found.problems)


def _dialled(item: ModelPool, url: str, path: str, problems: list[Problem]) -> bool:
    """Whether a URL can be dialled. Its schema lets pass a port of 99999, a bare ? and spaces in the path."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and not set(url) & set(' ?\\<>"')
    except ValueError:
        usable = False
    if not usable:
        message = f'"{url}" cannot be dialled; write it like http://host:port'
        problems.append(Problem(named(item), path, "Invalid", message, fatal=True))
    return usable


def _found(
    item: ModelPool,
    ref: SecretRef,
    path: str,
    left_out: str,
    secrets: HasSecret,
    cluster: Cluster,
    problems: list[Problem],
) -> bool:
    missing = missing_secret(item, ref, secrets, cluster)
    if missing is not None:
        problems.append(Problem(named(item), path, missing.reason, f"{missing.message}; {left_out}", fatal=False))
    return missing is None


def _credential(item: ModelPool, ref: SecretRef, header: str, prefix: str) -> Credential:
    return Credential(f"{item.metadata.namespace}/{ref.name}", ref.key, header, prefix)
