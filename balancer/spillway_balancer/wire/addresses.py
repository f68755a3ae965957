"""Which IP addresses no endpoint has, whoever says so: a name may be made to lead anywhere, also in mid-flight.

A pool's URL is written by who may write ModelPools, and what a name leads to by whoever answers for it: without a look
at the address itself the gateway could be made to hand a provider's key to a metadata service, or ask it for its own.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",  # AWS over IPv6; 169.254.169.254 is link-local, as most are
            "fd20:ce::254",  # Google Cloud over IPv6
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure's WireServer
            "192.0.0.192",  # Oracle Cloud
        ),
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, with or without a zone; None where it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def forbidden(address: str, here: frozenset[str] = frozenset(), external: bool = False) -> str | None:
    """Why no connection is made to an address, or None.

    `here`: addresses that are nobody's endpoint in this place, as that of the Kubernetes API. `external`: a provider's
    name led here, which has nothing to look for on this machine.
    """
    found = literal(address.partition("%")[0])
    if found is None:
        return "no IP address"
    found = _plain(found)
    if found in _METADATA or found.is_link_local:
        return "a link-local address or a metadata service"
    if found.is_unspecified or found.is_multicast or found == IPv4Address("255.255.255.255"):
        return "no address of one machine"
    if str(found) in here:
        return "the Kubernetes API"
    if external and found.is_loopback:
        return "an address of this machine"
    return None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that one of IPv6 stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
