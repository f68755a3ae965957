"""What is known of each type of provider that a ModelPool may name: one line each, as far as public documentation goes.

Most of these speak OpenAI's API. What differs is where, with what header, on which paths, and what fields are called.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

OutputLimit = Literal["max_tokens", "max_completion_tokens"]

Api = Literal["chat", "messages", "converse"]
"""What a provider is spoken to in: OpenAI's API, Anthropic's Messages, Amazon Bedrock's Converse."""


class Preset(NamedTuple):
    """One type of provider."""

    base_url: str | None
    """Where it is when the pool does not say; None when the pool must. What stands in braces is the account's own."""
    paths: frozenset[str] | None = None
    """What it serves of the API; None where nothing is known to be missing."""
    limit: OutputLimit = "max_tokens"
    """The field by which all of its chat models take a limit on the answer."""
    tells_usage: bool = False
    """Its streams tell their usage without being asked, and `stream_options.include_usage` is an error to it."""
    renames: tuple[tuple[str, str], ...] = ()
    """Fields of chat completions that it refuses, and what it calls them."""
    header: str = "Authorization"
    prefix: str = "Bearer "
    headers: tuple[tuple[str, str], ...] = ()
    """Sent beside it where the client sends none of that name; in lower case."""
    takes: frozenset[str] = frozenset()
    """What it takes in chat completions beyond what all do, where a conversation is translated to them: `file` parts,
    `top_k`, `reasoning_content` of earlier answers, `continue_final_message` behind the beginning of an answer,
    `thought_signature` of calls of tools. Groq takes `reasoning` by this name alone."""
    strict: bool = False
    """It refuses fields that it does not know, ids of tool calls that are not nine letters and digits, and a message of
    the user's right behind a tool's."""
    reasoning: Literal["needed", "refused"] | None = None
    """Whether the assistant's messages need `reasoning_content`, be it empty, or refuse it and what else it is called.
    None where it may be there or not."""
    efforts: str | None = None
    """Which of its models take `reasoning_effort`, as a regular expression that is searched in their names; others
    refuse it. None where it is an error to none."""
    api: Api = "chat"
    """What conversations are translated to where the client speaks otherwise."""
    signs: str | None = None
    """Service of AWS for which requests are signed where an account has keys instead of a bearer key."""


def _paths(*paths: str) -> frozenset[str]:
    return frozenset(f"/v1/{path}" for path in ("chat/completions", *paths))


_LISTENS = ("audio/transcriptions", "audio/translations")
_MODERN: Final[OutputLimit] = "max_completion_tokens"
_DEPRECATED: Final = (("max_tokens", "max_completion_tokens"),)
"""Models that reason refuse the old name, which most engines are asked by; all others take the new one as well."""
_OPENAI: Final = r"(?<![a-z0-9])o\d|gpt-(?:[5-9]|oss)|codex"
_GEMINI: Final = r"gemini-(?:2\.5|[3-9])"
_NO_MODEL: Final = r"(?!)"
"""None of those that take one take the same ones as all others do: low, medium and high."""

PRESETS: Final[dict[str, Preset]] = {
    # https://platform.openai.com/docs/api-reference
    "OpenAI": Preset(
        "https://api.openai.com/v1",
        limit=_MODERN,
        renames=_DEPRECATED,
        takes=frozenset({"file"}),
        reasoning="refused",
        efforts=_OPENAI,
    ),
    # https://learn.microsoft.com/azure/ai-foundry/openai/latest: names of models are those of deployments
    "AzureOpenAI": Preset(
        None,
        _paths(
            "completions", "responses", "embeddings", "audio/speech", *_LISTENS, "images/generations", "images/edits"
        ),
        _MODERN,
        reasoning="refused",
        renames=_DEPRECATED,
        efforts=_OPENAI,
        header="api-key",
        prefix="",
    ),
    # https://platform.claude.com/docs/en/api/overview. Its version of 2023 and no newer one where the client says none:
    # models that take a temperature take it in this one alone
    "Anthropic": Preset(
        "https://api.anthropic.com",
        _paths("messages", "messages/count_tokens"),
        header="x-api-key",
        prefix="",
        headers=(("anthropic-version", "2023-06-01"),),
        api="messages",
    ),
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html: paths name the model
    "Bedrock": Preset(
        "https://bedrock-runtime.{region}.amazonaws.com",
        _paths("messages"),
        tells_usage=True,
        api="converse",
        signs="bedrock",
    ),
    # https://ai.google.dev/gemini-api/docs/openai
    "Gemini": Preset(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        _paths("embeddings", "images/generations"),
        takes=frozenset({"thought_signature"}),
        efforts=_GEMINI,
    ),
    # https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview: models are PUBLISHER/MODEL, such as
    # google/gemini-2.5-flash; a parameter that is not supported is ignored, and streams end with [DONE]
    "VertexAI": Preset(
        "https://{location}aiplatform{area}.googleapis.com/v1/projects/{project}/locations/{region}/endpoints/openapi",
        _paths(),
        takes=frozenset({"thought_signature"}),
        efforts=_GEMINI,
    ),
    # https://docs.mistral.ai/api: a field it does not know is a 422
    "Mistral": Preset(
        "https://api.mistral.ai/v1",
        _paths("embeddings", "moderations", "audio/transcriptions"),
        tells_usage=True,
        renames=(("max_completion_tokens", "max_tokens"),),
        strict=True,
        reasoning="refused",
        efforts=_NO_MODEL,
    ),
    # https://console.groq.com/docs/openai
    "Groq": Preset(
        "https://api.groq.com/openai/v1",
        _paths("responses", "audio/speech", *_LISTENS),
        _MODERN,
        takes=frozenset({"reasoning"}),
        reasoning="refused",
        efforts="gpt-oss",
    ),
    # https://docs.together.ai/docs/inference/openai-compatibility
    "Together": Preset(
        "https://api.together.ai/v1",
        _paths("completions", "embeddings", "rerank", "images/generations", "audio/speech", *_LISTENS),
        takes=frozenset({"top_k"}),
    ),
    # https://docs.fireworks.ai/tools-sdks/openai-compatibility
    "Fireworks": Preset(
        "https://api.fireworks.ai/inference/v1",
        _paths("completions", "responses", "embeddings", "rerank"),
        takes=frozenset({"reasoning_content", "top_k"}),
    ),
    # https://api-docs.deepseek.com
    "DeepSeek": Preset(
        "https://api.deepseek.com/v1", _paths(), takes=frozenset({"reasoning_content"}), reasoning="needed"
    ),
    # https://openrouter.ai/docs/api/reference/overview
    "OpenRouter": Preset(
        "https://openrouter.ai/api/v1",
        _paths("completions", "responses", "embeddings", "rerank"),
        takes=frozenset({"file", "top_k"}),
    ),
    # https://docs.x.ai/api-reference
    "xAI": Preset("https://api.x.ai/v1", _paths("responses", "images/generations"), _MODERN, efforts=_NO_MODEL),
    # Engines: vLLM and SGLang take all three, others pass over what they do not know
    "OpenAICompatible": Preset(None, takes=frozenset({"continue_final_message", "reasoning_content", "top_k"})),
}


def address(provider: str, base_url: str | None, region: str, project: str) -> str:
    """The base URL of an account; empty where nobody says. What the account says of itself fits into a URL.

    Google names the hosts of regions, of `us` and `eu`, and of `global`, each in its own way:
    https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations. A base URL without a path is the host alone.
    """
    found = (base_url or "").rstrip("/")
    preset = PRESETS[provider].base_url or ""
    if found and not ("{" in preset and not urlsplit(found).path):
        return found
    area = f".{region}.rep" if region in ("us", "eu") else ""
    location = "" if area or region == "global" else f"{region}-"
    made = preset.format(location=location, area=area, region=region, project=project) if "{" in preset else preset
    return found + urlsplit(made).path if found else made


def served_by(provider: str) -> frozenset[str] | None:
    """What a type of provider serves of the API; None where it may be anything. One that is not known here, for the
    operator is newer than the balancer, is asked for nothing: it may speak another API."""
    preset = PRESETS.get(provider)
    return frozenset() if preset is None else preset.paths
