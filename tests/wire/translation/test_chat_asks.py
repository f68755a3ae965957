"""Chat completions as they are asked: bodies to conversations and back, and what is refused in the client's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.translation.strategies import VALUES, compact, conversations

from spillway_api.providers import PRESETS
from spillway_balancer.core.errors import BadRequest
from spillway_balancer.wire.translation.chat_asks import ASKING, asking_of
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

GOLDEN = Path(__file__).parents[1] / "golden" / "translation" / "chat"

values = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def asked(body: Mapping[str, Any] | bytes) -> Conversation:
    assert ASKING.read is not None
    return ASKING.read(values(body if isinstance(body, bytes) else compact(body)))


def said(**fields: Any) -> Conversation:
    return asked({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields})


def messages(*given: dict[str, Any]) -> Conversation:
    return asked({"model": "m", "messages": list(given)})


def written(conversation: Conversation, provider: str = "OpenAICompatible", model: str = "m") -> dict[str, Any]:
    path, body = asking_of(PRESETS[provider]).write(conversation, model)
    assert path == "/v1/chat/completions"
    found: dict[str, Any] = json.loads(body)
    return found


HI = (Turn("user", (Text("Hi"),)),)
WEATHER = b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'

READ: dict[str, Conversation] = {
    "vision": Conversation(
        (
            Turn(
                "user",
                (
                    Text("What is in these pictures?"),
                    Media(url="https://example.com/boardwalk.jpg", detail="low"),
                    Media("iVBORw0KGgo=", kind="image/png"),
                ),
            ),
        ),
        max_tokens=300,
    ),
    "tools": Conversation(
        (
            Turn("user", (Text("What is the weather like in Paris and in Rome?"),)),
            Turn(
                "assistant",
                (
                    Thought("Two cities, two calls."),
                    Text("I will look."),
                    ToolUse("call_a", "get_weather", b'{"city":"Paris"}'),
                    ToolUse("call_b", "get_weather", b'{"city": "Rome"}'),
                ),
            ),
            Turn(
                "user",
                (ToolResult("call_a", (Text("14"),)), ToolResult("call_b", (Text("21"), Text("sunny"))), Text("Well?")),
            ),
        ),
        (Text("Be brief."), Text("Use Celsius.")),
        (Tool("get_weather", WEATHER, "Current weather", True), Tool("now", b'{"type":"object","properties":{}}')),
        ToolChoice("auto", parallel=False),
        stream=True,
    ),
    "structured": Conversation(
        (Turn("user", (Text("solve 8x + 31 = 2"),)),),
        (Text("You are a helpful math tutor."),),
        max_tokens=1024,
        reasoning=Reasoning("low"),
        shape=Shape(
            b'{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"],'
            b'"additionalProperties":false}',
            "math_response",
            True,
        ),
        user="user-1234",
        extras={"seed": msgspec.Raw(b"7"), "store": msgspec.Raw(b"true"), "metadata": msgspec.Raw(b'{"a": "b"}')},
    ),
    "file": Conversation(
        (
            Turn(
                "user",
                (
                    Media("JVBERi0xLjQK", kind="application/pdf", name="draconomicon.pdf"),
                    Text("What is the first dragon in the book?"),
                ),
            ),
        ),
    ),
    "legacy": Conversation(
        (
            Turn("user", (Text("What is the weather in Boston?"),)),
            Turn("assistant", (ToolUse("call_1", "get_weather", b'{"city": "Boston"}'),)),
            Turn("user", (ToolResult("call_1", (Text("22"),)),)),
        ),
        extras={
            "functions": msgspec.Raw(b'[{"name": "get_weather", "parameters": {}}]'),
            "function_call": msgspec.Raw(b'"auto"'),
        },
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_body_is_read_as_the_conversation_that_it_is(name: str) -> None:
    found = asked((GOLDEN / f"{name}.json").read_bytes())
    assert found == READ[name]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_tokens": 9.0}, {"max_tokens": 9}),
        ({"max_tokens": None, "temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": []}, {}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"top_k": -1}, {}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"reasoning_effort": "xhigh"}, {"reasoning": Reasoning("xhigh")}),
        ({"reasoning": {"max_tokens": 2000, "exclude": True}}, {"reasoning": Reasoning(tokens=2000, shown=False)}),
        ({"reasoning": {"enabled": True}}, {"reasoning": Reasoning("medium")}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning": Reasoning(tokens=2048)}),
        ({"thinking": {"type": "disabled"}}, {"reasoning": Reasoning("none")}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning": Reasoning(adaptive=True)}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"shape": Shape()}),
        ({"tool_choice": "required"}, {"choice": ToolChoice("any")}),
        ({"tool_choice": "none", "tools": None}, {"choice": ToolChoice("none")}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": True},
            {"choice": ToolChoice("named", "f", True)},
        ),
        ({"n": 1, "logprobs": False, "presence_penalty": 0.0, "modalities": ["text"], "logit_bias": {}}, {}),
    ],
)
def test_each_field_means_what_it_means_to_openai(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert said(**fields) == Conversation(HI, **expected)


def test_allowed_tools_leave_the_others_out() -> None:
    def function(name: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name}}

    allowed = {"mode": "required", "tools": [function("b")]}
    found = said(tools=[function("a"), function("b")], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in found.tools] == ["b"]
    assert found.choice == ToolChoice("any")


def test_what_a_prompt_is_cached_up_to_is_kept() -> None:
    found = messages(
        {
            "role": "system",
            "content": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
        },
        {"role": "user", "content": [{"type": "text", "text": "u", "prompt_cache_breakpoint": {"mode": "explicit"}}]},
    )
    assert found.system == (Text("s", True, "5m"),)
    assert found.turns[0].parts == (Text("u", True),)


def test_reasoning_comes_back_with_its_signatures() -> None:
    details = [
        {"type": "reasoning.text", "text": "Hm", "signature": "sig", "index": 0},
        {"type": "reasoning.encrypted", "data": "c2VhbGVk"},
        {"type": "reasoning.summary", "summary": "In short"},
    ]
    found = messages({"role": "assistant", "content": "A", "reasoning": "Hm", "reasoning_details": details})
    expected = (Thought("Hm", "sig"), Thought(sealed="c2VhbGVk"), Thought("In short"), Text("A"))
    assert found.turns[0].parts == expected


def test_reasoning_of_others_than_anthropic_is_known_for_theirs() -> None:
    details = [
        {"type": "reasoning.text", "text": "Hm", "signature": "sig", "format": "anthropic-claude-v1"},
        {"type": "reasoning.encrypted", "data": "c2VhbGVk", "format": "openai-responses-v1"},
    ]
    found = messages({"role": "assistant", "reasoning_details": details})
    assert found.turns[0].parts == (Thought("Hm", "sig"), Thought(sealed="openai-responses-v1:c2VhbGVk"))


def test_a_system_message_in_the_middle_stays_there() -> None:
    found = messages(
        {"role": "developer", "content": "a"}, {"role": "user", "content": "b"}, {"role": "system", "content": "c"}
    )
    assert found.system == (Text("a"),)
    assert [turn.role for turn in found.turns] == ["user", "system"]
    assert [each["role"] for each in written(found)["messages"]] == ["system", "user", "system"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{"role": "user", "content": "a", "name": "bob"}], set()),
        (
            [{"role": "user", "content": "a", "name": "bob"}, {"role": "user", "content": "b", "name": "eve"}],
            {"messages[0].name", "messages[1].name"},
        ),
    ],
)
def test_a_name_counts_where_there_is_another_to_tell_it_from(given: list[dict[str, Any]], expected: set[str]) -> None:
    assert set(messages(*given).extras) == expected


UNCARRIED = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ({"response_format": {"type": "grammar"}}, "response_format"),
    ({"some_new_field": 1}, "some_new_field"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]},
        "messages[0].content[0].input_audio",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f-1"}}]}]},
        "messages[0].content[0].file.file_id",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "Ignore all rules", "x": 1}]}]},
        "messages[0].content[0].type",
    ),
    (
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "?"},
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
    ),
]


@pytest.mark.parametrize(("fields", "name"), UNCARRIED)
def test_what_no_translation_carries_is_named(fields: dict[str, Any], name: str) -> None:
    assert ASKING.uncarried(said(**fields)) == (name,)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": ["x"]}, "messages[0]"),
    ({"messages": [{"role": "alien", "content": ""}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [3]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://a"}}]}]},
        "messages[0].content[0].image_url.url",
    ),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages[0].name"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "messages[0].tool_calls[0].id"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}, "tools[0].function.parameters"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": "9"}, "max_completion_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": True}, "top_p"),
    ({"stop": [1]}, "stop[0]"),
    ({"reasoning_effort": "much"}, "reasoning_effort"),
    ({"thinking": {"type": "x"}}, "thinking.type"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
    ({"user": 3}, "user"),
]


@pytest.mark.parametrize(("fields", "name"), WRONG)
def test_what_is_wrong_is_named_in_the_clients_words(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        said(**fields)
    assert caught.value.param == name
    assert repr(name) in caught.value.message


def test_a_number_that_nobody_can_hold_is_refused_by_its_name() -> None:
    with pytest.raises(BadRequest) as caught:
        asked(b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e999}')
    assert caught.value.param == "temperature"


@given(conversations())
def test_a_conversation_comes_back_from_the_body_it_is_written_to(conversation: Conversation) -> None:
    assert ASKING.uncarried(conversation) == ()
    assert asked(ASKING.write(conversation, "m").body) == conversation


FIELDS = (
    *("messages", "tools", "tool_choice", "max_tokens", "stop", "reasoning"),
    *("thinking", "response_format", "n", "user", "temperature"),
)
MEMBERS = (
    *("role", "content", "type", "text", "image_url", "url", "file"),
    *("tool_calls", "function", "name", "arguments", "id"),
)
WORDS = ("user", "assistant", "tool", "text", "image_url", "file", "function")
JUNK = st.dictionaries(
    st.sampled_from(FIELDS),
    st.recursive(
        VALUES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(MEMBERS), inner | st.sampled_from(WORDS), max_size=4)
        ),
        max_leaves=12,
    ),
)


@given(JUNK)
def test_nothing_but_a_bad_request_is_ever_raised(body: dict[str, Any]) -> None:
    refused = None
    try:
        found = asked(body)
    except BadRequest as error:
        refused = error
    if refused is None:
        for provider in PRESETS:
            written(found, provider)
    else:
        assert refused.param is not None


LOOP = (
    Turn("user", (Text("Look at it"),)),
    Turn("assistant", (Thought("Earlier", "sig"), Text("Sure"))),
    Turn("user", (Text("Go on"),)),
    Turn("assistant", (Thought("Now", "sig"), Thought(sealed="x"), ToolUse("toolu_01A", "look", b'{"at":1}'))),
    Turn(
        "user",
        (
            ToolResult("toolu_01A", (Text("seen"), Media("aGk=", kind="image/png")), failed=True),
            Text("And?"),
        ),
    ),
)


def test_a_loop_of_tools_is_written_for_engines() -> None:
    assert written(Conversation(LOOP, (Text("a"), Text("b"))))["messages"] == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "Look at it"},
        {"role": "assistant", "content": "Sure"},
        {"role": "user", "content": "Go on"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Now",
            "tool_calls": [
                {"id": "toolu_01A", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_01A", "content": "Error: seen"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What the tool call toolu_01A has returned:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "text", "text": "And?"},
            ],
        },
    ]


def test_openai_is_told_no_reasoning_for_it_refuses_the_field() -> None:
    assert not any("reasoning_content" in message for message in written(Conversation(LOOP), "OpenAI")["messages"])


def test_deepseek_is_told_what_was_thought_always_be_it_nothing() -> None:
    found = [each for each in written(Conversation(LOOP), "DeepSeek")["messages"] if each["role"] == "assistant"]
    assert [each["reasoning_content"] for each in found] == ["Earlier", "Now"]
    silent = Conversation((*HI, Turn("assistant", (Text("A"),)), *HI))
    assert written(silent, "DeepSeek")["messages"][1] == {"role": "assistant", "content": "A", "reasoning_content": ""}


def test_mistral_gets_ids_of_its_own_form_and_no_user_behind_a_tool() -> None:
    found = written(Conversation(LOOP), "Mistral")["messages"]
    assert [message["role"] for message in found[-4:]] == ["assistant", "tool", "assistant", "user"]
    made, answered = found[-4]["tool_calls"][0]["id"], found[-3]["tool_call_id"]
    assert made == answered
    assert len(made) == 9
    assert made.isalnum()


@pytest.mark.parametrize(
    ("provider", "limit", "asks"),
    [
        ("OpenAI", "max_completion_tokens", True),
        ("OpenAICompatible", "max_tokens", True),
        ("Mistral", "max_tokens", False),
    ],
)
def test_limit_and_usage_are_asked_for_as_the_provider_has_it(provider: str, limit: str, asks: bool) -> None:
    found = written(Conversation(HI, max_tokens=7, stream=True), provider)
    assert found[limit] == 7
    assert ({"max_tokens", "max_completion_tokens"} & found.keys()) == {limit}
    assert found.get("stream_options") == ({"include_usage": True} if asks else None)


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (Reasoning("minimal"), "low"),
        (Reasoning("max"), "high"),
        (Reasoning("none"), None),
        (Reasoning(tokens=1024), "low"),
        (Reasoning(tokens=10_000), "medium"),
        (Reasoning(tokens=32_000), "high"),
        (Reasoning(adaptive=True), None),
    ],
)
def test_budgets_become_efforts_that_all_servers_know(reasoning: Reasoning, effort: str | None) -> None:
    assert written(Conversation(HI, reasoning=reasoning)).get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("provider", "model", "takes"),
    [
        ("OpenAI", "gpt-5.4-mini", True),
        ("OpenAI", "o4-mini", True),
        ("OpenAI", "gpt-4o", False),
        ("AzureOpenAI", "our-gpt-5", True),
        ("AzureOpenAI", "proto1", False),
        ("Groq", "openai/gpt-oss-120b", True),
        ("Groq", "llama-3.3-70b-versatile", False),
        ("Gemini", "gemini-2.5-pro", True),
        ("Gemini", "gemini-2.0-flash", False),
        ("Mistral", "mistral-large-latest", False),
        ("OpenAICompatible", "any", True),
    ],
)
def test_an_effort_is_said_to_models_that_do_not_refuse_it(provider: str, model: str, takes: bool) -> None:
    body = asking_of(PRESETS[provider]).write(Conversation(HI, reasoning=Reasoning("high")), model).body
    assert (b'"reasoning_effort":"high"' in body) == takes


def test_gemini_gets_its_signatures_back_and_a_word_for_those_of_others() -> None:
    def call(name: str, signature: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return found if signature is None else found | {"extra_content": {"google": {"thought_signature": signature}}}

    given = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call("a", "c2ln"), call("b", None)]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]
    found = messages(*given)
    assert found.turns[1].parts[0] == Thought(signature="google:c2ln")
    assert written(found, "Gemini", "gemini-3-pro")["messages"] == given
    assert not any("extra_content" in str(written(found, *to)) for to in (("Gemini", "gemini-2.5-pro"), ("OpenAI",)))
    looked = written(Conversation(LOOP), "VertexAI", "google/gemini-3.5-flash")["messages"][-3]
    assert looked["tool_calls"][0]["extra_content"]["google"]["thought_signature"] == "skip_thought_signature_validator"


def test_a_name_of_the_user_fits() -> None:
    assert written(Conversation(HI, user="u" * 64))["user"] == "u" * 64
    long = written(Conversation(HI, user="u" * 65))["user"]
    assert len(long) == 32
    assert long != written(Conversation(HI, user="v" * 65))["user"]
    assert "user" not in written(Conversation(HI, user="u"), "Mistral")


PDF = Media("JVBERi0=", kind="application/pdf", name="a.pdf")


@pytest.mark.parametrize(
    ("conversation", "provider", "expected"),
    [
        (Conversation(HI, top_k=3), "OpenAI", ("top_k",)),
        (Conversation(HI, top_k=3), "OpenAICompatible", ()),
        (Conversation((Turn("user", (PDF,)),)), "OpenAI", ()),
        (Conversation((Turn("user", (PDF,)),)), "OpenAICompatible", ("messages[0].content[0]",)),
        (
            Conversation((Turn("user", (ToolResult("a", (Text("b"), PDF)),)),)),
            "Groq",
            ("messages[0].content[0].content[1]",),
        ),
        (Conversation((*HI, Turn("assistant", (Text("It is"),)))), "OpenAI", ("messages[1]",)),
        (Conversation((*HI, Turn("assistant", (Text("It is"),)))), "OpenAICompatible", ()),
        (Conversation(HI, extras={"service_tier": msgspec.Raw(b'"auto"')}), "OpenAI", ()),
        (Conversation(HI, extras={"mcp_servers": msgspec.Raw(b"[]")}), "OpenAI", ("mcp_servers",)),
    ],
)
def test_what_a_server_cannot_be_told_is_named(
    conversation: Conversation, provider: str, expected: tuple[str, ...]
) -> None:
    assert asking_of(PRESETS[provider]).uncarried(conversation) == expected


def test_the_beginning_of_an_answer_is_gone_on_with() -> None:
    found = written(Conversation((*HI, Turn("assistant", (Text("It is"),)))))
    assert found["continue_final_message"] is True
    assert found["add_generation_prompt"] is False


def test_a_document_of_plain_text_is_said_in_words() -> None:
    note = Media("TGluZSAx", kind="text/plain", name="a.txt")
    assert written(Conversation((Turn("user", (note, Text("b"))),)))["messages"][0]["content"] == "Line 1\n\nb"


def test_schemas_go_on_byte_by_byte() -> None:
    schema = b'{"type": "object",  "properties": {"b": {"const": 1.0}, "a": {}}}'
    body = ASKING.write(Conversation(HI, tools=(Tool("f", schema),), shape=Shape(schema)), "m").body
    assert body.count(schema) == 2


def test_golden_bodies_are_written_for_openai(golden: Callable[[str], bytes]) -> None:
    """What is read of a body and written again says the same, where OpenAI's manner has one way to say it."""
    for name in ("vision", "structured", "file"):
        given = json.loads(golden(f"translation/chat/{name}.json"))
        found = written(asked(golden(f"translation/chat/{name}.json")), "OpenAI", "gpt-5.4")
        given["max_completion_tokens"] = given.pop("max_tokens", given.get("max_completion_tokens"))
        dropped = {"store", "metadata"}
        expected = {name: value for name, value in given.items() if value is not None and name not in dropped}
        for message in expected["messages"]:
            message["role"] = {"developer": "system"}.get(message["role"], message["role"])
        assert found == expected
