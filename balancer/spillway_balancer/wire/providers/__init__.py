"""The provider types that a ModelPool may name. Endpoints of our own are addressed as OpenAICompatible."""

from __future__ import annotations

from typing import Final

from .adapter import Adapter
from .openai_compatible import OPENAI, OPENAI_COMPATIBLE

__all__ = ["ADAPTERS", "Adapter"]

ADAPTERS: Final[dict[str, Adapter]] = {
    "OpenAI": OPENAI,
    "OpenAICompatible": OPENAI_COMPATIBLE,
}
