"""What an account of AWS shows with a request: a bearer key as all others, or a signature that is made for it alone.

The body is signed with the rest, so this comes last, when all of the request is known; nothing of the client's headers
is, for they may be changed on the way by proxies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from time import time

from spillway_api.snapshot import Endpoint

from ..wire.sigv4 import signed
from .credentials import Credentials


def shown(
    credentials: Credentials,
    spec: Endpoint,
    service: str,
    start: bytes,
    body: Iterable[bytes | memoryview],
    clock: Callable[[], float] = time,
) -> bytes:
    """The header lines that `service` wants to see, with the end of each; empty for an account with nothing to show.

    `start` is the request as it is written: its line and that of `host`. `clock` is Unix time in seconds.
    """
    keys = credentials.aws_keys(spec)
    if keys is None:
        return credentials.line(spec)
    line, host, _ = start.decode("latin-1").split("\r\n", 2)
    method, target, _ = line.split(" ")
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    name, _, authority = host.partition(": ")
    headers = [(name, authority)]
    made = signed(method, target, headers, digest.hexdigest(), keys, spec.region or "", service, clock())
    return "".join(f"{name}: {value}\r\n" for name, value in made).encode()
