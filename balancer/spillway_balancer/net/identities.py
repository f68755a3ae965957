"""The gateway's identities at clouds: exchanged for credentials that end, kept, and renewed before they do.

What is sent and read says `wire/identity`, when says `core/renewal.py`; here are the sockets and files. One task keeps
each identity that some account asks for. An account whose identity brings nothing gets no requests, and the log says
why; nothing of what was exchanged is ever told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from spillway_api.snapshot import Endpoint

from ..core.endpoint import EndpointState
from ..core.grants import Grant
from ..core.renewal import Renewal
from ..core.runtime import Runtime
from ..wire.identity import MAX_REPLY_BYTES, Ask, Denied, File, Reply, Step, cloud_of, exchange, may_see
from .credentials import Credentials, Wanted, wanted

log = logging.getLogger("spillway.identities")

TIMEOUT: Final = 10.0
"""Seconds for one step of an exchange, connecting included."""

HOSTS: Final = "SPILLWAY_IDENTITY_HOSTS"
"""Environment: hosts beside the clouds' own that may be shown what identities bring; separated by commas."""

NAMESPACES: Final = "SPILLWAY_IDENTITY_NAMESPACES"
"""Environment: whose ModelPools may use the gateway's identity; without it all that the gateway serves."""

PROXY: Final = "SPILLWAY_IDENTITY_PROXY"
"""Environment: an HTTP proxy that makes tunnels to clouds, http://HOST:PORT; what is near goes past it."""


class Kept:
    """One identity that accounts ask for."""

    def __init__(self, want: Wanted, now: float) -> None:
        self.want = want
        self.cloud = cloud_of(want.identity)
        self.renewal = Renewal(now)
        self.since = -1.0
        """When what is held came; seconds of the monotonic clock, by which attempts are timed."""
        self.why = ""
        """Why there is nothing newer; empty while all is well."""
        self.tried = False
        self.endpoints: list[EndpointState] = []
        self.woken = asyncio.Event()


class Identities:
    """Keeps the grants of `Credentials` for as long as accounts of the runtime ask for them."""

    def __init__(
        self,
        credentials: Credentials,
        dice: random.Random,
        counted: Callable[[str, str], None],
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time,
    ) -> None:
        """`counted` is told the cloud and how an exchange ended. `clock`: seconds of Unix time."""
        self._credentials = credentials
        self._dice = dice
        self._counted = counted
        self._environ = environ
        self._clock = clock
        self._hosts = _listed(environ.get(HOSTS, ""))
        self._namespaces = _listed(environ.get(NAMESPACES, ""))
        self._kept: dict[Wanted, Kept] = {}
        self._tasks: dict[Wanted, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        credentials.identity_refused = self.refused

    @property
    def settled(self) -> bool:
        """Whether every identity has been tried: until then an account without a grant is not known to have none."""
        return all(kept.tried for kept in self._kept.values())

    def follow(self, runtime: Runtime) -> None:
        """Begin to keep what the runtime's accounts ask for, and let go of the rest."""
        asked: dict[Wanted, list[EndpointState]] = {}
        for pool in runtime.pools.values():
            for endpoint in pool.endpoints.values() if pool.spec.provider is not None else ():
                want = wanted(endpoint.spec)
                if want is not None:
                    asked.setdefault(want, []).append(endpoint)
        for want in self._kept.keys() - asked.keys():
            self._tasks.pop(want).cancel()
            del self._kept[want]
            self._credentials.grants.pop(want, None)
        for want, endpoints in asked.items():
            kept = self._kept.get(want)
            if kept is None:
                kept = self._kept[want] = Kept(want, self._clock())
                self._tasks[want] = asyncio.get_running_loop().create_task(self._keep(kept))
            if kept.endpoints != endpoints:
                kept.endpoints = endpoints
                if kept.tried:
                    self._tell(kept, fresh=False)

    def refused(self, spec: Endpoint, begun: float) -> bool:
        """An account did not take what an attempt that `begun` then has shown; False where something else has come
        since, which it may take."""
        want = wanted(spec)
        kept = None if want is None else self._kept.get(want)
        if kept is None:
            return True
        if begun < kept.since:
            return False
        kept.renewal = kept.renewal.refused(self._clock())
        kept.woken.set()
        return True

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _keep(self, kept: Kept) -> None:
        while True:
            try:
                await self.tend(kept)
            except Exception as error:  # whatever a stranger answers, the next try comes
                self._failed(kept, f"the exchange broke ({type(error).__name__})")
            kept.woken.clear()
            try:
                async with asyncio.timeout(max(kept.renewal.next() - self._clock(), 0.0)):
                    await kept.woken.wait()
            except TimeoutError:
                pass

    async def tend(self, kept: Kept) -> None:
        """Do what is due: let go of what has ended, and fetch what comes next."""
        if not kept.renewal.holds(self._clock()) and self._credentials.grants.pop(kept.want, None) is not None:
            self._tell(kept)
        if self._clock() < kept.renewal.due:
            return
        try:
            grant = await self._fetch(kept.want)
        except Denied as denied:
            self._failed(kept, str(denied))
            return
        now = self._clock()
        expires = grant.expires if grant.expires is not None else now
        kept.renewal = kept.renewal.obtained(expires, now, self._dice)
        if kept.renewal.failures:
            self._failed(kept, "what came had ended already: is the clock right?", counted=False)
            return
        if kept.why or not kept.tried:
            log.info("the %s identity of %s is there, and lasts %d s", kept.cloud, _names(kept), expires - now)
        kept.tried, kept.why, kept.since = True, "", monotonic()
        self._counted(kept.cloud, "ok")
        self._credentials.grants[kept.want] = grant
        self._tell(kept)

    def _failed(self, kept: Kept, why: str, counted: bool = True) -> None:
        """`counted`: the schedule has yet to be told."""
        now = self._clock()
        if counted:
            kept.renewal = kept.renewal.failed(now, self._dice)
        self._counted(kept.cloud, "failed")
        if why != kept.why:
            rest = (
                f"the present one lasts {kept.renewal.expires - now:.0f} s more"
                if kept.renewal.expires is not None
                else "they get no requests"
            )
            log.warning("no %s identity for %s, %s: %s", kept.cloud, _names(kept), rest, why)
        kept.tried, kept.why = True, why
        if kept.renewal.expires is None:
            self._credentials.grants.pop(kept.want, None)
            self._tell(kept)

    def _tell(self, kept: Kept, fresh: bool = True) -> None:
        """To its accounts, that there is something new to show, or nothing any more; else what there is."""
        holds = kept.want in self._credentials.grants
        for endpoint in kept.endpoints:
            endpoint.keyed, endpoint.unkeyed = holds, "" if holds else kept.why
            endpoint.refused = endpoint.refused and not fresh

    async def _fetch(self, want: Wanted) -> Grant:
        """One exchange, from its files to the grant. Raises Denied."""
        cloud = cloud_of(want.identity)
        if self._namespaces and want.identity.namespace not in self._namespaces:
            raise Denied(f"this gateway lends its identity to no pool of the namespace {want.identity.namespace}")
        if not may_see(cloud, want.url, self._hosts, want.identity.own_tls):
            raise Denied(f"the account's URL is none of the cloud's own by its own certificate, and not in {HOSTS}")
        steps = exchange(want.identity, want.region, self._environ, self._clock())
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._done(step))
        except StopIteration as done:
            grant: Grant = done.value
            return grant

    async def _done(self, step: Step) -> Reply:
        if isinstance(step, File):
            return await asyncio.to_thread(_read, step.path)
        return await self._answer(step)

    async def _answer(self, ask: Ask) -> Reply:
        if self._session is None:
            # Reading the system's certificates takes 20 ms, which the loop has not.
            tls = await asyncio.to_thread(ssl.create_default_context)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(TIMEOUT),
                trust_env=False,
                headers={"accept-encoding": "identity", "user-agent": "spillway"},
            )
        host = urlsplit(ask.url).hostname
        proxy = self._environ.get(PROXY) if ask.url.startswith("https:") else None
        try:
            async with self._session.request(
                ask.method,
                ask.url,
                data=ask.body or None,
                headers=dict(ask.headers),
                allow_redirects=False,
                proxy=proxy or None,
            ) as answer:
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise Denied(f"{host} answers with more than {MAX_REPLY_BYTES} bytes")
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Reply(bytes(body), answer.status, headers)
        except TimeoutError:
            raise Denied(f"{host} does not answer in {TIMEOUT:.0f} s") from None
        except (aiohttp.ClientSSLError, ssl.SSLError):
            raise Denied(f"{host} has no certificate that is trusted") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Denied(f"{host} cannot be reached ({type(error).__name__})") from None


def _read(path: str) -> Reply:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_REPLY_BYTES + 1)
    except (OSError, ValueError) as error:
        raise Denied(f"the file {path} cannot be read ({type(error).__name__})") from None
    if len(data) > MAX_REPLY_BYTES:
        raise Denied(f"the file {path} has more than {MAX_REPLY_BYTES} bytes")
    return Reply(data)


def _names(kept: Kept) -> str:
    return ", ".join(f"{each.pool}/{each.name}" for each in kept.endpoints) or "nobody"


def _listed(text: str) -> frozenset[str]:
    return frozenset(filter(None, (each.strip() for each in text.split(","))))
