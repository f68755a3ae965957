"""The webhook that gives Pods their sidecars: an API server asks about each that wants one, and is always answered.

Pods must not wait for it, nor fail by it. What cannot be told in time lets the Pod in as it is, with a warning that
kubectl prints; `showing` finds such Pods later. Nobody proves to be an API server, and nobody needs to: all that a
question can bring about is a ConfigMap with a certificate that is no secret.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from aiohttp import web

from . import admission
from .cluster import ApiError, Object
from .injection import CA_CONFIG_MAP, LABEL, Sidecar, asked, inject

PATH: Final = "/v1/inject"
DEADLINE: Final = 1.5
"""Seconds in which a question is answered; an API server waits two."""
MAX_BYTES: Final = 4 << 20
"""Of a question. An API server takes 3 MiB in a request, and etcd half of that."""
AT_ONCE: Final = 32
"""Questions that are read at a time, so that nobody fills the memory with them; others wait for their turn."""
LINGER: Final = 5.0
"""Seconds for which it answers after its end has come: kube-proxies hear of that a moment later."""
IDLE: Final = 120.0
"""Seconds after which a connection without questions ends. API servers end one after 90, and so do it first: a question
that meets the end of its connection is not asked again."""
HANDSHAKE: Final = 5.0
CLOSE: Final = 1.0

Result = Literal["injected", "refused", "unchanged", "failed"]

log = logging.getLogger("spillway.webhook")


class _Decision(NamedTuple):
    result: Result
    patch: tuple[Object, ...] = ()
    warning: str = ""


class Webhook:
    """Answers AdmissionReviews of Pods at `PATH`."""

    def __init__(
        self, sidecar: Sidecar, ensure: Callable[[str], Awaitable[None]], count: Callable[[Result], None]
    ) -> None:
        """`ensure(namespace)` returns when what sidecars mount is there; it may raise ApiError."""
        self._sidecar = sidecar
        self._ensure = ensure
        self._count = count
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._ending = False
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def listening(self) -> bool:
        return self._server is not None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listens. Raises OSError when it cannot."""
        app = web.Application(client_max_size=MAX_BYTES)
        app.router.add_post(PATH, self._inject)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE, shutdown_timeout=CLOSE)
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server,
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE,
            ssl_shutdown_timeout=CLOSE,
            backlog=1024,
        )

    async def stop(self, linger: float = LINGER) -> None:
        """Goes on answering for a while, the last time on each connection, and ends."""
        if self._server is None or self._runner is None:
            return
        self._ending = True
        await asyncio.sleep(linger)
        self._server.close()
        await self._runner.cleanup()

    async def _inject(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(DEADLINE) as deadline, self._slots:
                question = admission.read(await request.read())
                decision = self._decide(question)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the question took too long") from None
        except admission.NoReview:
            raise web.HTTPBadRequest(text=f"this is no AdmissionReview of {admission.VERSION}") from None
        if decision.patch and not question.dry_run:
            decision = await self._provided(question.namespace, decision, deadline.when())
        self._count(decision.result)
        answer = web.Response(
            body=admission.allowed(question.uid, decision.patch, decision.warning), content_type="application/json"
        )
        if self._ending:
            answer.force_close()
        return answer

    def _decide(self, question: admission.Question) -> _Decision:
        # It is asked about Pods that say so, and about those that say nothing in namespaces that do: where the Pod says
        # nothing, the API server has looked at its namespace.
        pod, namespace = question.pod, question.namespace
        try:
            if pod is None or not namespace or not asked(pod, {LABEL: "true"}):
                return _Decision("unchanged")
            found = inject(pod, namespace, self._sidecar)
        except Exception as error:  # whatever is wrong with this Pod is the API server's to say
            log.error("a Pod of namespace %.63s could not be understood: %s", namespace, type(error).__name__)
            return _Decision("failed", warning=_warning("it could not be understood"))
        if found.refused:
            return _Decision("refused", warning=_warning(found.refused))
        return _Decision("injected", found.patch, found.unheeded) if found.patch else _Decision("unchanged")

    async def _provided(self, namespace: str, decision: _Decision, until: float | None) -> _Decision:
        """The decision when what the sidecar mounts is there; another where that cannot be made until then."""
        try:
            async with asyncio.timeout_at(until):
                await self._ensure(namespace)
        except (ApiError, TimeoutError) as error:
            log.warning("a Pod of namespace %.63s gets no sidecar: %s", namespace, error or "no answer in time")
            why = "what it would mount could not be made in time"
            if isinstance(error, ApiError) and 400 <= error.status < 500:  # a quota, a policy, somebody else's
                why = f"ConfigMap {CA_CONFIG_MAP}: {error.message}"
            return _Decision("failed", warning=_warning(why))
        return decision


def _warning(why: str) -> str:
    return f"{LABEL}: this Pod gets no sidecar: {why}"
