"""How the endpoints of a ModelPool are reached: authorities that TLS believes, and a proxy."""

from __future__ import annotations

import re
import ssl
from typing import NamedTuple

from spillway_api.known import Cluster, HasSecret, Problem, missing_secret, named
from spillway_api.snapshot import Credential, Proxy, Trust
from spillway_api.types import ModelPool

MAX_AUTHORITIES = 512 * 1024
"""Characters: more than all public authorities take. They stand in the snapshot of every balancer."""

_BEGIN = "-----BEGIN CERTIFICATE-----"
_CERTIFICATES = re.compile(f"{_BEGIN}[^-]+-----END CERTIFICATE-----").findall


class Reached(NamedTuple):
    """`known`: false where something is missing without which nothing may be sent."""

    known: bool = True
    trust: Trust | None = None
    proxy: Proxy | None = None


def way(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> Reached:
    """How a pool is reached. Without the authorities that it names nobody could be believed, and without its proxy's
    log-in nobody reached."""
    trust, proxy = _trust(item, cluster, problems), _proxy(item, secrets, cluster, problems)
    wants_proxy = item.spec.source.provider is not None and item.spec.source.provider.proxy is not None
    if (item.spec.tls is not None and trust is None) or (wants_proxy and proxy is None):
        return Reached(False)
    return Reached(True, trust, proxy)


def _trust(item: ModelPool, cluster: Cluster, problems: list[Problem]) -> Trust | None:
    tls = item.spec.tls
    if tls is None:
        return None
    authorities: str | None = None
    ref = tls.ca_config_map_ref
    if ref is not None:
        name = f"{item.metadata.namespace}/{ref.name}"
        text = cluster.config(name, ref.key)
        problem = ("ConfigMapNotFound", f'no ConfigMap "{ref.name}" with a key "{ref.key}"')
        if text is not None:
            authorities = _certificates(text)
            problem = ("Invalid", f'key "{ref.key}" of ConfigMap "{ref.name}" holds no certificates in PEM')
        if authorities is None:
            reason, message = problem
            said = f"{message}; the pool gets no requests"
            problems.append(Problem(named(item), "spec.tls.caConfigMapRef", reason, said, fatal=False))
            return None
    return Trust(authorities, tls.server_name, tls.insecure_skip_verify)


def _certificates(text: str) -> str | None:
    """The certificates of a text, and nothing else of it: lists of authorities have names in all scripts between them,
    of which OpenSSL's door in Python takes none, and a private key that strayed in is not to be told. None where there
    are none, or one that cannot be read."""
    each = _CERTIFICATES(text)
    found = "".join(f"{one}\n" for one in each)
    if not each or len(each) != text.count(_BEGIN) or len(found) > MAX_AUTHORITIES or not found.isascii():
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (ssl.SSLError, ValueError):
        return None
    return found


def _proxy(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> Proxy | None:
    provider = item.spec.source.provider
    if provider is None or provider.proxy is None:
        return None
    ref = provider.proxy.secret_ref
    url = provider.proxy.url.rstrip("/")
    if ref is None:
        return Proxy(url)
    missing = missing_secret(item, ref, secrets, cluster)
    if missing is not None:
        path = "spec.source.provider.proxy.secretRef"
        said = f"{missing.message}; the pool gets no requests"
        problems.append(Problem(named(item), path, missing.reason, said, fatal=False))
        return None
    return Proxy(url, Credential(f"{item.metadata.namespace}/{ref.name}", ref.key, "Proxy-Authorization", "Basic "))
