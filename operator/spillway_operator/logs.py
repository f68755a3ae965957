"""Logs of the operator: a line for people, or one JSON document for whoever collects them."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

_KIND = re.compile(r"any_name='(\w+)'")
"""In what kopf says of kinds that are not there."""


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Optional(logging.Filter):
    """A cluster may lack InferencePools, and mostly does: pools that want one say so, and kopf need not warn of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if said.startswith("Unresolved resources") and _KIND.findall(said) == ["inferencepools"]:
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = "the kind InferencePool is not installed; only source.inferencePool needs it", ()
        return True


def set_up(level: int, form: Format, stream: TextIO) -> None:
    """Log to `stream`. kopf's lines about single events are for --log-level debug only."""
    handler = logging.StreamHandler(stream)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s")
    handler.addFilter(_Optional())
    handler.setFormatter(_Json() if form is Format.JSON else plain)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level > logging.DEBUG:
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
