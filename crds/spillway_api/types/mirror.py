"""Copies of requests: what a new model or engine would make of real traffic, with nobody waiting for its answers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from spillway_api.markup import INT32, doc
from spillway_api.types.poolname import PoolName


class MirrorPool(PoolName, frozen=True, rename="camel"):
    """The pool that gets the copies."""


class Mirror(Struct, frozen=True, rename="camel"):
    """A share of the requests, sent a second time."""

    pool: Annotated[MirrorPool, doc("The pool that gets the copies.")]
    percent: Annotated[
        int,
        doc("How many of a hundred requests are copied: whole sessions, always the same ones first.", ge=0, le=100),
        INT32,
    ]
