"""Body field names that are acted on, and those that never go upstream: what JSON and forms have in common."""

from __future__ import annotations

from typing import Final

ACTED_ON: Final = frozenset(
    {
        "background",
        "best_of",
        "conversation",
        "documents",
        "echo",
        "functions",
        "include_reasoning",
        "input",
        "instructions",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "model",
        "models",
        "n",
        "n_predict",
        "output_config",
        "output_format",
        "previous_response_id",
        "priority",
        "prompt",
        "prompt_cache_key",
        "query",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "system",
        "text_1",
        "text_2",
        "thinking",
        "tool_choice",
        "tools",
        "user",
    }
)
"""Names that this balancer or an engine routes, counts or isolates by. They must be spelled exactly: Go's
encoding/json matches field names without case, so `Stream` would mean nothing to us and `stream` to the engine."""

FORBIDDEN: Final = frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "base_url",
        "cache_salt",
        "custom_llm_provider",
        "extra_headers",
    }
)
"""Names that would redirect the request, carry a credential past us, or choose another tenant's cache. They are
removed, in any case: the first six are read by LiteLLM-like backends, `cache_salt` by vLLM, where it is ours to set."""


def fold(name: str) -> str:
    """`name` as the most lenient reader compares it: without case, U+017F as s, U+212A as k, U+0131 as i."""
    return name.casefold() if name.isascii() else name.upper().casefold()


def shown(name: str) -> str:
    """A field name fit for an error message: at most 64 characters, printable ASCII only."""
    return ascii(name[:64])[1:-1]
