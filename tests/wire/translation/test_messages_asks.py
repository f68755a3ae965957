"""Anthropic's Messages API as it is asked: bodies of coding agents are read, and those of chats are written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.translation.strategies import conversations

from spillway_balancer.core.errors import BadRequest
from spillway_balancer.wire.translation import claude
from spillway_balancer.wire.translation.conversation import (
    Conversation,
    Media,
    Reasoning,
    Shape,
    Text,
    Thought,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)
from spillway_balancer.wire.translation.messages_asks import ASKING, PATH, tool_id

Golden = Callable[[str], bytes]

NEW, OLD = "claude-opus-5", "claude-sonnet-4-5-20250929"
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds0c2bWRvd25sb2Fk"
HELLO = (Turn("user", (Text("Hello"),)),)
BASH = Tool("Bash", b'{"type":"object"}')


def read(body: bytes | dict[str, Any]) -> Conversation:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert ASKING.read is not None
    return ASKING.read(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))


def written(asked: Conversation, model: str = NEW) -> dict[str, Any]:
    path, body = ASKING.write(asked, model)
    assert path == PATH
    values: dict[str, Any] = json.loads(body)
    return values


def test_an_agents_body_is_read(golden: Golden) -> None:
    asked = read(golden("translation/messages/agent.json"))
    assert asked.system == (
        Text("You are an agent that works in a terminal."),
        Text("Working directory: /home/me/app", True, "1h"),
    )
    assert [tool.name for tool in asked.tools] == ["Bash", "Read"]
    assert (asked.tools[1].strict, asked.tools[1].cached) == (True, True)
    assert json.loads(asked.tools[0].schema)["required"] == ["command"]
    assert asked.choice == ToolChoice("auto", None, False)
    assert asked.reasoning == Reasoning(tokens=31999)
    assert (asked.max_tokens, asked.temperature, asked.stream) == (32000, 1.0, True)
    assert asked.user == "user_1_account__session_2"
    assert asked.turns[1].parts == (
        Thought("First look.", SIGNATURE),
        Thought(sealed="EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIw"),
        Text("I look at it."),
        ToolUse("toolu_01", "Bash", b'{"command": "pytest -x"}'),
        ToolUse("toolu_02", "Read", b'{"path": "app.py"}'),
    )
    assert asked.turns[2].parts == (
        ToolResult("toolu_01", (Text("1 failed"),), failed=True),
        ToolResult("toolu_02", (Text("import time"), Media("iVBORw0KGgo=", kind="image/png")), cached=True),
        Text("Mind the clock."),
        Media(url="https://example.com/a.jpg"),
        Media("R3LDtsOfZQ==", kind="text/plain", name="notes.txt"),
    ), "results of tools come before what the user says"
    assert set(asked.extras) == {
        "context_management",
        "tools[2].web_search_20250305",
        "messages[2].content[5].source.file",
    }


def test_an_agents_body_is_written_again_but_for_what_is_elsewhere(golden: Golden) -> None:
    asked = read(golden("translation/messages/agent.json"))._replace(extras={})
    body = written(asked, OLD)
    came = json.loads(golden("translation/messages/agent.json"))
    assert body["messages"][0] == came["messages"][0]
    assert body["messages"][1] == came["messages"][1]
    assert body["messages"][2]["content"][1] == came["messages"][2]["content"][2]
    assert body["system"] == came["system"]
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 32000 - 1024}, "room for an answer is left"
    assert body["tool_choice"] == came["tool_choice"]
    assert [tool["name"] for tool in body["tools"]] == ["Bash", "Read"]
    assert read(json.dumps(body).encode()).turns == asked.turns


@given(conversations(), st.sampled_from([NEW, OLD, "claude-opus-4-6"]))
def test_what_is_written_is_read_as_it_was(asked: Conversation, model: str) -> None:
    assert ASKING.uncarried(asked) == ()
    again = read(ASKING.write(asked, model).body)
    sampled = claude.model(model).samples and again.reasoning in (None, Reasoning("none"))
    assert again == asked._replace(
        max_tokens=asked.max_tokens or claude.model(model).most_tokens,
        temperature=asked.temperature if sampled else None,
        top_p=asked.top_p if sampled and asked.temperature is None else None,
        reasoning=again.reasoning,
        shape=asked.shape and Shape(asked.shape.schema),
    )
    if asked.reasoning is None:
        assert again.reasoning is None
    elif model == NEW and (asked.choice is None or asked.choice.mode in ("auto", "none")):
        assert again.reasoning is not None
        assert again.reasoning.effort == asked.reasoning.effort


KEYS = ["role", "content", "type", "text", "source", "input", "data", "name"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "text", "tool_result", "image", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["messages", "system", "tools", "max_tokens", "thinking", "tool_choice"]


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_whatever_comes_is_read_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(BadRequest):
        read(body)


def block(**fields: Any) -> dict[str, Any]:
    return {"max_tokens": 1, "messages": [{"role": fields.pop("role", "user"), "content": [fields]}]}


def field(name: str, value: Any) -> dict[str, Any]:
    return {"max_tokens": 1, "messages": [], name: value}


CALL = {"type": "tool_use", "id": "a", "name": "b", "input": {}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "max_tokens"),
        ({"max_tokens": 1}, "messages"),
        (field("max_tokens", -1), "max_tokens"),
        (field("messages", [{"role": "tool", "content": "x"}]), "messages[0].role"),
        (block(type="text"), "messages[0].content[0].text"),
        (block(type="text", text=5), "messages[0].content[0].text"),
        (block(role="assistant", **{**CALL, "input": "{}"}), "messages[0].content[0].input"),
        (block(type="tool_result", tool_use_id="a", content=[CALL]), "messages[0].content[0].content"),
        (block(type="tool_result"), "messages[0].content[0].tool_use_id"),
        (block(type="image"), "messages[0].content[0].source"),
        (field("system", [{"type": "image"}]), "system[0].type"),
        (field("tools", [{"name": "a"}]), "tools[0].input_schema"),
        (field("tools", [{"input_schema": {}}]), "tools[0].name"),
        (field("tool_choice", {"type": "tool"}), "tool_choice.name"),
        (field("tool_choice", {"type": "required"}), "tool_choice.type"),
        (field("thinking", {"type": "enabled"}), "thinking.budget_tokens"),
        (field("thinking", {"type": "much"}), "thinking.type"),
        (field("output_config", {"effort": "huge"}), "output_config.effort"),
        (field("output_config", {"format": {"type": "json_object"}}), "output_config.format"),
    ],
)
def test_what_the_api_does_not_allow_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(body)
    assert refused.value.param == param
    assert param in refused.value.message


def test_what_has_no_place_is_named() -> None:
    pdf = {"type": "url", "url": "https://example.com/a.pdf"}
    caller = "code_execution_20260120"
    body = {
        "max_tokens": 0,
        "messages": [
            {"role": "user", "content": [
                {"type": "document", "source": pdf, "citations": {"enabled": True}, "context": "an old one"},
                {"type": "search_result", "source": "https://example.com", "title": "x", "content": []},
            ]},
            {"role": "assistant", "content": [{**CALL, "type": "server_tool_use"}]},
        ],
        "tools": [{"name": "a", "input_schema": {}, "defer_loading": True, "allowed_callers": [caller]}],
        "container": "c_1",
        "mcp_servers": None,
        "output_config": {"effort": "xhigh", "task_budget": {"type": "tokens", "total": 5}},
    }  # fmt: skip
    asked = read(body)
    assert set(asked.extras) == {
        "max_tokens",
        "messages[0].content[0].citations",
        "messages[0].content[0].context",
        "messages[0].content[1].search_result",
        "messages[1].content[0].server_tool_use",
        "tools[0].defer_loading",
        "tools[0].allowed_callers",
        "container",
        "output_config.task_budget",
    }
    assert asked.reasoning == Reasoning("xhigh")
    assert asked.turns[0].parts == (Media(url="https://example.com/a.pdf", kind="application/pdf"),)
    assert all(msgspec.json.decode(raw) for name, raw in asked.extras.items() if name != "max_tokens")


@pytest.mark.parametrize(
    ("thinking", "config", "reasoning"),
    [
        (None, None, None),
        ({"type": "adaptive"}, None, Reasoning(adaptive=True)),
        ({"type": "adaptive", "display": "omitted"}, {"effort": "max"}, Reasoning("max", adaptive=True, shown=False)),
        ({"type": "enabled", "budget_tokens": 4096}, {"effort": "low"}, Reasoning("low", 4096)),
        ({"type": "disabled"}, {"effort": "low"}, Reasoning("none")),
        ({"type": "between_tools"}, None, Reasoning("none")),
        (None, {"effort": "medium"}, Reasoning("medium")),
    ],
)
def test_how_much_to_think_is_read(thinking: Any, config: Any, reasoning: Reasoning | None) -> None:
    body = {"max_tokens": 5, "messages": [], "thinking": thinking, "output_config": config}
    assert read({name: value for name, value in body.items() if value is not None}).reasoning == reasoning


def test_a_schema_is_read_from_where_it_was_in_the_beta_too() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    for body in ({"output_config": {"format": {"type": "json_schema", "schema": schema}}},
                 {"output_format": {"type": "json_schema", "schema": schema}}):  # fmt: skip
        shape = read({"max_tokens": 5, "messages": [], **body}).shape
        assert shape is not None
        assert shape.schema is not None
        assert json.loads(shape.schema) == schema


def test_a_chat_becomes_a_body() -> None:
    asked = Conversation(
        turns=(
            Turn("user", (Text("What is the weather?"),)),
            Turn("assistant", (Text(""), ToolUse("call_1", "weather", b'{"city":"Bern"}'))),
            Turn("user", (ToolResult("call_1", (Text("12 C"),)),)),
            Turn("user", (Text("And tomorrow?"), Media(url="https://example.com/a.png"))),
        ),
        system=(Text("Be brief."),),
        tools=(Tool("weather", b'{"type":"object"}', "Tells the weather."),),
        choice=ToolChoice("auto", None, False),
        temperature=1.7,
        top_p=0.9,
        stop=("END",),
        stream=True,
        user="someone",
    )
    assert written(asked, OLD) == {
        "model": OLD,
        "max_tokens": 32000,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "What is the weather?"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bern"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "12 C"},
                {"type": "text", "text": "And tomorrow?"},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]},
        ],
        "tools": [{"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "temperature": 1.0,
        "metadata": {"user_id": "someone"},
        "stream": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "generation", "most"),
    [
        ("claude-3-haiku-20240307", (3, 0), 4_096),
        ("claude-3-5-sonnet-20241022", (3, 5), 8_192),
        ("claude-3-7-sonnet-latest", (3, 7), 32_000),
        ("claude-opus-4-20250514", (4, 0), 32_000),
        ("claude-opus-4@20250514", (4, 0), 32_000),
        ("claude-opus-4-1-20250805", (4, 1), 32_000),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", (4, 5), 32_000),
        ("us.anthropic.claude-opus-4-6-v1", (4, 6), 32_000),
        ("anthropic/claude-opus-4.8", (4, 8), 32_000),
        ("claude-opus-5", (5, 0), 32_000),
        ("our-coder", claude.NEWEST, 32_000),
    ],
)
def test_generations_are_read_off_names(model: str, generation: tuple[int, int], most: int) -> None:
    assert claude.generation(model) == generation
    assert written(Conversation(HELLO), model)["max_tokens"] == most


def test_thinking_is_asked_for_as_the_model_takes_it() -> None:
    high = Conversation(HELLO, reasoning=Reasoning("high"), temperature=0.5, top_k=5)
    assert written(high, OLD)["thinking"] == {"type": "enabled", "budget_tokens": 24_576}
    assert "temperature" not in written(high, OLD), "a model that thinks takes none"
    assert "top_k" not in written(high, OLD)
    assert written(high, NEW)["thinking"] == {"type": "adaptive"}
    assert written(high, NEW)["output_config"] == {"effort": "high"}
    budget = Conversation(HELLO, reasoning=Reasoning(tokens=10_000, shown=True))
    assert written(budget, OLD)["thinking"] == {"type": "enabled", "budget_tokens": 10_000, "display": "summarized"}
    assert written(budget, NEW)["output_config"] == {"effort": "medium"}
    none = Conversation(HELLO, reasoning=Reasoning("none"), temperature=0.5)
    for model in (OLD, NEW):
        assert written(none, model)["thinking"] == {"type": "disabled"}
    assert written(none, OLD)["temperature"] == 0.5


def test_a_limit_on_the_answer_holds_for_its_thoughts() -> None:
    def thinking(most: int) -> Any:
        return written(Conversation(HELLO, max_tokens=most, reasoning=Reasoning("high")), OLD).get("thinking")

    assert thinking(10_000) == {"type": "enabled", "budget_tokens": 10_000 - 1_024}
    assert thinking(2_048) == {"type": "enabled", "budget_tokens": 1_024}
    assert thinking(2_047) is None, "less than Anthropic takes"


def test_a_tool_that_is_demanded_counts_for_more_than_thinking() -> None:
    for choice in (ToolChoice("any"), ToolChoice("named", "Bash")):
        asked = Conversation(HELLO, tools=(BASH,), choice=choice, reasoning=Reasoning("high"))
        for model in (OLD, NEW):
            assert written(asked, model)["thinking"] == {"type": "disabled"}


def test_thoughts_of_others_are_left_out_and_the_loop_goes_on_without() -> None:
    def loop(*thoughts: Thought) -> Conversation:
        turns = (
            *HELLO,
            Turn("assistant", (*thoughts, ToolUse("a", "Bash"))),
            Turn("user", (ToolResult("a", ()),)),
        )
        return Conversation(turns, tools=(BASH,), reasoning=Reasoning("low"))

    theirs = loop(Thought("Hm.", SIGNATURE))
    assert written(theirs, OLD)["messages"][1]["content"][0]["signature"] == SIGNATURE
    assert written(theirs, OLD)["thinking"]["type"] == "enabled"
    sealed = Thought(sealed="EmwKAhgBEgy3va3pzix/LafPsn4a")
    assert written(loop(sealed), OLD)["messages"][1]["content"][0]["type"] == "redacted_thinking"
    others = [Thought(sealed="xai-responses-v1:abc"), Thought("Hm.", f"google-gemini-v1:{SIGNATURE}")]
    for foreign in (*others, Thought("Hm."), Thought("Hm.", ""), Thought("Hm.", "5f2b0c9c6f1e4c0e9d2f4d3d7a1b2c3d")):
        assert not claude.own(foreign)
        body = written(loop(foreign), OLD)
        assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]
        assert "thinking" not in body, "it would be refused: the call has no thought before it"
        assert written(loop(foreign), NEW)["thinking"] == {"type": "adaptive"}


def test_ids_of_calls_fit_and_are_used_once() -> None:
    assert tool_id("call_1") == "call_1"
    assert tool_id("functions.bash:0") != tool_id("functions_bash:0")
    turns = (
        *HELLO,
        Turn("assistant", (ToolUse("functions.bash:0", "bash"),)),
        Turn("user", (ToolResult("functions.bash:0", (Text("1"),)),)),
        Turn("assistant", (ToolUse("functions.bash:0", "bash"), ToolUse("call_0", "bash"))),
        Turn("user", (ToolResult("call_0", (Text("3"),)), ToolResult("functions.bash:0", (Text("2"),)))),
    )
    messages = written(Conversation(turns, tools=(BASH,)))["messages"]
    calls = [block["id"] for message in messages[1::2] for block in message["content"]]
    assert len(set(calls)) == 3
    assert messages[2]["content"][0]["tool_use_id"] == calls[0]
    assert [block["tool_use_id"] for block in messages[4]["content"]] == [calls[2], calls[1]]


def test_arguments_that_are_no_object_do_not_break_the_body() -> None:
    turns = (
        *HELLO,
        Turn("assistant", (ToolUse("a", "Bash", b'{"command": "ls'),)),
        Turn("user", (ToolResult("a", ()),)),
    )
    block = written(Conversation(turns, tools=(BASH,)))["messages"][1]["content"][0]
    assert block["input"] == {"arguments": '{"command": "ls'}


def test_arguments_of_tools_are_objects_though_nobody_says_so() -> None:
    for schema in (b"{}", b'{"properties":{"a":{"type":"string"}}}'):
        tools = written(Conversation(HELLO, tools=(Tool("a", schema),)))["tools"]
        assert tools[0]["input_schema"] == {"type": "object", **json.loads(schema)}


def test_tools_that_were_used_are_told_of_where_none_is_offered_any_more() -> None:
    turns = (*HELLO, Turn("assistant", (ToolUse("a", "Bash"),)), Turn("user", (ToolResult("a", ()),)))
    body = written(Conversation(turns))
    assert body["tools"] == [{"name": "Bash", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}
    assert "tools" not in written(Conversation(HELLO, choice=ToolChoice("none")))


def test_instructions_that_stand_alone_are_what_is_asked() -> None:
    for asked in (Conversation((), (Text("Tell a joke."),)), Conversation((Turn("system", (Text("Tell a joke."),)),))):
        body = written(asked)
        assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke."}]}]
        assert "system" not in body


def test_the_system_speaks_in_its_place_where_the_model_listens_and_first_elsewhere() -> None:
    later = Turn("system", (Text("Answer in French."),))
    asked = Conversation((*HELLO, later, Turn("assistant", (Text("Salut"),)), *HELLO, later), (Text("Be brief."),))
    assert [message["role"] for message in written(asked, NEW)["messages"]] == [
        "user", "system", "assistant", "user", "system",
    ]  # fmt: skip
    body = written(asked, OLD)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in body["system"]] == ["Be brief.", "Answer in French.", "Answer in French."]
    between = Conversation((*HELLO, later, *HELLO))
    assert written(between, NEW)["system"] == "Answer in French.", "not where the user goes on"
    assert len(written(between, NEW)["messages"]) == 1


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (Conversation(HELLO, stop=("\n\n",)), ("stop",)),
        (Conversation(HELLO, shape=Shape()), ("response_format",)),
        (Conversation((*HELLO, Turn("assistant", (Text("Hi"),)), Turn("system", (Text("Go on."),)))), ("messages",)),
        (Conversation((*HELLO, Turn("assistant", (Text("Hi"),)))), ("messages",)),
        (Conversation((Turn("user", (Media("AAAA", kind="image/bmp"),)),)), ("messages[].content[].image_url",)),
        (Conversation((Turn("user", (Media("AAAA", kind="audio/wav"),)),)), ("messages[].content[].file",)),
        (Conversation((Turn("user", (Media(url="ftp://example.com/a.png"),)),)), ("messages[].content[].image_url",)),
    ],
)
def test_what_cannot_be_said_is_named(asked: Conversation, names: tuple[str, ...]) -> None:
    assert ASKING.uncarried(asked) == names


def test_fields_that_change_nothing_are_left_out_and_others_are_named() -> None:
    fields = {
        "n": b"2", "logprobs": b"true", "logit_bias": b'{"5":1}', "guided_json": b"{}", "frequency_penalty": b"0.5",
    }  # fmt: skip
    needed = {name: msgspec.Raw(raw) for name, raw in fields.items()}
    assert ASKING.uncarried(Conversation(HELLO, extras=needed)) == tuple(needed)
    fields = {
        "n": b"1", "logprobs": b"false", "logit_bias": b"null", "frequency_penalty": b"0", "seed": b"5",
        "store": b"true", "metadata": b"{}", "stream_options": b'{"include_usage":true}', "service_tier": b'"auto"',
    }  # fmt: skip
    idle = Conversation(HELLO, extras={name: msgspec.Raw(raw) for name, raw in fields.items()})
    assert ASKING.uncarried(idle) == ()
    assert set(written(idle)) == {"model", "max_tokens", "messages"}
