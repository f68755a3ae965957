"""The provider types that a ModelPool may name. Endpoints of our own are addressed as OpenAICompatible."""

from __future__ import annotations

from typing import Final

from spillway_api.providers import PRESETS

from . import azure_openai, openai_compatible
from .adapter import Adapter

__all__ = ["ADAPTERS", "OWN", "Adapter"]

ADAPTERS: Final[dict[str, Adapter]] = {
    name: Adapter(name, preset, azure_openai.join if name == "AzureOpenAI" else openai_compatible.join)
    for name, preset in PRESETS.items()
}

OWN: Final = ADAPTERS["OpenAICompatible"]
"""For endpoints of no provider."""
