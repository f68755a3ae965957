"""Prompts as chained blocks: what keeps them equal, what tells them apart, and how an answer goes on with them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.prefix import BLOCK_BYTES
from spillway_balancer.wire import openai
from spillway_balancer.wire.canonical import MEDIA_BYTES
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.prompt_blocks import PromptBlocks, continue_blocks, seed_of

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def maybe(request: dict[str, Any], path: str = CHAT, seed: int = 7, **style: Any) -> PromptBlocks | None:
    return openai.peek(PATHS[path], "", json.dumps({"model": "m", **request}, **style).encode()).prompt(seed)


def prompt(request: dict[str, Any], path: str = CHAT, seed: int = 7, **style: Any) -> PromptBlocks:
    found = maybe(request, path, seed, **style)
    assert found is not None
    return found


def blocks(request: dict[str, Any], path: str = CHAT, seed: int = 7, **style: Any) -> list[int]:
    return list(prompt(request, path, seed, **style).prompt.blocks)


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


LONG = "All happy families are alike; every unhappy family is unhappy in its own way. " * 12
TEXT = st.text(max_size=30) | st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=9), st.just(60))
PART = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}) | st.fixed_dictionaries(
    {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": TEXT, "detail": st.text(max_size=4)})}
)
CALL = st.fixed_dictionaries(
    {"id": st.text(max_size=9), "function": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT})}
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "assistant", "user", "tool"]),
        "content": TEXT | st.none() | st.lists(PART, max_size=3),
    },
    optional={"tool_calls": st.lists(CALL, max_size=2)},
)
MESSAGES = st.lists(MESSAGE, min_size=1, max_size=6)
TOOLS = st.fixed_dictionaries({}, optional={"tools": st.lists(st.dictionaries(TEXT, TEXT, max_size=3), max_size=2)})


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        dice.shuffle(keys)
        return {key: shuffled(value[key], dice) for key in keys}
    return [shuffled(item, dice) for item in value] if isinstance(value, list) else value


# ---- laws


@given(MESSAGES, MESSAGES, TOOLS)
def test_more_messages_keep_every_whole_block(
    first: list[dict[str, Any]], more: list[dict[str, Any]], tools: dict[str, Any]
) -> None:
    before = prompt({"messages": first, **tools}).prompt
    after = prompt({"messages": first + more, **tools}).prompt
    assert list(after.blocks[: len(before.blocks)]) == list(before.blocks)
    assert after.size >= before.size


@given(MESSAGES, TOOLS, st.randoms(use_true_random=False))
def test_spacing_key_order_and_escapes_change_nothing(
    messages: list[dict[str, Any]], tools: dict[str, Any], dice: random.Random
) -> None:
    request = {"messages": messages, **tools}
    compact = prompt(request, separators=(",", ":"), ensure_ascii=False)
    assert prompt(shuffled(request, dice), indent=3, ensure_ascii=True) == compact
    slashes = json.dumps({"model": "m", **request}).replace("/", "\\/").encode()  # as PHP escapes
    assert openai.peek(PATHS[CHAT], "", slashes).prompt(7) == compact


@given(MESSAGES, TOOLS)
def test_the_size_is_that_of_the_text_and_says_how_many_blocks_there_are(
    messages: list[dict[str, Any]], tools: dict[str, Any]
) -> None:
    found = prompt({"messages": messages, **tools})
    size, whole = found.prompt.size, found.prompt.blocks
    assert found.prompt.block_size == BLOCK_BYTES
    assert len(whole) == size // BLOCK_BYTES
    assert found.carry is not None
    assert len(found.carry) == size % BLOCK_BYTES + len(b"assistant\n")


@given(st.lists(st.sampled_from([LONG, "Hi", "x" * 700]), min_size=1, max_size=5), st.data())
def test_another_text_changes_its_block_and_all_behind_it(texts: list[str], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(texts) - 1))
    place = data.draw(st.integers(0, len(texts[which]) - 1))
    other = list(texts)
    other[which] = f"{texts[which][:place]}#{texts[which][place + 1 :]}"
    one, two = (blocks({"messages": [said("user", text) for text in each]}) for each in (texts, other))
    at = (sum(len(f"user\n{text}\n") for text in texts[:which]) + len("user\n") + place) // BLOCK_BYTES
    assert one[:at] == two[:at]
    assert not set(one[at:]) & set(two[at:])


@given(MESSAGES, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_another_seed_changes_every_block(messages: list[dict[str, Any]], one: int, other: int) -> None:
    mine, theirs = (blocks({"messages": messages}, seed=seed) for seed in (one, other))
    assert len(mine) == len(theirs)
    assert one == other or not set(mine) & set(theirs)


@given(MESSAGES, TEXT, st.lists(MESSAGE, max_size=2))
def test_an_answer_goes_on_with_the_chain_as_the_next_turn_will(
    messages: list[dict[str, Any]], answer: str, more: list[dict[str, Any]]
) -> None:
    before = prompt({"messages": messages})
    after = blocks({"messages": [*messages, said("assistant", answer), *more]})
    foretold = [*before.prompt.blocks, *continue_blocks(before, answer)]
    assert after[: len(foretold)] == foretold
    assert len(foretold) == (before.prompt.size + len(b"assistant\n") + len(answer.encode())) // BLOCK_BYTES


@given(TEXT.filter(bool), TEXT)
def test_a_completion_goes_on_where_it_ended(text: str, answer: str) -> None:
    before = prompt({"prompt": text}, COMPLETIONS)
    whole = [*before.prompt.blocks, *continue_blocks(before, answer)]
    assert whole == blocks({"prompt": text + answer}, COMPLETIONS)


# ---- what takes part


SYSTEM = said("system", LONG)
HELLO = said("user", "Hello")
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [said("developer", LONG), HELLO]},
        {"messages": [said("system", "." + LONG), HELLO]},
        {"messages": [SYSTEM, HELLO], "tools": [TOOL]},
        {"messages": [SYSTEM, HELLO], "functions": [TOOL["function"]]},
        {"messages": [SYSTEM, HELLO], "documents": [{"text": "a"}]},
        {"messages": [{**SYSTEM, "tool_calls": [{"id": "1"}]}, HELLO, said("user", LONG)]},
        {
            "messages": [
                said("user", [{"type": "text", "text": LONG}, {"type": "image_url", "image_url": {"url": "u"}}])
            ]
        },
    ],
)
def test_what_the_model_reads_takes_part(other: dict[str, Any]) -> None:
    plain = blocks({"messages": [SYSTEM, HELLO, said("user", LONG)]})
    assert blocks(other) != plain[: len(blocks(other))]


def test_tools_stand_in_front() -> None:
    with_tools = blocks({"messages": [SYSTEM, HELLO], "tools": [TOOL]})
    assert not set(with_tools) & set(blocks({"messages": [SYSTEM, HELLO]}))
    assert blocks({"messages": [SYSTEM, HELLO], "tools": []}) == blocks({"messages": [SYSTEM, HELLO]})


def test_a_long_list_of_tools_counts_as_any_other() -> None:
    tools = [{"name": f"tool-{number}", "description": LONG} for number in range(200)]
    spaced, compact = (
        prompt({"messages": [HELLO], "tools": tools}, indent=1),
        prompt({"messages": [HELLO], "tools": tools}),
    )
    assert spaced == compact
    assert compact.prompt.size > 200 * len(LONG)


def test_what_is_sent_beside_the_prompt_takes_no_part() -> None:
    settings = {"temperature": 0.5, "max_tokens": 9, "stream": True, "user": "u", "cache_salt": "s", "seed": 4}
    assert prompt({"messages": [SYSTEM, HELLO], **settings}) == prompt({"messages": [SYSTEM, HELLO]})


def test_parts_of_text_count_as_their_text() -> None:
    halves = [{"type": "text", "text": LONG[:99]}, {"type": "text", "text": LONG[99:]}]
    assert prompt({"messages": [said("user", halves)]}) == prompt({"messages": [said("user", LONG)]})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/1.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 90_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 90_000, "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
    ],
)
def test_images_and_audio_count_for_a_fixed_length_and_by_what_they_are(part: dict[str, Any]) -> None:
    plain = prompt({"messages": [said("user", [{"type": "text", "text": "What?"}])]})
    seen = prompt({"messages": [said("user", [part, {"type": "text", "text": "What?"}])]})
    other = prompt({"messages": [said("user", [{**part, "x": 1}, {"type": "text", "text": "What?"}])]})
    assert seen.prompt.size == plain.prompt.size + MEDIA_BYTES == other.prompt.size
    assert not set(seen.prompt.blocks) & set(other.prompt.blocks)


def test_a_file_in_a_result_of_a_tool_counts_as_a_file() -> None:
    item = {"type": "computer_call_output", "output": {"image_url": "data:image/png;base64," + "A" * 90_000}}
    assert prompt({"input": [item]}, RESPONSES).prompt.size < 2 * MEDIA_BYTES


# ---- the paths


def test_responses_read_instructions_and_input_as_a_conversation() -> None:
    as_chat = prompt({"messages": [SYSTEM, HELLO]})
    assert prompt({"instructions": LONG, "input": "Hello"}, RESPONSES) == as_chat
    parts = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]
    assert prompt({"instructions": LONG, "input": parts}, RESPONSES) == as_chat


def test_a_turn_of_responses_goes_on_with_the_last() -> None:
    before = prompt({"instructions": LONG, "input": "Hello"}, RESPONSES)
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": LONG}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": LONG}
    after = blocks({"instructions": LONG, "input": [said("user", "Hello"), answer, call, result]}, RESPONSES)
    foretold = [*before.prompt.blocks, *continue_blocks(before, LONG)]
    assert len(foretold) > len(before.prompt.blocks)
    assert after[: len(foretold)] == foretold
    assert len(after) > len(foretold)


@pytest.mark.parametrize("elsewhere", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}])
def test_a_conversation_that_the_endpoint_holds_is_not_known(elsewhere: dict[str, Any]) -> None:
    assert maybe({"input": "And now?", **elsewhere}, RESPONSES) is None
    assert maybe({"input": "And now?", **dict.fromkeys(elsewhere)}, RESPONSES) is not None


def test_token_numbers_grow_at_their_end_and_nothing_can_follow_them() -> None:
    ids = list(range(1000, 1300))
    before = prompt({"prompt": ids}, COMPLETIONS)
    after = blocks({"prompt": [*ids, 7, 8, 9] * 2}, COMPLETIONS)
    assert list(before.prompt.blocks) == after[: len(before.prompt.blocks)]
    assert before.prompt == prompt({"prompt": [ids]}, COMPLETIONS, indent=1).prompt
    assert list(continue_blocks(before, LONG)) == []


def test_of_several_prompts_the_first_is_found_and_all_are_counted() -> None:
    alone = prompt({"prompt": LONG}, COMPLETIONS)
    several = prompt({"prompt": [LONG, "x" * 500]}, COMPLETIONS)
    assert list(several.prompt.blocks[: len(alone.prompt.blocks)]) == list(alone.prompt.blocks)
    assert several.prompt.size == alone.prompt.size + 500
    assert several.carry is None


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({"input": LONG}, "/v1/embeddings"),
        ({"query": LONG, "documents": [LONG]}, "/v1/rerank"),
        ({"text_1": LONG, "text_2": LONG}, "/v1/score"),
        ({"input": LONG}, "/v1/audio/speech"),
        ({"prompt": LONG}, "/v1/images/generations"),
        ({}, CHAT),
        ({"messages": []}, CHAT),
        ({"prompt": ""}, COMPLETIONS),
        ({"input": None}, RESPONSES),
    ],
)
def test_without_a_text_to_complete_there_is_no_prompt(request_: dict[str, Any], path: str) -> None:
    assert maybe(request_, path) is None


def test_a_form_has_no_prompt() -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    path = PATHS["/v1/audio/transcriptions"]
    assert openai.peek(path, "multipart/form-data; boundary=b", body).prompt(7) is None


@pytest.mark.parametrize(
    "messages", [7, "text", {"role": "user"}, [7, None, "x"], [{"content": {"a": 1}}], [[]], [{"role": {"a": 1}}]]
)
def test_messages_of_an_unknown_shape_do_no_harm(messages: object) -> None:
    maybe({"messages": messages})


def test_models_and_tenants_share_nothing() -> None:
    seeds = [seed_of(*each) for each in (("m", None), ("n", None), ("m", ""), ("m", "a"), ("m", "b"), ("m", "\udcff"))]
    assert len(set(seeds)) == len(seeds)
    assert seed_of("m", "a") == seed_of("m", "a")


def test_history_is_what_the_turn_before_was_asked_with() -> None:
    first = [said("system", "be brief " * 40), said("user", "what is a spillway? " * 30)]
    second = [*first, said("assistant", "a way for water " * 25), said("user", "and why?")]
    third = [*second, said("assistant", "so that the dam holds"), said("user", "thanks")]
    assert prompt({"messages": first}).prompt.history == 0
    assert prompt({"messages": second}).prompt.history == prompt({"messages": first}).prompt.size
    assert prompt({"messages": third}).prompt.history == prompt({"messages": second}).prompt.size
