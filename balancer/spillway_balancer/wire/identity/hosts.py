"""To whom what an identity has brought may be shown.

The identity is the gateway's; the URL of an account is written by whoever may write a ModelPool. A Secret belongs to
that person anyway. A token of the gateway's does not, and must not go where they please.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

DOMAINS: Final = {
    "aws": (".amazonaws.com", ".amazonaws.com.cn", ".api.aws"),
    "gcp": (".googleapis.com",),
    "azure": tuple(
        f".{service}.azure.{end}"
        for service in ("openai", "cognitiveservices", "services.ai")
        for end in ("com", "us", "cn")
    ),
}
"""Where each cloud serves models: nobody else answers below these names."""


def may_see(cloud: str, url: str, more: Collection[str] = (), own_tls: bool = False) -> bool:
    """`more`: hosts that whoever runs the gateway trusts as well, such as a gateway of their own before the cloud.
    `own_tls`: whoever wrote the URL also says whom TLS believes, so that a name alone proves nothing."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    return host in more or (parts.scheme == "https" and not own_tls and host.endswith(DOMAINS[cloud]))
