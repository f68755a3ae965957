"""One request of each provider family, as it is told there: its tokens in one form, and what it costs, by hand.

Amounts are dollars for a million tokens, as price pages had them; the sums stand beside the cases.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import LongContext, Price
from spillway_balancer.core.learning import Usage
from spillway_balancer.core.prices import cost, used
from spillway_balancer.wire.counts import counted
from spillway_balancer.wire.usage import UsageWatch

GPT = Price(input="0.25", cached_input="0.025", output="2.00")
CLAUDE = Price(input="3", cached_input="0.30", cache_write="3.75", cache_write_long="6", output="15")
GEMINI = Price(
    input="1.25",
    cached_input="0.125",
    output="10",
    long_context=(LongContext(200_000, input="2.50", cached_input="0.25", output="15"),),
)
GROK = Price(input="1.25", cached_input="0.20", output="2.50")
DEEPSEEK = Price(input="0.28", cached_input="0.028", output="0.42")

CASES: dict[str, tuple[dict[str, Any], Price, Usage, str]] = {
    "OpenAI chat": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 0},
        },
        GPT,
        Usage(2006, 1920, 300, None, 192),
        "0.0006695",  # 86 x 0.25 + 1,920 x 0.025 + 300 x 2
    ),
    "OpenAI Responses": (
        {
            "input_tokens": 5000,
            "input_tokens_details": {
                "cached_tokens": 4096,
                "cache_write_tokens": 900,
                "cache_write_tokens_details": {"ttl_30m_tokens": 600, "ttl_12h_tokens": 300},
            },
            "output_tokens": 1000,
            "output_tokens_details": {"reasoning_tokens": 832},
            "total_tokens": 6000,
        },
        Price(input="5", cached_input="0.50", cache_write="6.25", output="30"),
        Usage(5000, 4096, 1000, 900, 832, 300),
        "0.037693",  # 4 x 5 + 4,096 x 0.5 + 900 x 6.25 + 1,000 x 30
    ),
    "AzureOpenAI": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0},
        },
        GPT,
        Usage(100, 0, 20, None, 0),
        "0.000065",  # 100 x 0.25 + 20 x 2
    ),
    "OpenAI embeddings": (
        {"prompt_tokens": 8, "total_tokens": 8},
        Price(input="0.02"),
        Usage(8),
        "0.00000016",  # 8 x 0.02
    ),
    "Anthropic": (
        {
            "input_tokens": 50,
            "cache_creation_input_tokens": 2000,
            "cache_read_input_tokens": 100_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
            "output_tokens": 503,
            "output_tokens_details": {"thinking_tokens": 400},
            "service_tier": "standard",
        },
        CLAUDE,
        Usage(102_050, 100_000, 503, 2000, 400, 500),
        "0.04632",  # 50 x 3 + 100,000 x 0.3 + 1,500 x 3.75 + 500 x 6 + 503 x 15
    ),
    "Anthropic, nothing cached": (
        {"input_tokens": 2095, "output_tokens": 503},
        CLAUDE,
        Usage(2095, None, 503),
        "0.01383",  # 2,095 x 3 + 503 x 15
    ),
    "Bedrock": (
        {
            "inputTokens": 125,
            "outputTokens": 60,
            "totalTokens": 3185,
            "cacheReadInputTokens": 1000,
            "cacheWriteInputTokens": 2000,
            "cacheDetails": [{"ttl": "1h", "inputTokens": 800}, {"ttl": "5m", "inputTokens": 1200}],
        },
        CLAUDE,
        Usage(3125, 1000, 60, 2000, None, 800),
        "0.010875",  # 125 x 3 + 1,000 x 0.3 + 1,200 x 3.75 + 800 x 6 + 60 x 15
    ),
    "Gemini": (  # thinks, and does not name it
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        GEMINI,
        Usage(20, None, 603, None, 405),
        "0.006055",  # 20 x 1.25 + 603 x 10
    ),
    "VertexAI": (  # above 200,000: all of it by the other amounts
        {
            "prompt_tokens": 250_000,
            "completion_tokens": 1000,
            "total_tokens": 253_000,
            "prompt_tokens_details": {"cached_tokens": 100_000},
            "completion_tokens_details": {"reasoning_tokens": 2000},
        },
        GEMINI,
        Usage(250_000, 100_000, 3000, None, 2000),
        "0.445",  # 150,000 x 2.5 + 100,000 x 0.25 + 3,000 x 15
    ),
    "Gemini, own form": (
        {
            "promptTokenCount": 21,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 60,
            "cachedContentTokenCount": 5,
            "totalTokenCount": 91,
        },
        GEMINI,
        Usage(21, 5, 70, None, 60),
        "0.000720625",  # 16 x 1.25 + 5 x 0.125 + 70 x 10
    ),
    "xAI": (  # reasoning is beside the answer's tokens; xAI's own bill of this one was 232,856,000 of 10^-10 dollars
        {
            "prompt_tokens": 10_120,
            "completion_tokens": 1499,
            "total_tokens": 14_428,
            "prompt_tokens_details": {"text_tokens": 10_120, "cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2809},
            "num_sources_used": 0,
        },
        GROK,
        Usage(10_120, 128, 4308, None, 2809),
        "0.0232856",  # 9,992 x 1.25 + 128 x 0.2 + 4,308 x 2.5
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 500,
            "total_tokens": 1500,
            "completion_tokens_details": {"reasoning_tokens": 400},
            "prompt_cache_hit_tokens": 640,
            "prompt_cache_miss_tokens": 360,
        },
        DEEPSEEK,
        Usage(1000, 640, 500, None, 400),
        "0.00032872",  # 360 x 0.28 + 640 x 0.028 + 500 x 0.42
    ),
    "Mistral": (
        {"prompt_tokens": 13, "total_tokens": 520, "completion_tokens": 507, "prompt_audio_seconds": None},
        Price(input="0.4", output="2"),
        Usage(13, None, 507),
        "0.0010192",  # 13 x 0.4 + 507 x 2
    ),
    "Groq": (
        {
            "queue_time": 0.037,
            "prompt_tokens": 4641,
            "prompt_time": 0.009,
            "completion_tokens": 1817,
            "completion_time": 1.05,
            "total_tokens": 6458,
            "total_time": 1.06,
            "prompt_tokens_details": {"cached_tokens": 4608},
        },
        Price(input="0.15", cached_input="0.075", output="0.60"),
        Usage(4641, 4608, 1817),
        "0.00144075",  # 33 x 0.15 + 4,608 x 0.075 + 1,817 x 0.6
    ),
    "OpenRouter": (
        {
            "prompt_tokens": 10_339,
            "completion_tokens": 60,
            "total_tokens": 10_399,
            "cost": 0.0032,
            "prompt_tokens_details": {"cached_tokens": 10_318, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost_details": {"upstream_inference_cost": None},
        },
        CLAUDE,
        Usage(10_339, 10_318, 60, 0, 0),
        "0.0040584",  # 21 x 3 + 10,318 x 0.3 + 60 x 15
    ),
    "Moonshot": (
        {"prompt_tokens": 19, "completion_tokens": 21, "total_tokens": 40, "cached_tokens": 10},
        Price(input="0.60", cached_input="0.15", output="2.50"),
        Usage(19, 10, 21),
        "0.0000594",  # 9 x 0.6 + 10 x 0.15 + 21 x 2.5
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_request_costs(case: tuple[dict[str, Any], Price, Usage, str]) -> None:
    said, price, usage, amount = case
    assert counted(said) == usage
    assert cost(price, used(usage, 0)) == Decimal(amount)


def event(data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), json.dumps(data).encode())


def messages(start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    """A stream of Messages that begins and ends like that."""
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 50}}
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": start}
    said = [{"type": "message_start", "message": begun}, *[text] * 40]
    ends = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": each} for each in deltas]
    return b"".join(map(event, (*said, *ends, {"type": "message_stop"})))


START = {
    "input_tokens": 25,
    "cache_creation_input_tokens": 8,
    "cache_read_input_tokens": 16,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 8},
    "output_tokens": 1,
}


@pytest.mark.parametrize("size", [1, 7, 100, 3000, 1 << 20])
@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"output_tokens": 15}], Usage(49, 16, 15, 8, None, 8)),
        ([{"output_tokens": 9}, {"output_tokens": 15}], Usage(49, 16, 15, 8, None, 8)),
        (
            [{"input_tokens": 30, "cache_read_input_tokens": 16, "output_tokens": 15, "output_tokens_details": None}],
            Usage(54, 16, 15, 8, None, 8),
        ),
        ([], Usage(49, 16, None, 8, None, 8)),  # it was cut: how long the answer has become is not told
    ],
)
def test_a_stream_of_messages_tells_prompt_and_answer_apart(
    deltas: list[dict[str, Any]], expected: Usage, size: int
) -> None:
    data, watch = messages(START, *deltas), UsageWatch()
    for at in range(0, len(data), size):
        watch.feed(data[at : at + size])
        if size >= 100:
            watch.usage()  # whoever asks in between changes nothing
    assert watch.usage() == expected


NUMBERS = st.none() | st.integers(-5, 10**9) | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
NAMES = sorted({name for said, *_ in CASES.values() for name in said})
DETAILS = [each for said, *_ in CASES.values() for each in said.values() if isinstance(each, dict)]
INNER = sorted({name for each in DETAILS for name in each})


@given(st.dictionaries(st.sampled_from(NAMES), NUMBERS | st.dictionaries(st.sampled_from(INNER), NUMBERS)))
def test_parts_are_never_more_than_their_whole_whatever_is_told(said: dict[str, Any]) -> None:
    found = counted(said)
    if found is None:
        return
    assert all(each is None or each >= 0 for each in found)
    if found.prompt_tokens is not None:
        assert (found.cached_tokens or 0) + (found.written_tokens or 0) <= found.prompt_tokens
    if found.output_tokens is not None:
        assert (found.reasoning_tokens or 0) <= found.output_tokens
    assert (found.kept_long_tokens or 0) <= (found.written_tokens or 0)
