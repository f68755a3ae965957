"""Sessions that come to Anthropic from elsewhere: only what it would refuse is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire import json_body
from spillway_balancer.wire.providers.anthropic import own_thoughts
from spillway_balancer.wire.translation.messages_heard import UNSIGNED

SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds0c2bWRvd25sb2Fk"
ENABLED = {"type": "enabled", "budget_tokens": 2000}
ASKED = {"role": "user", "content": "Fix it."}
ANSWERED = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]}
CALL = {"type": "tool_use", "id": "toolu_01A", "name": "Bash", "input": {"thinking": "a \\"}}


def thought(signature: str | None) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "Hm.", "signature": signature}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


class Body:
    """The two things that are looked at of a request's body."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.read = json_body.read(body)

    def values(self) -> Any:
        return self.read.values

    def spans(self) -> Any:
        return self.read.spans

    def changed(self) -> Any:
        body = self.body
        for first, last, new in sorted(own_thoughts(self), reverse=True):  # type: ignore[arg-type]
            body = body[:first] + new + body[last:]
        return json.loads(body)


def sent(*messages: Any, indent: int | None = None, **fields: Any) -> Any:
    return Body(json.dumps({"model": "m", **fields, "messages": messages}, indent=indent).encode()).changed()


@pytest.mark.parametrize("signature", [UNSIGNED, "", None, "5f2b0c9c6f1e4c0e9d2f4d3d7a1b2c3d"])
def test_thoughts_of_others_are_left_out(signature: str | None) -> None:
    text = {"type": "text", "text": 'He said "thinking".'}
    body = sent(ASKED, said(thought(signature), text), ASKED, said(thought(SIGNATURE), text), ASKED, indent=2)
    assert body["messages"] == [ASKED, said(text), ASKED, said(thought(SIGNATURE), text), ASKED]


def test_what_others_have_sealed_is_left_out() -> None:
    sealed = {"type": "redacted_thinking", "data": "openai-responses-v1:gAAAAABo"}
    assert sent(ASKED, said(sealed), ASKED)["messages"] == [ASKED, ASKED]


def test_a_turn_of_nothing_else_goes_with_them() -> None:
    assert sent(ASKED, said(thought("")), ASKED)["messages"] == [ASKED, ASKED]


def test_a_session_that_was_always_there_goes_as_it_came() -> None:
    sealed = {"type": "redacted_thinking", "data": "abc"}
    for first in (thought(SIGNATURE), sealed):
        body = Body(json.dumps({"thinking": ENABLED, "messages": [ASKED, said(first, CALL), ANSWERED]}).encode())
        assert own_thoughts(body) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("blocks", [(CALL,), (thought(UNSIGNED), CALL), ({"type": "text", "text": "Well."}, CALL)])
def test_a_loop_that_began_without_a_thought_goes_on_without(blocks: tuple[Any, ...]) -> None:
    body = sent(ASKED, said(*blocks), ANSWERED, said(thought(SIGNATURE), CALL), ANSWERED, thinking=ENABLED)
    assert body["thinking"] == {"type": "disabled"}
    assert sent(ASKED, said(*blocks), ANSWERED, thinking={"type": "adaptive"})["thinking"] == {"type": "adaptive"}


def test_a_loop_that_was_gone_on_with_elsewhere_goes_on_without() -> None:
    loop = [ASKED, said(thought(SIGNATURE), CALL), ANSWERED, said(thought(UNSIGNED), CALL), ANSWERED]
    assert sent(*loop, thinking=ENABLED)["thinking"] == {"type": "disabled"}
    loop[3] = said(CALL)
    assert sent(*loop, thinking=ENABLED)["thinking"] == ENABLED, "as Anthropic itself goes on"
    loop[3] = said(CALL | {"id": "call_1"})
    assert sent(*loop, thinking=ENABLED)["thinking"] == {"type": "disabled"}, "as another model goes on"


def test_a_loop_that_is_over_does_not_count() -> None:
    for later in (ASKED, {"role": "user", "content": [{"type": "text", "text": "Thanks."}]}):
        body = sent(ASKED, said(CALL), ANSWERED, said({"type": "text", "text": "Done."}), later, thinking=ENABLED)
        assert body["thinking"] == ENABLED


@given(
    st.recursive(
        st.none() | st.integers() | st.sampled_from(["thinking", "enabled", "user", "assistant", "tool_use"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "role", "content", "signature", "thinking"]), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    st.none() | st.just(ENABLED) | st.integers(),
)
def test_what_is_no_conversation_is_left_to_be_refused(messages: Any, thinking: Any) -> None:
    body = {"thinking": thinking, "messages": messages}
    changed = Body(json.dumps(body).encode()).changed()
    assert changed.keys() == body.keys()
    if not isinstance(messages, list):
        assert changed == body
