"""What the engine reads and says: laws that make prefix caching on it mean what it means on a real one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.engine import text

messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=200)}),
    min_size=1,
    max_size=6,
)


@given(messages, st.integers(1, 300), st.text(max_size=80))
def test_the_next_turn_begins_with_prompt_and_answer(history: list[dict[str, Any]], tokens: int, said: str) -> None:
    prompt = text.render_chat(history)
    answer = text.Answer(prompt, tokens)
    following = text.render_chat(
        [*history, {"role": "assistant", "content": answer.text}, {"role": "user", "content": said}]
    )
    assert following.startswith(prompt + answer.text.encode())


@given(messages, st.integers(1, 300), st.text(max_size=80), st.sampled_from([1, 4, 16]))
def test_the_next_turn_has_all_blocks_of_the_last_one(
    history: list[dict[str, Any]], tokens: int, said: str, size: int
) -> None:
    prompt = text.render_chat(history)
    answer = text.Answer(prompt, tokens)
    once = text.block_hashes(prompt + answer.text.encode(), 7, size)
    following = text.render_chat(
        [*history, {"role": "assistant", "content": answer.text}, {"role": "user", "content": said}]
    )
    assert text.block_hashes(following, 7, size)[: len(once)] == once


@given(st.binary(min_size=4, max_size=300), st.integers(0, 200))
def test_bytes_and_tokens_stay_in_step(prompt: bytes, tokens: int) -> None:
    answer = text.Answer(prompt, tokens)
    if tokens:
        assert len(prompt) + len(answer.text) == 4 * (text.tokens_in(prompt) + tokens)
    assert "".join(answer.piece(i, i + 1) for i in range(tokens)) == answer.text
    assert all(answer.piece(i, i + 1) for i in range(tokens))
    assert answer.text.isascii()


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_equal_hashes_mean_equal_prefixes(one: bytes, other: bytes) -> None:
    a, b = text.block_hashes(one, 0, 4), text.block_hashes(other, 0, 4)
    for index, (left, right) in enumerate(zip(a, b, strict=False)):
        assert (left == right) == (one[: 16 * (index + 1)] == other[: 16 * (index + 1)])


def test_models_and_salts_share_no_cache() -> None:
    spaces = {text.namespace("a"), text.namespace("b"), text.namespace("a", "tenant")}
    assert len(spaces) == 3


def test_pictures_and_tools_take_part_in_the_prompt() -> None:
    def prompt(url: str, tools: Any = None) -> bytes:
        part = {"type": "image_url", "image_url": {"url": url}}
        return text.render_chat([{"role": "user", "content": ["look", part]}], tools)

    assert prompt("one") != prompt("two")
    assert prompt("one") == prompt("one")
    assert text.tokens_in(prompt("one")) > 256
    assert prompt("one", [{"type": "function"}]) != prompt("one")


def test_same_prompt_same_answer_whoever_gives_it() -> None:
    assert text.Answer(b"some prompt", 40).text == text.Answer(b"some prompt", 40).text
    assert text.Answer(b"some prompt", 40).text != text.Answer(b"some prompT", 40).text
    assert 24 <= text.drawn_length(b"some prompt") == text.drawn_length(b"some prompt") <= 256


def test_vectors_are_of_length_one() -> None:
    vector = text.vector(b"text", 100)
    assert len(vector) == 100
    assert sum(part * part for part in vector) == pytest.approx(1.0)
    assert vector != text.vector(b"texts", 100)
