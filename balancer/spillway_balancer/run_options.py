"""What of the options of `spillway run` fits together. Nothing here serves, so nothing here is slow to load."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .net.sidecar import Sidecar

_ROUTE = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?").fullmatch


def is_server(url: str, *schemes: str) -> bool:
    """Whether this names a server, and nothing else: no path, no user, no query."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    return parts.scheme in schemes and bool(parts.hostname) and plain


def sidecar_of(
    asked: bool,
    *,
    operator: str | None,
    url: str | None,
    routes: Sequence[str] | None,
    token_file: Path | None,
    address: str | None,
    secrets: Path | None,
    boot: Path | None,
) -> Sidecar | None:
    """What a sidecar is told, or None where none is asked for. Raises ValueError with what does not fit."""
    if not asked:
        told = {"--gateway-url": url, "--route": routes, "--gateway-token-file": token_file, "--pod-ip": address}
        if idle := [name for name, value in told.items() if value]:
            raise ValueError(f"{', '.join(idle)} without --sidecar: a gateway serves all its routes itself")
        return None
    if operator is None:
        raise ValueError("--sidecar without --operator: a sidecar is told by the operator what it may send itself")
    if url is None:
        raise ValueError("--sidecar without --gateway-url: what takes a key, or has no route, goes to the gateway")
    if not is_server(url, "http", "https"):
        raise ValueError(f"--gateway-url {url!r}: use http://HOST:PORT or https://HOST:PORT")
    if secrets is not None:
        raise ValueError("--secrets with --sidecar: a sidecar has no credentials; the gateway has them")
    if boot is not None:
        raise ValueError("--boot with --sidecar: that is a gateway's state; a sidecar without one asks the gateway")
    for name in routes or ():
        if not _ROUTE(name):
            raise ValueError(f"--route {name!r}: use NAME or NAMESPACE/NAME of a RoutePolicy")
    return Sidecar(url.rstrip("/"), token_file, tuple(sorted(set(routes or ()))), address)
