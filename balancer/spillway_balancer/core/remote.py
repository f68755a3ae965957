"""The gateway, as a sidecar sees it: a pool that has everything, for what it has is decided there."""

from __future__ import annotations

from spillway_api import snapshot
from spillway_api.providers import Api
from spillway_api.types import Model

from .apis import Apis
from .pool import Pool


class _Any(Apis):
    """Requests go there as they came, on whatever path."""

    def serves(self, path: str) -> bool:
        return True

    def into(self, path: str, upstream_model: str) -> Api | None:
        return None


class RemotePool(Pool):
    """Of one endpoint, behind which a gateway plans for itself: models, guards, prices and budgets are its own affair.

    It is the same for every request, so nothing that is asked of a pool's models keeps a request from it, and none of
    them is listed anywhere.
    """

    remote = True

    def __init__(self, spec: snapshot.Pool, previous: Pool | None = None) -> None:
        super().__init__(spec, previous)
        self.models = {}
        self.apis = _Any(spec)
        self.declares = False

    def upstream_model(self, requested: str, target_model: str | None) -> str | None:
        """As the client calls it."""
        return requested

    def model(self, requested: str, target_model: str | None) -> Model | None:
        """Nothing is known of it."""
        return None


def pool_of(spec: snapshot.Pool, previous: Pool | None) -> Pool:
    """A pool of the kind that its spec says."""
    return RemotePool(spec, previous) if spec.remote else Pool(spec, previous)
