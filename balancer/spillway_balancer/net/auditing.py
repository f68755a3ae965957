"""The audit log: one line of JSON for a request that a guard held for. What was decided and where the request went, in
names that policies declare; no prompt, no header, no secret, nothing that a client wrote.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..core.attempts import Try
from ..core.guards import Held
from ..core.planning import Plan

if TYPE_CHECKING:
    from .telemetry import Decision, Telemetry

log: Final = logging.getLogger("spillway.audit")
log.setLevel(logging.INFO)  # whatever --log-level leaves out elsewhere


def guarded(made: Plan, held: Held, telemetry: Telemetry) -> Audit | None:
    """Count the guards that hold. The line to write in the end, where one of them wants it."""
    unknown = dict(held.unknown)
    for guard in held.guards:
        telemetry.guard_held(made.route.name, guard.name, unknown.get(guard.name, "held"))
    return Audit(made) if held.audited else None


class Audit:
    """The line of one request, written when it has ended."""

    __slots__ = ("_made", "_sent", "_time")

    def __init__(self, made: Plan) -> None:
        self._made = made
        self._time = datetime.now(UTC)
        self._sent: list[dict[str, str]] = []

    def sent(self, step: Try) -> None:
        """The request goes to an endpoint now: whatever becomes of it, it has been there."""
        self._sent.append({"tier": step.tier, "pool": step.pool.name, "endpoint": step.endpoint.name})

    def write(self, decision: Decision) -> None:
        made = self._made
        line: dict[str, Any] = {
            "time": self._time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "route": made.route.name,
            "model": made.model,
            "rule": made.rule,
        }
        if made.held is not None:
            line["guards"] = [guard.name for guard in made.held.guards]
            if made.held.unknown:
                line["unknown"] = dict(made.held.unknown)
            line["leftOut"] = [{"tier": each.tier, "pool": each.pool} for each in made.cut]
            if made.mirror is not None:
                line["mirroredTo"] = made.mirror.pool.name
        line |= {"sentTo": self._sent, "status": decision.code, "result": decision.error or decision.status or "error"}
        log.info("%s", msgspec.json.encode(line).decode())
