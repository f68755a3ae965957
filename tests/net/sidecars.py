"""A sidecar in front of a gateway, both in this process: what the operator would give it, it is given by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.net.conftest import Balancing

from spillway_api.sidecars import Asked, view
from spillway_balancer.app import Balancer, Settings
from spillway_balancer.net.operator_source import Where
from spillway_balancer.net.sidecar import Sidecar

NOWHERE = "https://127.0.0.1:9"
"""No operator is in reach."""

ALL = Asked()
"""Any sidecar may have any open route."""

TOKEN = "token-of-quokka"


class Beside(Balancing):
    """A sidecar. It knows nothing at first, and then what of a gateway's snapshot it `learns`."""

    async def start(
        self, gateway_url: Any = "", token_file: Path | None = None, address: str | None = None, **settings: Any
    ) -> None:
        where = Where(NOWHERE, "default", sidecar=Sidecar(gateway_url, token_file, (), address))
        self.balancer = Balancer(Settings(operator=where, port=0, seed=1, **settings))
        self.balancer.serving.follow(self._note)
        await self.balancer.start()

    def learns(self, gateway: Balancing, asked: Asked = ALL) -> None:
        self.balancer._take(view(gateway.balancer.serving.current.spec, asked))


async def beside(serve: Any, folder: Path, gateway: Any, knows: bool = True, **settings: Any) -> Beside:
    """One in front of `gateway`, which is a balancer or whatever stands in its place. `serve` looks after it."""
    one = Beside(folder)
    await one.start(gateway.url, **settings)
    serve.running.append(one)
    if knows:
        one.learns(gateway)
    return one
