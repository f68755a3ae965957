"""Who a balancer is to a cloud: what is sent, and what comes back, until an account has something to show.

No I/O is here: an exchange says what it wants read and sent. `steps` is what exchanges are made of; there is one file
for each cloud.
"""

from __future__ import annotations

from collections.abc import Mapping

from spillway_api.snapshot import Identity

from . import aws, azure, gcp
from .hosts import may_see
from .steps import MAX_REPLY_BYTES, Ask, Denied, Exchange, File, Reply, Step

__all__ = ["MAX_REPLY_BYTES", "Ask", "Denied", "Exchange", "File", "Reply", "Step", "cloud_of", "exchange", "may_see"]


def cloud_of(identity: Identity) -> str:
    """aws, gcp or azure."""
    return "aws" if identity.aws is not None else "gcp" if identity.gcp is not None else "azure"


def exchange(identity: Identity, region: str | None, environ: Mapping[str, str], now: float) -> Exchange:
    """What leads to a grant; `now` is Unix time in seconds. Raises Denied, at once or on the way."""
    if identity.aws is not None:
        return aws.exchange(identity.aws, region, environ, now)
    if identity.gcp is not None:
        return gcp.exchange(identity.gcp, environ, now)
    if identity.azure is not None:
        return azure.exchange(identity.azure, environ, now)
    raise Denied("the identity is of a cloud that this balancer does not know")
