"""TLS of the config stream: an authority and a certificate that the operator makes itself, and how both are renewed.

What is made is decided by pure functions of the Secret, the names and the time; `ServingTls` is what the server
listens with. A balancer trusts the published authority. An authority near its end is therefore replaced in two
steps: `ca.crt` holds the old one and the new one from the moment the new one exists, and only what expired leaves it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .cluster import ApiError, Object

AUTHORITY_LIFE: Final = timedelta(days=3650)
SERVING_LIFE: Final = timedelta(days=90)
RENEWED_AT: Final = 2 / 3
"""Part of its life after which a serving certificate is replaced."""
AUTHORITY_LEFT: Final = timedelta(days=365)
"""An authority that has less to live is replaced; much more than a serving certificate lives, so that every balancer
has long been given the new one when the old one ends."""
EARLY: Final = timedelta(hours=1)
"""A certificate holds from this much before it was made: clocks differ."""
SETTLE: Final = timedelta(hours=1)
"""For this long a new authority signs nothing while the old one can: a ConfigMap takes a minute or two to get into
every Pod that mounts it."""
POLL: Final = 30.0
"""Seconds between looks at the Secret."""
HURRY: Final = 1.0
"""Seconds between looks as long as there is nothing to serve with."""

_log = logging.getLogger(__name__)


class Made(NamedTuple):
    """All four values of the Secret, PEM."""

    certificate: bytes
    key: bytes
    authority: bytes
    """Every authority that is to be trusted, the one in use first."""
    authority_key: bytes
    """Of the newest authority, and after it those of older ones that still sign."""

    def data(self) -> dict[str, str]:
        """`data` of the Secret."""
        values = {"tls.crt": self.certificate, "tls.key": self.key, "ca.crt": self.authority}
        return {
            name: base64.b64encode(value).decode() for name, value in (values | {"ca.key": self.authority_key}).items()
        }

    def __repr__(self) -> str:
        return "Made(...)"  # keys are in it


class _Authority(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """The names by which a Service is called."""
    return tuple(service + end for end in ("", *(f".{namespace}{end}" for end in ("", ".svc", ".svc.cluster.local"))))


def needed(secret: Object | None, names: Sequence[str], now: datetime) -> Made | None:
    """What the Secret must hold instead of what it holds; None when it is good as it is."""
    data = data_of(secret)
    trusted, signers = _authorities(data, now)
    if not signers or signers[0].certificate.not_valid_after_utc - now < AUTHORITY_LEFT:
        signers = [_new_authority(now), *signers]
        trusted = [signers[0].certificate, *trusted]
    # The newest that everybody knows by now; the newest of all when there is no older one.
    known = [one for one in signers if now - one.certificate.not_valid_before_utc >= SETTLE + EARLY]
    signer = (known or signers)[0]
    certificate, key = data.get("tls.crt"), data.get("tls.key")
    if not _serves(certificate, key, names, signer, now):
        certificate, key = _new_serving(signer, names, now)
    assert certificate is not None
    assert key is not None
    made = Made(certificate, key, b"".join(map(_pem, trusted)), b"".join(_key_pem(one.key) for one in signers))
    return None if data == dict(zip(("tls.crt", "tls.key", "ca.crt", "ca.key"), made, strict=True)) else made


def data_of(secret: Object | None) -> dict[str, bytes]:
    """The values of a Secret that concern TLS, decoded; those that cannot be decoded are left out."""
    found = {}
    for name, value in ((secret or {}).get("data") or {}).items():
        if name in ("tls.crt", "tls.key", "ca.crt", "ca.key"):
            with contextlib.suppress(binascii.Error, ValueError):
                found[name] = base64.b64decode(value, validate=True)
    return found


def _authorities(data: Mapping[str, bytes], now: datetime) -> tuple[list[x509.Certificate], list[_Authority]]:
    """The authorities of the Secret that have not expired, and those of them whose keys are there, newest first."""
    trusted: list[x509.Certificate] = []
    keys: list[ec.EllipticCurvePrivateKey] = []
    with contextlib.suppress(ValueError):  # without keys, an authority is trusted still
        trusted = x509.load_pem_x509_certificates(data.get("ca.crt", b""))
        keys = [_load_key(block) for block in _blocks(data.get("ca.key", b""))]
    trusted = [one for one in trusted if one.not_valid_before_utc <= now < one.not_valid_after_utc]
    trusted.sort(key=lambda one: one.not_valid_before_utc, reverse=True)
    by_public = {_public(key.public_key()): key for key in keys}
    signers = []
    for one in trusted:
        public = one.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey) and (key := by_public.get(_public(public))) is not None:
            signers.append(_Authority(one, key))
    return trusted, signers


def _serves(certificate: bytes | None, key: bytes | None, names: Sequence[str], by: _Authority, now: datetime) -> bool:
    if certificate is None or key is None:
        return False
    try:
        one = x509.load_pem_x509_certificate(certificate)
        mine = _load_key(key)
        one.verify_directly_issued_by(by.certificate)
        given = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    begin, end = one.not_valid_before_utc, one.not_valid_after_utc
    public = one.public_key()
    return (
        begin <= now < begin + (end - begin) * RENEWED_AT
        and set(given.get_values_for_type(x509.DNSName)) == set(names)
        and isinstance(public, ec.EllipticCurvePublicKey)
        and _public(public) == _public(mine.public_key())
    )


def _new_authority(now: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial in the name: two authorities with one name would be taken for one another in a chain.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"spillway-operator {serial % 16**8:08x}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _new_serving(by: _Authority, names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    life = min(SERVING_LIFE, by.certificate.not_valid_after_utc - now)
    identifier = by.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(name, by.certificate.subject, key, now, life)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(by.key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + life)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key that was made here")
    return key


def _blocks(pem: bytes) -> list[bytes]:
    end = b"-----END PRIVATE KEY-----\n"
    return [block + end for block in pem.split(end) if block.strip()]


def _public(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class ServingTls:
    """What the server listens with, and what followers trust. Both follow the Secret."""

    def __init__(self, read: Callable[[], Awaitable[Object | None]], poll: float | None = None) -> None:
        """`read` fetches the Secret."""
        self._read = read
        self._poll = poll
        self._digest = b""
        self._loaded = asyncio.Event()
        self.authority = b""
        """PEM, to be published for balancers; empty before the Secret is there."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """For the server. New handshakes get the newest certificate, connections that stand keep theirs."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def ready(self) -> bool:
        """Whether there is a certificate to serve with."""
        return self._loaded.is_set()

    async def loaded(self) -> None:
        """Waits until there is a certificate."""
        await self._loaded.wait()

    async def run(self) -> None:
        """Follows the Secret until it is cancelled; one that is missing or broken leaves what is in force."""
        failing = ""
        while True:
            try:
                self.use(await self._read())
                told = ""
            except (ApiError, ValueError) as error:
                told = str(error)
            if told and told != failing:
                _log.warning("cannot follow the serving certificate: %s", told)
            failing = told
            await asyncio.sleep((self._poll or POLL) if self.ready else HURRY)

    def use(self, secret: Object | None) -> None:
        """Serves with what the Secret holds. Raises ValueError, which names no value, when that cannot be."""
        data = data_of(secret)
        if secret is None or not {"tls.crt", "tls.key", "ca.crt"} <= data.keys():
            raise ValueError("the Secret with tls.crt, tls.key and ca.crt is not there yet")
        digest = hashlib.sha256(b"\0".join(data[name] for name in ("tls.crt", "tls.key", "ca.crt"))).digest()
        if digest == self._digest:
            return
        try:
            trust_in(data["ca.crt"])
            # A context that cannot be made must not be half of the one in use: try it on another first.
            _load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), data["tls.crt"], data["tls.key"])
            _load_chain(self.context, data["tls.crt"], data["tls.key"])
        except ssl.SSLError as error:
            why = getattr(error, "reason", None) or error  # only OpenSSL's own have one
            raise ValueError(f"the Secret's certificate, key and authority do not go together: {why}") from None
        self._digest, self.authority = digest, data["ca.crt"]
        self._loaded.set()
        _log.info("serving with a new certificate")


def trust_in(authority: bytes) -> ssl.SSLContext:
    """A client's context that trusts these certificates alone. Raises ssl.SSLError when they are none."""
    try:
        text = authority.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if not text.strip():  # Python would take the system's authorities instead
        raise ssl.SSLError("no certificates in PEM")
    return ssl.create_default_context(cadata=text)


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL by Python takes files only: memory where the system has it, else a folder that nobody else may enter."""
    pem = certificate.rstrip() + b"\n" + key
    if hasattr(os, "memfd_create"):
        held = os.memfd_create("serving", os.MFD_CLOEXEC)
        try:
            with open(held, "wb", closefd=False) as file:
                file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{held}")
        finally:
            os.close(held)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "serving.pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
