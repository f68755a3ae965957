"""The audit log: one line of JSON for a request that a guard held for, and for a sample of the others.

It says what was decided and where the request went, in names that policies declare; no prompt, no header, no secret,
nothing that a client wrote.
"""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..core.attempts import Try
from ..core.planning import Plan

if TYPE_CHECKING:
    from .telemetry import Decision, Telemetry

log: Final = logging.getLogger("spillway.audit")
log.setLevel(logging.INFO)  # whatever --log-level leaves out elsewhere


def audited(made: Plan, telemetry: Telemetry, dice: random.Random) -> Audit | None:
    """Count the guards that hold. The line to write in the end, where one of them or `auditLogPercent` wants it."""
    wanted = False
    if made.held is not None:
        unknown = dict(made.held.unknown)
        for guard in made.held.guards:
            telemetry.guard_held(made.route.name, guard.name, unknown.get(guard.name, "held"))
        wanted = made.held.audited
    explain = made.route.spec.explain
    if not wanted and explain is not None:
        wanted = dice.random() * 100 < explain.audit_log_percent
    return Audit(made) if wanted else None


def replanned(made: Plan, audit: Audit | None) -> Audit | None:
    """The request has waited, and what is in force is another policy now: its line tells of that one."""
    if audit is None:
        return Audit(made) if made.held is not None and made.held.audited else None
    audit.made = made
    return audit


class Audit:
    """The line of one request, written when it has ended."""

    __slots__ = ("_sent", "_time", "made", "mirrored")

    def __init__(self, made: Plan) -> None:
        self.made = made
        self.mirrored: str | None = None
        """The pool that a copy went to."""
        self._time = datetime.now(UTC)
        self._sent: list[dict[str, str]] = []

    def sent(self, step: Try) -> None:
        """The request goes to an endpoint now: whatever becomes of it, it has been there."""
        self._sent.append({"tier": step.tier, "pool": step.pool.name, "endpoint": step.endpoint.name})

    def write(self, decision: Decision) -> None:
        made = self.made
        line: dict[str, Any] = {
            "time": self._time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "route": made.route.name,
            "model": made.model,
            "rule": made.rule,
        }
        if decision.consumer is not None:
            line["consumer"] = decision.consumer.name
        if made.held is not None:
            line["guards"] = [guard.name for guard in made.held.guards]
            if made.held.unknown:
                line["unknown"] = dict(made.held.unknown)
            line["leftOut"] = [{"tier": each.tier, "pool": each.pool} for each in made.cut]
        if self.mirrored is not None:
            line["mirroredTo"] = self.mirrored
        line |= {"sentTo": self._sent, "status": decision.code, "result": decision.error or decision.status or "error"}
        usage = decision.usage
        counted = {"input": usage.prompt_tokens, "cached": usage.cached_tokens, "output": usage.output_tokens}
        if tokens := {name: number for name, number in counted.items() if number is not None}:
            line["tokens"] = tokens
        log.info("%s", msgspec.json.encode(line).decode())
