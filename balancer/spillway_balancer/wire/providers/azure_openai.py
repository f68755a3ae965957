"""Azure OpenAI in its v1 form, whose paths and bodies are OpenAI's; the model is the name of a deployment.

https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from . import openai_compatible


@lru_cache(maxsize=4096)
def join(base_url: str, path: str) -> str:
    """The request target for an API path: `/openai/v1/…` at a resource, https://RESOURCE.openai.azure.com. A base URL
    with a path of its own (`…/openai/v1`, or that of a gateway before the resource) is taken as any other."""
    parts = urlsplit(base_url)
    if parts.path.strip("/"):
        return openai_compatible.join(base_url, path)
    return openai_compatible.join(parts._replace(path="/openai").geturl(), path)
