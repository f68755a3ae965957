"""What the simulator says of a request holds for the chat that stands for it, in the engine and in the balancer."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from operator import eq

import pytest
from benchmarks.chats import Chat

from spillway_balancer.core.prefix import BLOCK_BYTES
from spillway_balancer.engine import requests as engine
from spillway_balancer.engine.text import TOKEN_BYTES, Answer, block_hashes, namespace, tokens_in
from spillway_balancer.simulate.plan import BLOCK, Plan
from spillway_balancer.simulate.request import Request
from spillway_balancer.simulate.sessions import Talk, sessions
from spillway_balancer.wire import openai
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.prompt_blocks import continue_blocks, seed_of

TALK = Talk((300, 0.6), 5, (60, 0.9), (40, 0.7), 1.0, 40)
MARKERS = len("<||>\n<|end|>\n") - len("\n\n")
"""Bytes that the engine's text has more than the balancer's for each message."""
OPENING = len("<||>")
"""And for the beginning of the answer."""


@dataclass
class Turn:
    """One request as everybody sees it. `after` and the like are the chains with the answer's blocks behind them."""

    request: Request
    messages: int
    prompt: bytes
    answer: str
    seen: Sequence[int]
    after: Sequence[int]

    def engine_blocks(self, block_tokens: int) -> list[int]:
        data = self.prompt + self.answer.encode()
        return block_hashes(data, namespace("bench"), block_tokens)


def turns(first: Request) -> Iterator[Turn]:
    chat, request, now = Chat(), first, 0.0
    while request is not None:
        body = json.dumps(chat.ask(request)).encode()
        asked = engine.chat(body)
        assert asked.limit is not None
        answer = Answer(asked.prompt, asked.limit).text
        peeked = openai.peek(PATHS["/v1/chat/completions"], "application/json", body)
        known = peeked.prompt(seed_of("bench", None))
        assert known is not None
        after = [*known.prompt.blocks, *continue_blocks(known, answer)]
        yield Turn(request, len(chat.messages), asked.prompt, answer, known.prompt.blocks, after)
        chat.answered(answer)
        now += 1.0
        request = request.follow(request, now) if request.follow else None


@pytest.fixture(scope="module")
def talks() -> list[list[Turn]]:
    return [list(turns(first)) for first in sessions(TALK)(Plan(1.0, 3, 1, 200)).requests]


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(takewhile(bool, map(eq, one, other)))


def said_of(request: Request) -> array[int]:
    return request.blocks + request.answer_blocks


def test_the_engine_counts_the_tokens_that_the_request_says(talks: list[list[Turn]]) -> None:
    for turn in (turn for talk in talks for turn in talk):
        assert tokens_in(turn.prompt) == turn.request.prompt_tokens
        assert len(turn.answer) == turn.request.output_tokens * TOKEN_BYTES


def test_the_next_turn_finds_in_the_engine_what_its_blocks_say(talks: list[list[Turn]]) -> None:
    pairs = [pair for talk in talks for pair in pairwise(talk)]
    assert len(pairs) > 50
    for last, turn in pairs:
        expected = shared(said_of(last.request), turn.request.blocks)
        assert expected == (last.request.prompt_tokens + last.request.output_tokens) // BLOCK
        assert shared(last.engine_blocks(BLOCK), turn.engine_blocks(BLOCK)) == expected
        assert shared(last.engine_blocks(16), turn.engine_blocks(16)) * 16 // BLOCK == expected


def test_the_next_turn_finds_in_the_mirror_what_its_blocks_say_but_for_the_engines_markers(
    talks: list[list[Turn]],
) -> None:
    for last, turn in (pair for talk in talks for pair in pairwise(talk)):
        request = last.request
        bytes_before = (request.prompt_tokens + request.output_tokens) * TOKEN_BYTES
        known = bytes_before - MARKERS * last.messages - OPENING
        assert shared(last.after, turn.seen) == known // BLOCK_BYTES


def test_sessions_have_in_common_what_their_blocks_say_in_the_engine_and_in_the_mirror(
    talks: list[list[Turn]],
) -> None:
    found = set()
    firsts = [talk[0] for talk in talks]
    for index, one in enumerate(firsts):
        for other in firsts[:index]:
            expected = shared(one.request.blocks, other.request.blocks)
            found.add(expected)
            assert shared(one.engine_blocks(BLOCK), other.engine_blocks(BLOCK)) == expected
            assert shared(one.engine_blocks(16), other.engine_blocks(16)) * 16 // BLOCK == expected
            # Their own text may begin in the block that the markers have pushed back, but no block more is equal.
            assert min(len(one.seen), len(other.seen), expected) <= shared(one.seen, other.seen) <= expected
    assert len(found) > 3  # with and without a common system prompt, of several lengths


def test_what_is_too_short_for_a_chat_is_refused() -> None:
    blocks = array("Q", [1])
    with pytest.raises(ValueError, match="too short"):
        Chat().ask(Request(1, 0.0, 40, 5, blocks[:0], BLOCK))


def test_a_turn_without_room_for_its_message_is_made_up_for_by_the_next() -> None:
    chat = Chat()
    chat.ask(Request(1, 0.0, 200, 10, array("Q", [1, 2, 3]), BLOCK))
    chat.answered("word" * 10)
    tight = engine.chat(json.dumps(chat.ask(Request(2, 0.0, 211, 10, array("Q"), BLOCK))).encode())
    assert tokens_in(tight.prompt) > 211 - 10
    chat.answered("word" * 10)
    roomy = engine.chat(json.dumps(chat.ask(Request(3, 0.0, 300, 10, array("Q"), BLOCK))).encode())
    assert tokens_in(roomy.prompt) == 300
