"""What sidecars send on, as a gateway takes it: whose word that is, and whether to go by it.

Who may ask the gateway at all may ask it as any other client, so what cannot be vouched for just now is served as if
the sidecar had said nothing but that it is one. A token that is known to be nobody's is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from ..core.errors import InvalidForwarded, InvalidPodToken
from ..core.forwarded import Forwarded
from ..wire.forwarded import FORWARDED, GATEWAY, NOBODY, POD, SERVED_BY, parse
from .answer import Told
from .vouching import PATIENCE, Vouching

LAST_WORD: Final[Told] = ((SERVED_BY.encode(), GATEWAY.encode()),)
"""Header of every answer to a request that was forwarded, whether or not its sidecar was believed: the gateway has
done what there was to do, and the sidecar tries nothing else. Without it is only what another replica may do better."""
GIVEN_BACK: Final[Told] = ((SERVED_BY.encode(), NOBODY.encode()),)
"""In its place, where nothing was open to a request that has somewhere to go back to."""


class Accepting:
    """Asks for each request that says it was forwarded."""

    def __init__(self, vouching: Vouching, registry: CollectorRegistry) -> None:
        self._vouching = vouching
        self._requests = Counter(
            "spillway_forwarded_requests", "Requests that sidecars have sent on, by who vouches for their token.",
            ["vouched"], registry=registry,
        )  # fmt: skip

    async def heed(self, headers: Mapping[str, str]) -> Forwarded | None:
        """What a sidecar says of its request; None where nobody stands for it. Raises InvalidPodToken, and
        InvalidForwarded where it is a sidecar that says it badly."""
        scheme, _, token = headers.get(POD, "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token:
            self._requests.labels("none").inc()
            return None
        said: Forwarded | InvalidForwarded
        try:
            said = parse(headers[FORWARDED])
        except InvalidForwarded as error:
            said = error
        # Who has hardly any time left waits no longer than that to be known.
        patience = said.deadline if isinstance(said, Forwarded) else PATIENCE
        state = await self._vouching.state(token.strip(), patience)
        self._requests.labels(state.lower()).inc()
        if state == "Unknown":
            raise InvalidPodToken(f"the token in {POD} is no Pod's, or not for gateways")
        if state != "Known":
            return None
        if isinstance(said, InvalidForwarded):
            raise said
        return said
