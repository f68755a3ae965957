"""Certificates of the config stream: made when needed, renewed in time, exchanged without anybody noticing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.rig import NAMES, Rig, running, snapshot_of, token_of

from spillway_operator import certificates
from spillway_operator.certificates import (
    AUTHORITY_LEFT,
    AUTHORITY_LIFE,
    RENEWED_AT,
    SERVING_LIFE,
    SETTLE,
    Made,
    ServingTls,
    data_of,
    needed,
    service_names,
    trust_in,
)
from spillway_operator.cluster import ApiError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def secret(made: Made | None) -> dict:
    return {"data": made.data()} if made else {}


def serving(made: Made) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.certificate)


def authorities(made: Made) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(made.authority)


def trusted_by(made: Made, trusts: Made) -> bool:
    """Whether who trusts the authorities of one accepts the certificate of the other."""
    for one in authorities(trusts):
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            serving(made).verify_directly_issued_by(one)
            return True
    return False


@pytest.fixture(scope="module")
def first() -> Made:
    return needed(None, NAMES, NOW)


def test_names_of_a_service():
    assert service_names("s", "ns") == ("s", "s.ns", "s.ns.svc", "s.ns.svc.cluster.local")


def test_the_first_ones(first):
    (authority,) = authorities(first)
    assert authority.not_valid_after_utc - NOW == AUTHORITY_LIFE
    assert serving(first).not_valid_after_utc - NOW == SERVING_LIFE
    assert serving(first).not_valid_before_utc < NOW
    names = serving(first).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == NAMES
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not serving(first).extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for key in (first.key, first.authority_key):
        assert serialization.load_pem_private_key(key, None).curve.name == "secp256r1"
    assert data_of(secret(first)) == dict(zip(("tls.crt", "tls.key", "ca.crt", "ca.key"), first, strict=True))
    assert "PRIVATE" not in f"{first!r} {first}"


@pytest.mark.parametrize("after", [timedelta(0), DAY, SERVING_LIFE * RENEWED_AT - DAY])
def test_what_is_good_stays(first, after):
    assert needed(secret(first), NAMES, NOW + after) is None


def test_a_serving_certificate_is_renewed_at_two_thirds_of_its_life(first):
    later = NOW + SERVING_LIFE * RENEWED_AT
    renewed = needed(secret(first), NAMES, later)
    assert (renewed.authority, renewed.authority_key) == (first.authority, first.authority_key)
    assert renewed.key != first.key
    assert serving(renewed).not_valid_after_utc - later == SERVING_LIFE
    assert trusted_by(renewed, first)


def test_other_names_need_another_certificate(first):
    names = service_names("spillway-operator", "elsewhere")
    renamed = needed(secret(first), names, NOW)
    assert renamed.authority == first.authority
    assert needed(secret(renamed), names, NOW) is None


def test_an_authority_is_replaced_with_an_overlap(first):
    near = NOW + AUTHORITY_LIFE - AUTHORITY_LEFT + DAY
    kept = needed(secret(first), NAMES, near - 2 * DAY)
    announced = needed(secret(kept), NAMES, near)
    old, new = authorities(first)[0], authorities(announced)[0]
    assert authorities(announced) == [new, old]
    assert trusted_by(announced, first)  # not everybody has been told of the new one yet
    assert announced.certificate == kept.certificate
    assert needed(secret(announced), NAMES, near) is None
    moved = needed(secret(announced), NAMES, near + SETTLE)
    assert not trusted_by(moved, first)
    assert trusted_by(moved, announced)
    assert trusted_by(announced, moved)  # a replica that has not loaded the new one yet
    end = NOW + AUTHORITY_LIFE
    renewed = needed(secret(moved), NAMES, end)
    assert authorities(renewed) == [new]
    assert len(renewed.authority_key.split(b"BEGIN")) == 2


def test_an_authority_that_ended_unnoticed_is_replaced_at_once(first):
    renewed = needed(secret(first), NAMES, NOW + AUTHORITY_LIFE + DAY)
    assert trusted_by(renewed, renewed)
    assert len(authorities(renewed)) == 1


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt", "ca.key"])
@pytest.mark.parametrize("value", [None, "", "!", "bm9uc2Vuc2U="])
def test_what_is_broken_is_mended(first, name, value):
    broken = secret(first)
    if value is None:
        del broken["data"][name]
    else:
        broken["data"][name] = value
    mended = needed(broken, NAMES, NOW)
    assert trusted_by(mended, mended)
    assert needed(secret(mended), NAMES, NOW) is None
    if name != "ca.crt":
        assert trusted_by(first, mended)  # whoever serves with what was there before is trusted on


def test_a_key_of_another_certificate_does_not_serve(first):
    another = needed(None, NAMES, NOW)
    mixed = secret(first)
    mixed["data"]["tls.key"] = another.data()["tls.key"]
    mended = needed(mixed, NAMES, NOW)
    assert mended.authority == first.authority
    assert mended.certificate != first.certificate


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 24 * 70), min_size=1, max_size=12), st.integers(0, 3650))
def test_looked_after_at_any_times_nobody_is_ever_cut_off(hours, start):
    """Balancers trust what was published an hour ago at the latest; replicas serve with what was there a minute ago."""
    now = NOW
    made = needed(None, NAMES, now)
    now += start * DAY
    for pause in hours:
        before = made
        made = needed(secret(made), NAMES, now) or made
        assert needed(secret(made), NAMES, now) is None
        assert serving(made).not_valid_before_utc <= now < serving(made).not_valid_after_utc
        assert trusted_by(made, made)
        if any(one.not_valid_after_utc > now for one in authorities(before)):
            assert trusted_by(made, before) or now - authorities(made)[0].not_valid_before_utc >= SETTLE
        now += pause * HOUR


# ---- serving


def test_the_context_takes_nothing_that_does_not_go_together(first):
    tls = ServingTls(lambda: None)
    another = needed(None, NAMES, NOW)
    with pytest.raises(ValueError, match="not there yet"):
        tls.use(None)
    mixed = Made(first.certificate, another.key, first.authority, first.authority_key)
    with pytest.raises(ValueError, match="do not go together") as caught:
        tls.use(secret(mixed))
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(ValueError, match="do not go together"):
        tls.use(secret(first._replace(authority=b" ")))
    assert not tls.ready
    tls.use(secret(first))
    assert tls.ready
    assert tls.authority == first.authority


def test_where_memory_is_no_file_a_key_is_a_file_for_nobody_else(first, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    seen = []
    load = ssl.SSLContext.load_cert_chain

    def look(context, path):
        seen.append((path, os.stat(path).st_mode & 0o777))
        load(context, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look)
    tls = ServingTls(lambda: None)
    tls.use(secret(first))
    assert {mode for _, mode in seen} == {0o600}
    assert not any(os.path.exists(path) for path, _ in seen)


def test_nobody_is_trusted_where_there_is_no_authority():
    for nothing in (b"", b"\n", b"\xff"):
        with pytest.raises(ssl.SSLError):
            trust_in(nothing)


async def test_the_secret_is_followed_and_a_bad_one_leaves_what_is_in_force(first, monkeypatch, caplog):
    monkeypatch.setattr(certificates, "POLL", 0.001)
    monkeypatch.setattr(certificates, "HURRY", 0.001)
    another = needed(None, NAMES, NOW)
    answers = [None, ApiError(0, "Unreachable", "refused"), secret(first), {"data": {"tls.crt": "!"}}, secret(another)]
    reads = 0
    all_read = asyncio.Event()

    async def read():
        nonlocal reads
        reads += 1
        answer = answers[min(reads, len(answers)) - 1]
        if reads > len(answers):
            all_read.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    tls = ServingTls(read)
    async with running(tls.run()):
        await tls.loaded()
        assert tls.authority == first.authority
        await all_read.wait()
    assert tls.authority == another.authority
    assert "PRIVATE" not in caplog.text


async def test_certificates_are_exchanged_without_dropping_a_connection(made):
    one = Rig(made)
    await one.start()
    try:
        one.publish(snapshot_of("chat", a=1))
        balancer = await one.subscribe("pod-1")
        await balancer.take()
        one.made = needed(None, NAMES, datetime.now(UTC))
        one.tls.use(await one._secret())
        one.publish(snapshot_of("chat", a=2))
        await balancer.take()  # on the connection that was there
        newcomer = await one.subscribe("pod-2")  # trusts the new authority alone
        await newcomer.take()
        with pytest.raises(ssl.SSLError):
            await one.dial(token_of("chat", "pod-3"), authority=made.authority)
        assert one.server.connected == 2
    finally:
        await one.stop()
