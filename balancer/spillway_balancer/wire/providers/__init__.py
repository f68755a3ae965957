"""The provider types that a ModelPool may name. Endpoints of our own are addressed as OpenAICompatible."""

from __future__ import annotations

from typing import Final

from spillway_api.providers import PRESETS

from . import azure_openai, bedrock, openai_compatible
from .adapter import Adapter, Target

__all__ = ["ADAPTERS", "OWN", "Adapter"]

_JOINS: Final[dict[str, Target]] = {"AzureOpenAI": azure_openai.join, "Bedrock": bedrock.join}

ADAPTERS: Final[dict[str, Adapter]] = {
    name: Adapter(
        name,
        preset,
        _JOINS.get(name, openai_compatible.join),
        tuple((each.encode(), f"{each}: {value}\r\n".encode()) for each, value in preset.headers),
    )
    for name, preset in PRESETS.items()
}

OWN: Final = ADAPTERS["OpenAICompatible"]
"""For endpoints of no provider."""
