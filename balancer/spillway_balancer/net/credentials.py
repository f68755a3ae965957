"""Credentials of endpoints, read from files that somebody mounted or wrote; values stay in this module's memory.

A Secret `namespace/name` with key `k` is the file `FOLDER/namespace_name_k` (`spillway_api.credentials`): the operator
gathers what pools refer to into one Secret of such keys. Or it is `FOLDER/namespace/name/k`, or `FOLDER/name/k` for the
namespace `default`: the shape in which Kubernetes mounts a Secret, and easy to write by hand. Without a file, the
environment variable `SPILLWAY_SECRET_<NAME>_<KEY>` (upper case, `_` for other characters) is taken; without that, what
a Secret beside the objects in the files says.

A value goes to the endpoint that names it, and nowhere else: it is written into the head of a request whose connection
was dialled for that endpoint's own URL, and redirects are handed on to nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from msgspec import UNSET

from spillway_api.credentials import file_of
from spillway_api.snapshot import Credential, Endpoint, Identity

from ..core.grants import AwsKeys, Bearer, Grant
from ..wire.identity.aws_keys import aws_keys
from .watching import POLL_SECONDS, files_under, look

log = logging.getLogger("spillway.config")

MAX_BYTES = 16 * 1024
"""Larger than any API key or token; a larger file is a mistake, and is not read."""


Values = Mapping[tuple[str, str], str]
"""By Secret (namespace/name) and key."""


class Wanted(NamedTuple):
    """What an account shows comes from an identity, and is for this URL alone."""

    identity: Identity
    region: str | None
    url: str


def wanted(spec: Endpoint) -> Wanted | None:
    """None for endpoints that have no identity."""
    if spec.identity is UNSET:
        return None
    return Wanted(spec.identity, None if spec.region is UNSET else spec.region, spec.url)


class Credentials:
    """Looks up credentials. `refresh` re-reads files, so that a rotated key takes force without a restart."""

    def __init__(self, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._environ = environ
        self._values: dict[tuple[str, str], str | None] = {}
        self._aws: dict[tuple[str, str], AwsKeys | None] = {}
        self._given: Values = {}
        self.grants: dict[Wanted, Grant] = {}
        """What identities have brought, as long as it lives; `net/identities.py` keeps it so."""
        self.identity_refused: Callable[[Endpoint, float], bool] = lambda spec, begun: True
        """As `refused`, of endpoints with an identity."""
        self._before: dict[tuple[str, str], str | None] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._turned_down: dict[tuple[str, str], bytes | None] = {}

    def give(self, values: Values) -> None:
        """Values that stand in no folder, in the place of those given before."""
        self._given = values
        self.refresh()

    def has(self, secret: str, key: str) -> bool:
        """Whether Secret `namespace/name` holds `key`."""
        return self._value(secret, key) is not None

    def digest(self, secret: str, key: str) -> bytes | None:
        """SHA-256 of the value, by which one who shows it is known; None where there is none."""
        value = self._value(secret, key)
        return None if value is None else hashlib.sha256(value.encode()).digest()

    def keyed(self, spec: Endpoint) -> bool:
        """Whether what the endpoint asks for, if anything, is there."""
        asked, credential = wanted(spec), spec.credential
        if asked is not None:
            return asked in self.grants
        return credential is None or self.has(credential.secret, credential.key)

    def aws_keys(self, spec: Endpoint) -> AwsKeys | None:
        """The keys that requests to the endpoint are signed with; None where it takes a header instead."""
        asked, credential = wanted(spec), spec.credential
        if asked is not None:
            grant = self.grants.get(asked)
            return grant if isinstance(grant, AwsKeys) else None
        if credential is None:
            return None
        known = (credential.secret, credential.key)
        if known not in self._aws:
            value = self._value(*known)
            self._aws[known] = None if value is None else aws_keys(value)
        return self._aws[known]

    def refused(self, spec: Endpoint, begun: float) -> bool:
        """An attempt that `begun` then (seconds, monotonic) was refused with what it has shown. False where that is no
        longer what would be shown now."""
        if spec.identity is not UNSET:
            return self.identity_refused(spec, begun)
        if spec.credential is None:
            return True
        known = (spec.credential.secret, spec.credential.key)
        digest = self.digest(*known)
        if begun < self._since.get(known, begun):
            return False
        self._turned_down[known] = digest
        return True

    def renewed(self, spec: Endpoint) -> bool:
        """Whether the Secret of an endpoint holds something else than what was refused last. Of an identity, who keeps
        it tells by itself."""
        if spec.credential is None:
            return False
        known = (spec.credential.secret, spec.credential.key)
        return self.digest(*known) != self._turned_down.get(known)

    def line(self, spec: Endpoint) -> bytes:
        """The header line that the endpoint is shown; empty where it asks for none, or takes a signature."""
        if spec.credential is not None:
            return self.header(spec.credential)
        asked = wanted(spec)
        grant = None if asked is None else self.grants.get(asked)
        return f"Authorization: Bearer {grant.token}\r\n".encode() if isinstance(grant, Bearer) else b""

    def header(self, credential: Credential) -> bytes:
        """The header line that carries the credential; empty when it has vanished since the snapshot was made."""
        value = self._value(credential.secret, credential.key)
        if value is None or not value.isprintable():
            return b""
        if credential.header == "api-key" and value[:7].lower() == "bearer ":
            # Azure takes a key there and a token here; who writes a token says so by its prefix.
            return f"Authorization: {value}\r\n".encode()
        return f"{credential.header}: {credential.prefix}{value}\r\n".encode()

    def value(self, credential: Credential) -> str | None:
        """What is kept, without a header's words around it; None when it has vanished."""
        return self._value(credential.secret, credential.key)

    def refresh(self) -> None:
        """Forget what was read; the next use reads the files again."""
        self._before |= self._values
        self._values.clear()
        self._aws.clear()

    async def watch(self, changed: Callable[[], None]) -> None:
        """Follow the folder until cancelled: what has changed there is in force within a second."""
        folder = self._folder
        if folder is None:
            return
        seen = await asyncio.to_thread(lambda: look(files_under(folder)))
        self.refresh()  # what was read before the first look may have been older
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = await asyncio.to_thread(lambda: look(files_under(folder)))
            if now != seen:
                seen = now
                # Thousands of consumers may be among them, which must not hold up the loop.
                before, self._values = self._values, await asyncio.to_thread(self._again, list(self._values))
                self._aws.clear()
                for known, value in self._values.items():
                    if value != before.get(known):
                        self._since[known] = monotonic()
                log.info("credentials have changed, and are read again")
                changed()

    def _again(self, known: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str | None]:
        return {each: self._read(*each) for each in known}

    def _value(self, secret: str, key: str) -> str | None:
        known = (secret, key)
        if known not in self._values:
            value = self._values[known] = self._read(secret, key)
            if known in self._before and self._before.pop(known) != value:
                self._since[known] = monotonic()
        return self._values[known]

    def _read(self, secret: str, key: str) -> str | None:
        namespace, name = secret.split("/", 1)
        if self._folder is not None:
            places = [self._folder / file_of(secret, key), self._folder / namespace / name / key]
            if namespace == "default":
                places.append(self._folder / name / key)
            for place in places:
                try:
                    if place.stat().st_size <= MAX_BYTES:
                        return _usable(place.read_text(encoding="utf-8"))
                except (OSError, UnicodeDecodeError):
                    continue
        variable = "SPILLWAY_SECRET_" + re.sub(r"[^A-Z0-9]", "_", f"{name}_{key}".upper())
        return _usable(self._environ.get(variable, "")) or _usable(self._given.get((secret, key), ""))


def _usable(value: str) -> str | None:
    """The value without the newline that editors add; None when it could not stand in a header. Keys for AWS do not
    stand in one, and may have several lines."""
    value = value.strip()
    if not value or not value.isascii():
        return None
    return value if value.isprintable() or aws_keys(value) is not None else None
