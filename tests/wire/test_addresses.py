"""Where no endpoint is, whatever a name says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire.addresses import forbidden, literal


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.23",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "no address",
    ],
)
def test_no_endpoint_is_there(address):
    assert forbidden(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.1.1", "1.1.1.1", "2606:4700::1", "fd12::1", "127.0.0.1", "::1"]
)
def test_an_endpoint_may_be_there(address):
    assert forbidden(address) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_providers_name_does_not_lead_to_this_machine(address):
    assert forbidden(address, external=True) == "an address of this machine"


def test_the_kubernetes_api_is_nobodys_endpoint():
    here = frozenset({"10.96.0.1"})
    assert forbidden("10.96.0.1", here) == forbidden("::ffff:10.96.0.1", here) == "the Kubernetes API"
    assert forbidden("10.96.0.2", here) is None


@given(st.ip_addresses(v=4))
def test_an_address_is_the_same_in_all_its_forms(address: IPv4Address) -> None:
    said = forbidden(str(address), external=True)
    for prefix in (0xFFFF << 32, int(IPv6Address("64:ff9b::"))):
        assert forbidden(str(IPv6Address(prefix | int(address))), external=True) == said
    assert forbidden(str(IPv6Address(0x2002 << 112 | int(address) << 80)), external=True) == said


@given(st.text(max_size=20))
def test_whatever_is_no_address_is_forbidden(text: str) -> None:
    if literal(text.partition("%")[0]) is None:
        assert forbidden(text) == "no IP address"
