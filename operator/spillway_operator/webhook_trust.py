"""What API servers believe of the webhook, and so what it may show them: a certificate changes without a gap.

An API server verifies the webhook by the `caBundle` of its configuration, which the leader keeps. There an authority
comes before anything is served that it has signed: a replica takes a new certificate when it has found the authority
in the bundle at two looks, so that every API server has heard of it. And it goes long after: the replicas follow one
by one. So it does not matter that cert-manager replaces a certificate and its authority in one write.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from .certificates import data_of
from .cluster import Cluster, Object
from .settings import Settings

KEEP: Final = timedelta(minutes=10)
"""For this long an authority stays in the bundle that is in the Secret no more."""
_API: Final = "admissionregistration.k8s.io/v1"
_PLURAL: Final = "mutatingwebhookconfigurations"

log = logging.getLogger("spillway.webhook")


class Bundle:
    """The `caBundle` of the configuration with the webhooks."""

    def __init__(self, settings: Settings, cluster: Cluster, now: Callable[[], datetime]) -> None:
        self._name = settings.webhook
        self._cluster = cluster
        self._now = now
        self._old: dict[bytes, datetime] = {}
        """Authorities that are no more in the Secret, by their digests, and when that was seen first."""

    async def read(self) -> bytes | None:
        """PEM of what every webhook is verified by; None where there is no configuration. Raises ApiError."""
        found = await self._configuration()
        if found is None:
            return None
        bundles = {_bundle(hook) for hook in found.get("webhooks") or ()}
        return bundles.pop() if len(bundles) == 1 else b""

    async def keep(self, authority: bytes) -> None:
        """Put the authority into it; the leader's part. Raises ApiError, Conflict when somebody else was faster."""
        found = await self._configuration()
        if found is None:
            return
        changed = False
        for hook in found.get("webhooks") or ():
            wanted = self._joined(authority, _bundle(hook))
            if wanted != _bundle(hook):
                hook["clientConfig"]["caBundle"] = base64.b64encode(wanted).decode()
                changed = True
        if changed:
            await self._cluster.replace(_API, _PLURAL, "", found)
            log.info("API servers are told the authority of the webhook")

    async def _configuration(self) -> Object | None:
        return await self._cluster.get(_API, _PLURAL, "", self._name)

    def _joined(self, authority: bytes, bundle: bytes) -> bytes:
        """The authority, and what was believed before for as long as somebody may still show it."""
        now, new = self._now(), certificates(authority)
        digests = {_digest(each) for each in new}
        old = {_digest(each): each for each in certificates(bundle) if _digest(each) not in digests}
        self._old = {digest: self._old.get(digest, now) for digest in old}
        kept = [
            each for digest, each in old.items() if now - self._old[digest] < KEEP and now < each.not_valid_after_utc
        ]
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in [*new, *kept])


class Introduced:
    """The Secret with the certificate, as far as API servers would believe it: to be read in the Secret's place."""

    def __init__(
        self, secret: Callable[[], Awaitable[Object | None]], bundle: Callable[[], Awaitable[bytes | None]]
    ) -> None:
        self._secret = secret
        self._bundle = bundle
        self._shown: Object | None = None
        self._mark = b""
        self._seen = b""

    async def read(self) -> Object | None:
        """What may be shown. Raises ApiError, and ValueError while that is nothing."""
        secret = await self._secret()
        data = data_of(secret)
        mark = hashlib.sha256(b"\0".join(data.get(name, b"") for name in ("tls.crt", "ca.crt"))).digest()
        if not data.get("ca.crt") or mark == self._mark:
            return self._shown
        bundle = await self._bundle()
        # Where there is no configuration nobody asks: what is shown then does not matter, only that it is there.
        if bundle is not None and not covers(bundle, data["ca.crt"]):
            if self._shown is None:
                raise ValueError("API servers have not been told of its authority yet")
            return self._shown
        if self._shown is None or self._seen == mark:
            self._shown, self._mark = secret, mark
        self._seen = mark
        return self._shown


def covers(bundle: bytes, authority: bytes) -> bool:
    """Whether all certificates of an authority are believed by a bundle."""
    return {_digest(each) for each in certificates(authority)} <= {_digest(each) for each in certificates(bundle)}


def certificates(pem: bytes) -> Sequence[x509.Certificate]:
    """Those in a PEM text; none where it is broken."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return ()


def _bundle(hook: Object) -> bytes:
    try:
        return base64.b64decode(hook["clientConfig"].get("caBundle") or "", validate=True)
    except binascii.Error:
        return b""


def _digest(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())
