"""Every provider's way to count tokens, in one form, which is OpenAI's.

- OpenAI (chat, Responses), and with it Azure, vLLM, Groq, Mistral, Together, Fireworks and OpenRouter: prompts include
  `cached_tokens` and `cache_write_tokens` of their details, answers include their `reasoning_tokens`. DeepSeek says
  `prompt_cache_hit_tokens`, Moonshot `cached_tokens` beside the prompt.
- xAI's chat and Gemini's compatible form: the same, but reasoning is on top of the answer's tokens and to be seen in
  `total_tokens`; Gemini often does not name it.
- Gemini's own form: `thoughtsTokenCount` is on top of `candidatesTokenCount`.
- Anthropic's Messages and Bedrock's Converse: prompts exclude what was read from a cache and what was written to it.

After https://platform.openai.com/docs/api-reference (and the types of the official SDKs of OpenAI and Anthropic),
https://docs.x.ai/docs/key-information/consumption-and-rate-limits ("reasoning token consumption will be counted
separately from completion_tokens, but will be counted in the total_tokens"), https://api-docs.deepseek.com,
https://ai.google.dev/api/generate-content (UsageMetadata) and
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..core.learning import Usage

MAX_TOKENS: Final = 100_000_000
"""No request has so many; a number beyond is a mistake, and unknown."""

_NO_DETAILS: Final[Mapping[str, object]] = {}


def counted(said: Mapping[str, object]) -> Usage | None:
    """The tokens of a usage object of any family; None if it has none. A number that is negative, absurd or no integer
    is unknown, and so is a part that is more than its whole."""
    if "promptTokenCount" in said:
        return _gemini(said)
    if "inputTokens" in said or "outputTokens" in said:
        return _converse(said)
    if "prompt_tokens" not in said and ("cache_read_input_tokens" in said or "cache_creation_input_tokens" in said):
        return _anthropic(said)
    return _openai(said)


def _openai(said: Mapping[str, object]) -> Usage | None:
    """Most answers are counted here, once each: names are looked up, and no more than are there."""
    prompt = _tokens(said.get("prompt_tokens", said.get("input_tokens")))
    output = _tokens(said.get("completion_tokens", said.get("output_tokens")))
    read = _details(said, "prompt_tokens_details", "input_tokens_details")
    made = _details(said, "completion_tokens_details", "output_tokens_details")
    reasoning = _tokens(made.get("reasoning_tokens", said.get("reasoning_tokens")))
    if reasoning is None and made:
        reasoning = _tokens(made.get("thinking_tokens"))
    cached = _tokens(read.get("cached_tokens"))
    if cached is None:
        beside = said.get("cached_tokens", said.get("cache_read_input_tokens"))
        cached = _tokens(said.get("prompt_cache_hit_tokens", beside))
    written = _tokens(read.get("cache_write_tokens", said.get("cache_creation_input_tokens")))
    kept = _tokens(_details(read, "cache_write_tokens_details").get("ttl_12h_tokens")) if written else None
    total = _tokens(said.get("total_tokens"))
    if prompt is not None and output is not None and total is not None:
        more = total - prompt - output
        if more > 0 and (not reasoning or more == reasoning):
            output, reasoning = output + more, more
    return _usage(prompt, cached, output, written, reasoning, kept)


def _anthropic(said: Mapping[str, object]) -> Usage | None:
    made = _details(said, "cache_creation")
    written = _tokens(said.get("cache_creation_input_tokens"))
    kept = _tokens(made.get("ephemeral_1h_input_tokens"))
    reasoning = _tokens(_details(said, "output_tokens_details").get("thinking_tokens"))
    fresh, cached = _tokens(said.get("input_tokens")), _tokens(said.get("cache_read_input_tokens"))
    return _usage(_sum(fresh, cached, written), cached, _tokens(said.get("output_tokens")), written, reasoning, kept)


def _converse(said: Mapping[str, object]) -> Usage | None:
    cached, written = _tokens(said.get("cacheReadInputTokens")), _tokens(said.get("cacheWriteInputTokens"))
    kept = None
    details = said.get("cacheDetails")
    for each in details if isinstance(details, list) else ():
        if isinstance(each, dict) and each.get("ttl") == "1h":
            kept = _tokens(each.get("inputTokens"))
    prompt = _sum(_tokens(said.get("inputTokens")), cached, written)
    return _usage(prompt, cached, _tokens(said.get("outputTokens")), written, None, kept)


def _gemini(said: Mapping[str, object]) -> Usage | None:
    reasoning = _tokens(said.get("thoughtsTokenCount"))
    output = _sum(_tokens(said.get("candidatesTokenCount", 0 if reasoning else None)), reasoning)
    prompt = _sum(_tokens(said.get("promptTokenCount")), _tokens(said.get("toolUsePromptTokenCount")))
    return _usage(prompt, _tokens(said.get("cachedContentTokenCount")), output, None, reasoning, None)


def _usage(
    prompt: int | None,
    cached: int | None,
    output: int | None,
    written: int | None,
    reasoning: int | None,
    kept: int | None,
) -> Usage | None:
    if prompt is None and output is None and cached is None:
        return None
    if prompt is not None:
        cached = _within(cached, prompt)
        written = _within(written, prompt - (cached or 0))
    if output is not None:
        reasoning = _within(reasoning, output)
    return Usage(prompt, cached, output, written, reasoning, _within(kept, written or 0))


def _within(part: int | None, whole: int) -> int | None:
    return None if part is None or part > whole else part


def _sum(first: int | None, *rest: int | None) -> int | None:
    return None if first is None else first + sum(each or 0 for each in rest)


def _details(said: Mapping[str, object], name: str, other: str = "") -> Mapping[str, object]:
    found = said.get(name)
    if not isinstance(found, dict):
        found = said.get(other)
    return found if isinstance(found, dict) else _NO_DETAILS


def _tokens(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
