"""What active probes say of an endpoint: a verdict that a single answer does not turn over."""

from __future__ import annotations

from typing import NamedTuple

from spillway_api.types import ActiveHealth


class ProbeState(NamedTuple):
    """The verdict, None until the probes have spoken, and how many of the last answers are against it.

    An endpoint that was never probed is *usable*: starting up waits for no probe, and an endpoint that is not
    there fails its first request, which goes elsewhere. The first pass makes it healthy, whatever
    `healthyThreshold` is, since there is nothing to recover from; `unhealthyThreshold` failures in a row make
    it unhealthy.
    """

    healthy: bool | None = None
    streak: int = 0

    @property
    def usable(self) -> bool:
        """Whether requests may be sent there as far as probes are concerned."""
        return self.healthy is not False

    def passed(self, policy: ActiveHealth) -> ProbeState:
        """After a probe that was answered well."""
        if self.healthy is False and self.streak + 1 < policy.healthy_threshold:
            return ProbeState(False, self.streak + 1)
        return HEALTHY

    def failed(self, policy: ActiveHealth) -> ProbeState:
        """After a probe that failed or had no answer in time."""
        if self.healthy is False:
            return UNHEALTHY
        if self.streak + 1 < policy.unhealthy_threshold:
            return ProbeState(self.healthy, self.streak + 1)
        return UNHEALTHY


UNPROBED = ProbeState()
HEALTHY = ProbeState(True)
UNHEALTHY = ProbeState(False)
