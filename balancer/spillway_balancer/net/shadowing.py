"""Policies in Shadow look on: whatever happens to them there, the request goes its way."""

from __future__ import annotations

import logging
import traceback

from ..core.conditions import Moment
from ..core.planning import Plan
from ..core.routing import Routes
from ..core.shadows import Look, looks
from .facts import Facts
from .telemetry import Telemetry

log = logging.getLogger("spillway.shadow")


def looked(routes: Routes, made: Plan, facts: Facts, moment: Moment, telemetry: Telemetry) -> tuple[Look, ...]:
    """What each policy in Shadow for this model would do now, with a request of which another one has made this."""
    try:
        found = looks(routes, made, facts, moment)
    except Exception as error:
        # Never the exception's text: it may quote the request.
        log.error("bug: %s in a shadow; --log-level debug shows where", type(error).__name__)
        log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
        return ()
    for look in found:
        for rule, reason in look.errors:
            telemetry.rule_error(look.route, rule, reason)
    return found
