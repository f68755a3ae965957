"""Which replica writes to the cluster: the holder of a Lease, and who that is for all others.

Made as client-go's leader election is: the times that stand in the Lease are for people; a replica trusts its own
clock for how long it has seen the Lease unchanged, so that clocks may differ. The holder says that it leads for 10 s
from the moment at which it *sent* the last renewal that succeeded; others take over 15 s after they *saw* it at the
earliest. So nobody takes over from one that still leads, however slow the API server or the replica is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol, TypeAlias

from .cluster import ApiError, Conflict, Object, micro_time

LEASE: Final = 15.0
"""Seconds for which others leave a Lease alone that they have seen renewed."""
LEADS: Final = 10.0
"""Seconds from a renewal for which its holder leads."""
RENEW: Final = 5.0
"""Seconds from one renewal to the next."""
LOOK: Final = 2.0
"""Seconds from one look at another's Lease to the next: a released one is taken over as fast."""
RETRY: Final = 1.0
"""Seconds until the next try when the API server did not answer."""
PATIENCE: Final = 3.0
"""Seconds for one call: a renewal that hangs leaves time for a second one on a fresh connection."""
ADDRESS: Final = "spillway.dev/address"
"""Annotation: host:port at which the holder's config stream is reached."""

_API: Final = "coordination.k8s.io/v1"
_LONGEST: Final = 60.0
"""Seconds; a Lease that claims to hold longer is taken for one that holds as long."""
_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """What a Lease says."""

    holder: str
    """Empty: it was released."""
    address: str | None
    duration: float
    renewed: str
    transitions: int
    version: str
    """resourceVersion, for the write that replaces it."""


class Observed(NamedTuple):
    """A state of the Lease and when it was seen first, in seconds of the observer's own clock."""

    mark: tuple[str, str, int]
    since: float


class Hold(NamedTuple):
    """It is mine: renew it."""


class Take(NamedTuple):
    """It is nobody's, or its holder is silent for too long: write me into it."""


class Wait(NamedTuple):
    """It is another's."""

    seconds: float
    """Until it may be taken, if it stays as it is."""


Decision: TypeAlias = Hold | Take | Wait


def record_of(lease: Object) -> Record:
    """What the object says; what is missing or makes no sense is taken for the cautious value."""
    meta, spec = lease.get("metadata", {}), lease.get("spec", {})
    claimed = spec.get("leaseDurationSeconds")
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        address=meta.get("annotations", {}).get(ADDRESS),
        duration=min(max(float(claimed), LEASE), _LONGEST) if isinstance(claimed, int) else LEASE,
        renewed=str(spec.get("renewTime") or ""),
        transitions=spec.get("leaseTransitions") or 0,
        version=str(meta.get("resourceVersion", "")),
    )


def observe(observed: Observed | None, lease: Record, now: float) -> Observed:
    """The observation after having seen `lease` at `now`. Others' labels and annotations do not renew it."""
    mark = (lease.holder, lease.renewed, lease.transitions)
    return observed if observed is not None and observed.mark == mark else Observed(mark, now)


def decide(lease: Record | None, me: str, now: float, observed: Observed | None) -> Decision:
    """What to do about the Lease as it is; None: there is none yet."""
    if lease is None or not lease.holder:
        return Take()
    if lease.holder == me:  # also after a restart of the container: the process that led has ended
        return Hold()
    left = lease.duration - (now - observe(observed, lease, now).since)
    return Wait(left) if left > 0 else Take()


def claimed(lease: Object | None, me: str, address: str, name: str, now: datetime) -> Object:
    """The Lease with me as its holder. `lease`: as it stands, None when it is to be created."""
    spec = dict((lease or {}).get("spec", {}))
    was = spec.get("holderIdentity")
    spec |= {"holderIdentity": me, "leaseDurationSeconds": int(LEASE), "renewTime": micro_time(now)}
    if was != me:
        spec["acquireTime"] = micro_time(now)
        spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1 if lease else 0
    return _with(lease, name, spec, {ADDRESS: address})


def released(lease: Object, name: str, now: datetime) -> Object:
    """The Lease with nobody as its holder."""
    spec = lease.get("spec", {}) | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(now)}
    return _with(lease, name, spec, {})


def _with(lease: Object | None, name: str, spec: Object, mine: dict[str, str]) -> Object:
    meta = dict((lease or {}).get("metadata", {})) or {"name": name}
    meta.pop("managedFields", None)
    others = {key: value for key, value in (meta.get("annotations") or {}).items() if key != ADDRESS}
    return {"apiVersion": _API, "kind": "Lease", "metadata": meta | {"annotations": others | mine}, "spec": spec}


class Leases(Protocol):
    """What is needed of a Cluster."""

    async def get(self, api: str, plural: str, namespace: str, name: str) -> Object | None: ...
    async def create(self, api: str, plural: str, namespace: str, body: Object) -> Object: ...
    async def replace(self, api: str, plural: str, namespace: str, body: Object) -> Object: ...


def steady() -> float:
    """Seconds that go on also while the machine sleeps, where the system has such a clock."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class Leadership:
    """One replica's part in the election."""

    def __init__(
        self,
        cluster: Leases,
        namespace: str,
        name: str,
        me: str,
        address: str,
        on_change: Callable[[], None],
        *,
        clock: Callable[[], float] = steady,
        owners: Callable[[], Awaitable[list[Object]]] | None = None,
    ) -> None:
        """`me`: the Pod's name; `address`: its host:port for followers.

        `on_change` is called after `leads` or `leader_address` has changed. `owners` are whose end is the end of a
        Lease that this replica creates, as ownerReferences; may raise ApiError.
        """
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._me = me
        self._address = address
        self._on_change = on_change
        self._clock = clock
        self._owners = owners
        self._lease: Object | None = None
        self._sure = False
        """Whether `_lease` is what stands there, as far as we know."""
        self._failing = False
        self._observed: Observed | None = None
        self._until = float("-inf")
        self._end: asyncio.TimerHandle | None = None
        self._told: tuple[bool, str | None] = (False, None)

    @property
    def leads(self) -> bool:
        """Whether this replica may write now. Ask again before each write: it ends by itself."""
        return self._clock() < self._until

    @property
    def leader_address(self) -> str | None:
        """Where the holder's config stream is, as the Lease says; None while nobody is known to hold it.

        Also None while it is this replica that stands there but no longer leads: it is not to be told by itself.
        """
        if self._lease is None:
            return None
        record = record_of(self._lease)
        holds = bool(record.holder) and (record.holder != self._me or self.leads)
        return record.address if holds else None

    @property
    def leader(self) -> str | None:
        """Name of the holder, as the Lease says."""
        return (record_of(self._lease).holder or None) if self._lease is not None else None

    async def run(self) -> None:
        """Until it is cancelled; then the Lease is given back. Nothing that the API server does ends it."""
        try:
            while True:
                pause = await self._round()
                await asyncio.sleep(pause)
        finally:
            await self._release()

    async def _round(self) -> float:
        """One look at the Lease and what follows from it; seconds until the next."""
        try:
            async with asyncio.timeout(PATIENCE):
                pause = await self._step()
        except Conflict:  # another was faster, or an answer to a write of our own was lost
            self._sure = False
            return random.uniform(0, RETRY / 2)
        except (ApiError, TimeoutError) as error:
            self._sure = False
            _log.log(
                logging.DEBUG if self._failing else logging.WARNING,
                "cannot look after the Lease %s: %s",
                self._name,
                str(error) or f"no answer within {PATIENCE:g} s",
            )
            self._failing = True
            return random.uniform(RETRY / 2, RETRY)
        else:
            if self._failing:
                _log.info("the Lease %s can be looked after again", self._name)
            self._failing = False
            return pause
        finally:
            self._tell()

    async def _step(self) -> float:
        place = (_API, "leases", self._namespace)
        lease = self._lease
        if not (self.leads and self._sure):  # a holder knows the version that it wrote and saves the look
            lease = await self._cluster.get(*place, self._name)
        now = self._clock()
        record = None if lease is None else record_of(lease)
        decision = decide(record, self._me, now, self._observed)
        if record is not None:
            self._observed = observe(self._observed, record, now)
        if isinstance(decision, Wait):
            self._until = float("-inf")  # somebody else's name stands there, whatever we believed
            self._lease = lease
            return min(decision.seconds, random.uniform(LOOK / 2, LOOK))
        body = claimed(lease, self._me, self._address, self._name, datetime.now(UTC))
        if lease is None and self._owners is not None:
            body["metadata"]["ownerReferences"] = await self._owners()
        write = self._cluster.create if lease is None else self._cluster.replace
        self._sure = False
        self._lease = await write(*place, body)
        self._sure = True
        self._until = now + LEADS  # from before it was sent
        self._arm()
        return RENEW

    def _arm(self) -> None:
        """Has the end of leadership told even while a renewal hangs."""
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(max(0.0, self._until - self._clock()) + 0.001, self._expire)

    def _expire(self) -> None:
        self._tell()
        if self.leads:  # the loop's clock runs a little faster than ours
            self._arm()

    def _tell(self) -> None:
        now = (self.leads, self.leader_address)
        if now == self._told:
            return
        if now[0] != self._told[0]:
            _log.info("%s %s", self._me, "leads" if now[0] else "no longer leads")
        self._told = now
        self._on_change()

    async def _release(self) -> None:
        self._until = float("-inf")
        if self._end is not None:
            self._end.cancel()
        self._tell()  # before the Lease is anyone's
        with contextlib.suppress(ApiError, TimeoutError):  # others then wait for its end
            async with asyncio.timeout(PATIENCE):
                # A write may have been under way when we were cancelled, so what we know may not be what stands there.
                lease = await self._cluster.get(_API, "leases", self._namespace, self._name)
                if lease is not None and record_of(lease).holder == self._me:
                    body = released(lease, self._name, datetime.now(UTC))
                    await self._cluster.replace(_API, "leases", self._namespace, body)
