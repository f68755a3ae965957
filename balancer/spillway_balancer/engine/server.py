"""The simulated engine as a server: routes, the gate every request passes, listening, and how it starts and
stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType

from aiohttp import web

from . import control, generation, media
from .control import HOOKS, Hooks
from .faults import Fault, Reset, Scope, Stall
from .gate import POLICY, Policy, gate, sign
from .profiles import Profile, profile
from .simulated import ENGINE, SimulatedEngine
from .sockets import ResetOnAccept, SilentOnAccept

log = logging.getLogger("spillway.engine")

_MAX_BODY = 64 << 20

ROUTES = (
    web.post("/v1/chat/completions", generation.chat),
    web.post("/v1/completions", generation.completions),
    web.post("/v1/responses", generation.responses),
    web.get("/v1/models", generation.models),
    web.get("/v1/models/{model:.+}", generation.model),
    web.post("/v1/embeddings", media.embeddings),
    web.post("/v1/rerank", media.rerank),
    web.post("/v1/audio/transcriptions", media.transcriptions),
    web.post("/v1/audio/speech", media.speech),
    web.post("/v1/images/generations", media.images),
    web.get("/health", control.health),
    web.get("/version", control.version),
    web.get("/metrics", control.page),
    web.get("/sim/faults", control.show_faults),
    web.put("/sim/faults", control.set_faults),
    web.delete("/sim/faults", control.clear_faults),
    web.post("/sim/reset", control.reset),
    web.get("/sim/state", control.state),
)


class EngineServer:
    """A simulated engine on a socket. Port 0 takes a free one; `url` says which, after `start`.

    `control_port` opens a second one on which no fault of connections applies. `async with` starts and stops
    it.
    """

    def __init__(
        self,
        *,
        name: str = "engine",
        models: Sequence[str] = ("demo",),
        profile: Profile | str = "laptop-demo",
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int | None = None,
        speed: float = 1.0,
        api_key: str | Sequence[str] | None = None,
        faults: Sequence[Fault] = (),
        log_requests: bool = False,
    ) -> None:
        if not models:
            raise ValueError("an engine serves at least one model")
        if speed <= 0:
            raise ValueError("the speed factor must be above 0")
        self._name = name
        self._models = tuple(models)
        self._profile = _profile(profile)
        self._host = host
        self._port = port
        self._control_port = control_port
        self._speed = speed
        # Several keys, as vLLM takes them, are what a rotation needs: nothing fails while callers change over.
        keys = (api_key,) if isinstance(api_key, str) else api_key or ()
        self._policy = Policy(frozenset(keys), log_requests)
        self._faults = tuple(faults)
        self._listener: asyncio.Server | None = None
        self._control: asyncio.Server | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None  # brings the end of a fault into force
        self._switching = asyncio.Lock()  # one change of the listener at a time
        self._runner: web.AppRunner | None = None
        self.engine: SimulatedEngine

    # ---- life ----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def control_url(self) -> str:
        return f"http://{self._host}:{self._control_port or self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def listening(self) -> bool:
        """Whether it takes connections; False before start, after stop and while it refuses."""
        return self._listener is not None

    async def start(self) -> None:
        """Listen; OSError when the port is taken."""
        self.engine = SimulatedEngine(self._name, self._models, self._profile, self._speed, self._faults)
        app = web.Application(middlewares=[gate], client_max_size=_MAX_BODY)
        app[ENGINE] = self.engine
        app[HOOKS] = Hooks(self._changed)
        app[POLICY] = self._policy
        app.on_response_prepare.append(sign)
        app.add_routes(ROUTES)
        # A client that leaves cancels its handler, and with it the sequence: aiohttp does not do so by
        # default.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            if self._control_port is not None:
                self._control = await self._open(self._control_port, self._server)
                self._control_port = _port_of(self._control)
            await self._changed()
        except OSError:
            await self.stop()
            raise

    async def stop(self, drain: float = 0.0) -> None:
        """Stop listening, give what is under way `drain` seconds to end, then close everything. Idempotent."""
        for server in (self._listener, self._control):
            if server is not None:
                server.close()
        self._listener = self._control = None
        if self._expiry is not None:
            self._expiry.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._runner is None:
            return
        if drain > 0 and self._runner.server is not None:
            self._runner.server.pre_shutdown()  # idle connections close now, the others after their answer
            try:
                await asyncio.wait_for(self.engine.empty.wait(), drain)
            except TimeoutError:
                log.warning("%s: drain over, %d requests cut off", self._name, self.engine.in_flight)
        await self._runner.cleanup()
        self.engine.pacer.close()
        self._runner = None

    async def __aenter__(self) -> EngineServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # ---- listening -----------------------------------------------------------------------------------------

    async def set_faults(self, faults: Sequence[Fault]) -> None:
        """Arm these faults and no others, as PUT /sim/faults does. In force on return."""
        self.engine.switches.set(faults, self.engine.loop.time())
        await self._changed()

    async def _changed(self) -> None:
        """Bring what stands beside single requests, the speed and the listener, in line with the faults."""
        loop = self.engine.loop
        self.engine.apply_speed()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        expiry = self.engine.switches.next_expiry(loop.time())
        if expiry is not None:
            self._expiry = loop.call_at(expiry, self._expired)
        async with self._switching:
            if self.engine.refusing:
                if self._listener is not None:
                    self._listener.close()
                    self._listener = None
            elif self._listener is None:
                self._listener = await self._open(self._port, self._accept)
                self._port = _port_of(self._listener)

    def _expired(self) -> None:
        self._task = self.engine.loop.create_task(self._changed())

    async def _open(self, port: int, factory: Callable[[], asyncio.Protocol]) -> asyncio.Server:
        return await self.engine.loop.create_server(factory, self._host, port, reuse_address=True, backlog=1024)

    def _server(self) -> asyncio.Protocol:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        return server()

    def _accept(self) -> asyncio.Protocol:
        fault = self.engine.switches.strike(Scope.CONNECTION, "", self.engine.loop.time())
        if isinstance(fault, Reset):
            return ResetOnAccept()
        if isinstance(fault, Stall):
            return SilentOnAccept(fault.seconds, self._server)
        return self._server()


def _profile(given: Profile | str) -> Profile:
    return given if isinstance(given, Profile) else profile(given)


def _port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
