"""The families, a line each: where they are asked and how, how they cache, what they tell, how they refuse.

Sources are the providers' public references; `wire/providers` and `crds/spillway_api/providers.py` have the addresses
of them. Nothing is taken from there: a mistake in the balancer's own table must show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from . import refusals
from .asked import words
from .counting import CacheRule
from .quotas import Meter


class ChatTraits(NamedTuple):
    """What differs between those who speak OpenAI's chat completions."""

    known: frozenset[str] | None = None
    """The only fields it takes; None where others are ignored."""
    nested: bool = False
    """Whether what is not known is refused inside of messages and tools, too."""
    thoughts: Literal["hidden", "reasoning_content", "reasoning", "parts"] = "hidden"
    """Where thoughts stand in an answer."""
    apart: bool = False
    """Tokens of thoughts are not in completion_tokens; total_tokens has them."""
    usage: Literal["asked", "last", "groq", "openrouter", "each"] = "asked"
    """Of streams: in a chunk of its own when asked; in the last chunk always; in `x_groq`; in a chunk with a choice;
    in each chunk, when asked, so far."""
    comment: bytes = b""
    """What a stream begins with while nothing has been made yet."""
    filters: bool = False
    """Azure's results of its content filter, in a first chunk without choices and beside each choice."""
    hits: bool = False
    """DeepSeek's names for what was cached."""
    modern: bool = False
    """Models that think take max_completion_tokens alone."""


class Family(NamedTuple):
    """One type of provider."""

    type: str
    api: Literal["chat", "messages", "converse"]
    base: str
    """Path of the base URL that SDKs are given."""
    refuse: refusals.Renderer
    auth: Literal["bearer", "x-api-key", "api-key", "amazon"] = "bearer"
    request_id: str = "x-request-id"
    quotas: Callable[[Meter, float, float], dict[str, str]] = Meter.openai
    headers: tuple[tuple[str, str], ...] = ()
    cache: CacheRule | None = None
    chat: ChatTraits = ChatTraits()
    embeds: bool = True
    anywhere: str | None = None
    """The paths that it serves, where these are of more projects and regions than `base` names."""

    @property
    def served(self) -> str:
        return self.anywhere or self.base


_OPENAI_FIELDS: Final = words(
    "messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
    "max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier "
    "stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity "
    "web_search_options"
)
_MISTRAL_FIELDS: Final = words(
    "model messages temperature top_p max_tokens stream stop random_seed metadata response_format tools tool_choice "
    "presence_penalty frequency_penalty n prediction parallel_tool_calls prompt_mode safe_prompt reasoning_effort "
    "guardrails prompt_cache_key stream_options"
)
_OPENAI_CACHE: Final = CacheRule(1024, 128)

FAMILIES: Final[dict[str, Family]] = {
    family.type: family
    for family in (
        Family(
            "openai",
            "chat",
            "/v1",
            refusals.openai,
            headers=(("openai-organization", "org-fake"), ("openai-version", "2020-10-01")),
            cache=_OPENAI_CACHE,
            chat=ChatTraits(_OPENAI_FIELDS, modern=True),
        ),
        Family(
            "azure",
            "chat",
            "/openai/v1",
            refusals.azure,
            auth="api-key",
            request_id="apim-request-id",
            quotas=Meter.azure,
            headers=(("x-ms-region", "Fake"), ("x-ms-deployment-name", "fake")),
            cache=_OPENAI_CACHE,
            chat=ChatTraits(_OPENAI_FIELDS, filters=True, modern=True),
        ),
        Family(
            "gemini",
            "chat",
            "/v1beta/openai",
            refusals.gemini,
            quotas=Meter.silent,
            headers=(("server", "scaffolding on HTTPServer2"),),
            cache=_OPENAI_CACHE,
            chat=ChatTraits(apart=True, usage="each"),
        ),
        Family(
            "vertex",
            "chat",
            "/v1/projects/fake/locations/europe-west4/endpoints/openapi",
            refusals.vertex,
            quotas=Meter.silent,
            headers=(("server", "scaffolding on HTTPServer2"),),
            cache=_OPENAI_CACHE,
            chat=ChatTraits(apart=True, usage="each"),
            embeds=False,
            anywhere="/v1/projects/{project}/locations/{region}/endpoints/openapi",
        ),
        Family(
            "mistral",
            "chat",
            "/v1",
            refusals.mistral,
            request_id="mistral-correlation-id",
            chat=ChatTraits(_MISTRAL_FIELDS, nested=True, thoughts="parts", usage="last"),
        ),
        Family(
            "groq",
            "chat",
            "/openai/v1",
            refusals.groq,
            cache=CacheRule(128, 128),
            chat=ChatTraits(thoughts="reasoning", usage="groq"),
            embeds=False,
        ),
        Family("together", "chat", "/v1", refusals.openai, chat=ChatTraits(thoughts="reasoning")),
        Family(
            "fireworks",
            "chat",
            "/inference/v1",
            refusals.openai,
            cache=CacheRule(128, 64),
            chat=ChatTraits(thoughts="reasoning_content"),
        ),
        Family(
            "deepseek",
            "chat",
            "/v1",
            refusals.deepseek,
            quotas=Meter.silent,
            cache=CacheRule(64, 64),
            chat=ChatTraits(thoughts="reasoning_content", usage="last", comment=b": keep-alive\n\n", hits=True),
            embeds=False,
        ),
        Family(
            "openrouter",
            "chat",
            "/api/v1",
            refusals.openrouter,
            cache=_OPENAI_CACHE,
            chat=ChatTraits(thoughts="reasoning", usage="openrouter", comment=b": OPENROUTER PROCESSING\n\n"),
        ),
        Family(
            "xai",
            "chat",
            "/v1",
            refusals.xai,
            cache=CacheRule(128, 64),
            chat=ChatTraits(thoughts="reasoning_content", apart=True),
            embeds=False,
        ),
        Family(
            "anthropic",
            "messages",
            "",
            refusals.anthropic,
            auth="x-api-key",
            request_id="request-id",
            quotas=Meter.anthropic,
            headers=(("anthropic-organization-id", "00000000-0000-0000-0000-000000000000"),),
            cache=CacheRule(1024, 0),
            embeds=False,
        ),
        Family(
            "bedrock",
            "converse",
            "",
            refusals.amazon,
            auth="amazon",
            request_id="x-amzn-requestid",
            quotas=Meter.silent,
            cache=CacheRule(1024, 0),
            embeds=False,
        ),
    )
}
