"""This balancer's own answers, in the API in which it was asked."""

from __future__ import annotations

from ..core.errors import SpillwayError
from . import anthropic, openai
from .paths import Path


def error_body(error: SpillwayError, path: Path | None) -> bytes:
    """An error as an answer. `path` is None where none of the API was asked, and OpenAI's shape is the common one."""
    if path is not None and path.messages:
        return anthropic.error_body(error)
    return openai.error_body(error)


def error_event(error: SpillwayError, path: Path) -> bytes:
    """An error as the last event of a stream that has begun."""
    return anthropic.error_event(error) if path.messages else openai.error_event(error, path)
