"""What is asked of a model, as Amazon Bedrock's Converse takes it."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire.translation.conversation import (
    Conversation,
    Media,
    Part,
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
from spillway_balancer.wire.translation.converse_asks import ASKING, DOCUMENTS, IMAGES
from spillway_balancer.wire.translation.converse_families import family_of

SONNET_4 = "anthropic.claude-sonnet-4-20250514-v1:0"
SONNET_46 = "eu.anthropic.claude-sonnet-4-6"
NOVA = "amazon.nova-pro-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
OSS = "openai.gpt-oss-120b-1:0"
SIGNED = "c2lnbmVk" * 8
PROFILE = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3"


def user(*parts: Part | str) -> Turn:
    return Turn("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(*parts: Part | str) -> Turn:
    return user(*parts)._replace(role="assistant")


HELLO = Conversation((user("Hello"),))


def body(asked: Conversation, model: str = SONNET_4) -> Any:
    assert ASKING.uncarried(asked, model) == ()
    return json.loads(ASKING.write(asked, model).body)


def test_the_smallest_request() -> None:
    written = ASKING.write(HELLO, SONNET_4)
    assert written.path == "/model/anthropic.claude-sonnet-4-20250514-v1%3A0/converse"
    assert written.body == b'{"messages":[{"role":"user","content":[{"text":"Hello"}]}]}'


def test_a_stream_of_a_profile() -> None:
    assert ASKING.write(HELLO._replace(stream=True), PROFILE).path == (
        "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3/converse-stream"
    )


def test_a_whole_request() -> None:
    asked = Conversation(
        (
            user("What is this?", Media(data="iVBORw0KGgo=", kind="image/png")),
            assistant(
                Thought("A picture.", SIGNED), Thought(sealed="c2Vh"), "Let me see.", ToolUse("t1", "look", b'{"at":1}')
            ),
            user(ToolResult("t1", (Text("a cat"), Media(data="/9g=", kind="image/jpeg"))), "Well?"),
        ),
        system=(Text("Be brief.", cached=True, ttl="1h"),),
        tools=(Tool("look", b'{"type":"object"}', "Looks.", strict=True, cached=True),),
        choice=ToolChoice("auto"),
        max_tokens=200,
        temperature=1.5,
        top_p=0.9,
        top_k=40,
        stop=("END", "--"),
        shape=Shape(b'{"type":"object"}', "animal", True, "What it is."),
        extras={"user": msgspec.Raw(b'"u"'), "seed": msgspec.Raw(b"1")},
    )
    assert body(asked) == {
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "What is this?"},
                    {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "A picture.", "signature": SIGNED}}},
                    {"reasoningContent": {"redactedContent": "c2Vh"}},
                    {"text": "Let me see."},
                    {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": 1}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "toolResult": {
                            "toolUseId": "t1",
                            "content": [
                                {"text": "a cat"},
                                {"image": {"format": "jpeg", "source": {"bytes": "/9g="}}},
                            ],
                        }
                    },
                    {"text": "Well?"},
                ],
            },
        ],
        "inferenceConfig": {"maxTokens": 200, "temperature": 1, "stopSequences": ["END", "--"]},
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "look",
                        "description": "Looks.",
                        "inputSchema": {"json": {"type": "object"}},
                    }
                },
                {"cachePoint": {"type": "default"}},
            ]
        },
        "additionalModelRequestFields": {"top_k": 40},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "outputConfig": {
            "textFormat": {
                "type": "json_schema",
                "structure": {
                    "jsonSchema": {"schema": '{"type":"object"}', "name": "animal", "description": "What it is."}
                },
            }
        },
    }


def test_blank_texts_are_left_out_and_turns_of_one_role_become_one() -> None:
    asked = Conversation((user("a", " \n"), assistant(""), user("b"), assistant("c"), assistant("d"), user("e")))
    assert body(asked)["messages"] == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "content": [{"text": "e"}]},
    ]


def test_a_tool_that_says_nothing_has_said_so() -> None:
    asked = HELLO._replace(turns=(user("x"), assistant(ToolUse("t", "f")), user(ToolResult("t", (Text(""),), True))))
    result = body(asked)["messages"][2]["content"][0]["toolResult"]
    assert result == {"toolUseId": "t", "content": [{"text": "(no output)"}], "status": "error"}


@pytest.mark.parametrize(
    ("model", "content", "status"),
    [
        (NOVA, [{"text": "no such file"}], "error"),
        (PROFILE, [{"text": "no such file"}], "error"),
        (LLAMA, [{"text": "Error"}, {"text": "no such file"}], None),
    ],
)
def test_who_takes_no_status_is_told_in_words_that_a_tool_has_failed(model: str, content: Any, status: Any) -> None:
    asked = Conversation(
        (user("x"), assistant(ToolUse("t", "f")), user(ToolResult("t", (Text("no such file"),), True)))
    )
    result = body(asked, model)["messages"][2]["content"][0]["toolResult"]
    assert (result["content"], result.get("status")) == (content, status)


@pytest.mark.parametrize(
    ("model", "strict"),
    [
        (SONNET_4, False),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", True),
        (NOVA, False),
        (OSS, True),
        (PROFILE, True),
    ],
)
def test_tools_are_strict_where_that_is_known(model: str, strict: bool) -> None:
    asked = HELLO._replace(tools=(Tool("g", b"{}", strict=True),))
    assert ("strict" in body(asked, model)["toolConfig"]["tools"][0]["toolSpec"]) == strict


def test_who_asks_by_instructions_alone_wants_an_answer_to_them() -> None:
    assert body(Conversation((), (Text("Be brief."),))) == {
        "messages": [{"role": "user", "content": [{"text": "Be brief."}]}]
    }


def test_claude_does_not_stop_at_nothing_but_spaces() -> None:
    asked = HELLO._replace(stop=("\n\n",))
    assert ASKING.uncarried(asked, SONNET_4) == ("stop",)
    assert body(asked, NOVA)["inferenceConfig"] == {"stopSequences": ["\n\n"]}


def test_what_a_system_says_later_goes_to_the_front() -> None:
    asked = Conversation((user("a"), Turn("system", (Text("Now in French."),)), user("b")), (Text("Be brief."),))
    assert body(asked)["system"] == [{"text": "Be brief."}, {"text": "Now in French."}]
    assert body(asked)["messages"] == [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}]


def test_documents_have_names_of_their_own_and_a_text_beside_them() -> None:
    file = Media(data="JVBERg==", kind="application/pdf", name="the  report_(1).pdf")
    content = body(HELLO._replace(turns=(user(file, file, file._replace(name=None, kind="text/markdown")),)))
    documents = [block["document"] for block in content["messages"][0]["content"][:3]]
    assert [(each["name"], each["format"]) for each in documents] == [
        ("the report (1) pdf", "pdf"),
        ("the report (1) pdf (2)", "pdf"),
        ("document", "md"),
    ]
    assert content["messages"][0]["content"][3] == {"text": "the report (1) pdf, the report (1) pdf (2), document"}


def test_ids_that_are_refused_are_others_and_the_same_on_both_sides() -> None:
    odd = "call|" + "x" * 80
    asked = Conversation((user("a"), assistant(ToolUse(odd, "f")), user(ToolResult(odd, (Text("b"),)))))
    messages = body(asked)["messages"]
    used = messages[1]["content"][0]["toolUse"]["toolUseId"]
    assert re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", used)
    assert messages[2]["content"][0]["toolResult"]["toolUseId"] == used


TOOLED = Conversation((user("a"), assistant(ToolUse("t", "f")), user(ToolResult("t", (Text("b"),)))))


def test_tools_of_the_conversation_that_are_not_offered_stand_as_gone() -> None:
    for asked in (TOOLED, TOOLED._replace(tools=(Tool("g", b"{}"),), choice=ToolChoice("none"))):
        (tool,) = body(asked)["toolConfig"]["tools"]
        assert tool["toolSpec"]["name"] == "f"
        assert "cannot be used" in tool["toolSpec"]["description"]


def test_without_a_history_no_tool_is_no_tool() -> None:
    assert "toolConfig" not in body(
        HELLO._replace(tools=(Tool("g", b"{}"),), choice=ToolChoice("none", parallel=False))
    )


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (None, None),
        (ToolChoice("auto"), None),
        (ToolChoice("any"), {"any": {}}),
        (ToolChoice("named", "g"), {"tool": {"name": "g"}}),
    ],
)
def test_choice_of_tools(choice: ToolChoice | None, said: Any) -> None:
    config = body(HELLO._replace(tools=(Tool("g", b"{}", ""),), choice=choice))["toolConfig"]
    assert config.get("toolChoice") == said
    assert config["tools"] == [
        {"toolSpec": {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}}
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (ToolChoice("auto", parallel=False), {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("any", parallel=False), {"disable_parallel_tool_use": True}),
        (ToolChoice("auto", parallel=True), None),
    ],
)
def test_one_tool_at_a_time_is_asked_of_who_can_be_told(choice: ToolChoice, said: Any) -> None:
    asked = HELLO._replace(tools=(Tool("g", b"{}"),), choice=choice)
    assert ASKING.uncarried(asked, SONNET_46) == ()
    written = json.loads(ASKING.write(asked, SONNET_46).body)
    assert written.get("additionalModelRequestFields", {}).get("tool_choice") == said
    for model in (SONNET_4, NOVA, PROFILE):
        assert ASKING.uncarried(asked, model) == (("parallel_tool_calls",) if said else ())


MARKED = Conversation((user(Text("long", cached=True, ttl="1h")),), tools=(Tool("g", b"{}", cached=True, ttl="1h"),))


@pytest.mark.parametrize(
    ("model", "point", "tools"),
    [
        (SONNET_4, {"type": "default", "ttl": "1h"}, 2),
        (PROFILE, {"type": "default", "ttl": "1h"}, 2),
        (NOVA, {"type": "default"}, 1),
        (LLAMA, None, 1),
    ],
)
def test_marks_of_what_to_cache(model: str, point: Any, tools: int) -> None:
    written = body(MARKED, model)
    points = [block.get("cachePoint") for block in written["messages"][0]["content"][1:]]
    assert points == ([] if point is None else [point])
    assert len(written["toolConfig"]["tools"]) == tools


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("anthropic.claude-v2:1", "claude"),
        ("apac.anthropic.claude-opus-4-1-20250805-v1:0", "claude"),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-7", "claude"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-2-lite-v1:0", "nova"),
        (NOVA, "nova"),
        (OSS, "gpt-oss"),
        (LLAMA, "other"),
        (PROFILE, "unknown"),
        ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdefghijkl", "unknown"),
        ("abcdefghijkl", "unknown"),
    ],
)
def test_families(model: str, name: str) -> None:
    assert family_of(model).name == name


@pytest.mark.parametrize(
    ("model", "reasoning", "limit", "fields", "effort"),
    [
        (SONNET_4, Reasoning("medium"), None, {"thinking": {"type": "enabled", "budget_tokens": 8192}}, None),
        (SONNET_4, Reasoning("medium"), 4096, {"thinking": {"type": "enabled", "budget_tokens": 3072}}, None),
        (SONNET_4, Reasoning("max"), None, {"thinking": {"type": "enabled", "budget_tokens": 30976}}, None),
        (SONNET_4, Reasoning("low"), 2000, None, None),
        (SONNET_4, Reasoning("none"), None, None, None),
        (SONNET_4, Reasoning(tokens=5000), 6024, {"thinking": {"type": "enabled", "budget_tokens": 5000}}, None),
        (SONNET_4, Reasoning(adaptive=True), None, {"thinking": {"type": "enabled", "budget_tokens": 8192}}, None),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", Reasoning("high"), None, None, None),
        ("anthropic.claude-v2:1", Reasoning("high"), None, None, None),
        ("anthropic.claude-mythos-preview", Reasoning("max"), None, {"thinking": {"type": "adaptive"}}, "max"),
        (SONNET_46, Reasoning("minimal"), None, {"thinking": {"type": "adaptive"}}, "low"),
        (SONNET_46, Reasoning(tokens=30_000), None, {"thinking": {"type": "adaptive"}}, "high"),
        (SONNET_46, Reasoning(adaptive=True), None, {"thinking": {"type": "adaptive"}}, "high"),
        (PROFILE, Reasoning(adaptive=True, effort="max"), None, {"thinking": {"type": "adaptive"}}, "max"),
        (PROFILE, Reasoning(tokens=2000), None, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),
        ("anthropic.claude-opus-5", Reasoning("xhigh"), None, {"thinking": {"type": "adaptive"}}, "xhigh"),
        (NOVA_2, Reasoning("low"), 100, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, None),
        (NOVA_2, Reasoning("max"), None, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}, None),
        (NOVA_2, Reasoning("max"), 100, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}, None),
        (NOVA_2, Reasoning("none"), 100, None, None),
        (NOVA, Reasoning("high"), None, None, None),
        (OSS, Reasoning("none"), None, {"reasoning_effort": "low"}, None),
        (OSS, Reasoning("xhigh"), None, {"reasoning_effort": "high"}, None),
        (LLAMA, Reasoning("high"), None, None, None),
        (PROFILE, Reasoning("high"), None, None, None),
    ],
)
def test_how_much_a_model_thinks(
    model: str, reasoning: Reasoning, limit: int | None, fields: Any, effort: str | None
) -> None:
    written = body(HELLO._replace(reasoning=reasoning, max_tokens=limit, temperature=0.5), model)
    assert written.get("additionalModelRequestFields") == fields
    assert written.get("outputConfig", {}).get("effort") == effort
    inference = written.get("inferenceConfig", {})
    assert inference.get("maxTokens") == limit
    silent = fields is not None and ("thinking" in fields or "high" in str(fields.get("reasoningConfig")))
    assert ("temperature" in inference) == (not silent)


def test_a_tool_that_has_to_be_asked_for_excludes_thinking() -> None:
    asked = HELLO._replace(reasoning=Reasoning("high"), tools=(Tool("g", b"{}"),), choice=ToolChoice("any"))
    for model in (SONNET_4, SONNET_46):
        assert "additionalModelRequestFields" not in body(asked, model)


def test_tools_without_the_thoughts_before_them_are_gone_on_with_without_thinking() -> None:
    asked = TOOLED._replace(reasoning=Reasoning("high"))
    assert "additionalModelRequestFields" not in body(asked)
    assert body(asked, SONNET_46)["additionalModelRequestFields"] == {"thinking": {"type": "adaptive"}}
    thought = assistant(Thought("hm", SIGNED), ToolUse("t", "f"))
    told = asked._replace(turns=(asked.turns[0], thought, asked.turns[2]))
    assert "thinking" in body(told)["additionalModelRequestFields"]


def test_thoughts_of_others_are_not_repeated() -> None:
    asked = Conversation((user("a"), assistant(Thought("hm"), Thought("so", SIGNED), "b"), user("c")))
    assert len(body(asked)["messages"][1]["content"]) == 2
    assert body(asked, NOVA)["messages"][1]["content"] == [{"text": "b"}]


def test_top_k_by_family() -> None:
    asked = HELLO._replace(top_k=5)
    assert body(asked)["additionalModelRequestFields"] == {"top_k": 5}
    assert body(asked, NOVA)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}
    assert "additionalModelRequestFields" not in body(asked, LLAMA)


RAW = msgspec.Raw(b"2")


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (HELLO._replace(turns=(user("a", Media(url="https://x/y.png")),)), ("messages[0].content[1]",)),
        (HELLO._replace(turns=(user(Media(data="AA==", kind="image/tiff")),)), ("messages[0].content[0]",)),
        (
            HELLO._replace(turns=(user("a"), assistant(Media(data="AA==", kind="image/png")), user("b"))),
            ("messages[1].content[0]",),
        ),
        (
            HELLO._replace(turns=(user(ToolResult("t", (Media(url="https://x"),))),)),
            ("messages[0].content[0]",),
        ),
        (HELLO._replace(turns=(user("a"), assistant(ToolUse("t", "no name")), user("b"))), ("messages[1].content[0]",)),
        (HELLO._replace(turns=(assistant("a"), user("b"))), ("messages[0].role",)),
        (HELLO._replace(tools=(Tool("no name", b"{}"),)), ("tools",)),
        (HELLO._replace(tools=(Tool("g", b"{}"),), choice=ToolChoice(parallel=False)), ("parallel_tool_calls",)),
        (HELLO._replace(tools=(Tool("g", b"{}"),), choice=ToolChoice("none", parallel=False)), ()),
        (HELLO._replace(shape=Shape()), ("response_format",)),
        (
            HELLO._replace(extras={"n": RAW, "logprobs": RAW, "new_field": RAW, "store": RAW}),
            ("n", "logprobs", "new_field"),
        ),
    ],
)
def test_what_cannot_be_carried_is_named(asked: Conversation, names: tuple[str, ...]) -> None:
    assert ASKING.uncarried(asked) == names


WORDS = st.text(st.characters(codec="utf-8"), max_size=8)
MEDIA = st.builds(Media, data=st.just("AA=="), kind=st.sampled_from([*IMAGES, *DOCUMENTS]), name=WORDS | st.none())
USER = st.lists(
    st.builds(Text, WORDS, st.booleans()) | MEDIA | st.builds(ToolResult, WORDS, st.tuples(MEDIA)), max_size=4
)
USE = st.builds(ToolUse, WORDS, st.sampled_from(["f", "g"]), st.just(b"{}"))
ASSISTANT = st.lists(st.builds(Text, WORDS) | USE | st.builds(Thought, WORDS, WORDS | st.none()), max_size=4)
TURNS = st.lists(
    USER.map(lambda parts: Turn("user", tuple(parts))) | ASSISTANT.map(lambda parts: Turn("assistant", tuple(parts))),
    max_size=6,
)


@given(TURNS, st.sampled_from([SONNET_4, SONNET_46, NOVA, LLAMA, OSS, PROFILE]), st.booleans())
def test_what_the_api_asks_of_every_request_holds(turns: list[Turn], model: str, stream: bool) -> None:
    asked = Conversation((user("start"), *turns, user("end")), stream=stream)
    written = body(asked, model)
    roles = [message["role"] for message in written["messages"]]
    assert roles[0] == "user"
    assert all(one != other for one, other in itertools.pairwise(roles))
    blocks = [block for message in written["messages"] for block in message["content"]]
    assert all(message["content"] for message in written["messages"])
    assert all(block["text"].strip() for block in blocks if "text" in block)
    results = [part for block in blocks if "toolResult" in block for part in block["toolResult"]["content"]]
    names = [block["document"]["name"] for block in [*blocks, *results] if "document" in block]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-zA-Z0-9 \-()\[\]]{1,200}", name) and "  " not in name for name in names)
    tooled = any("toolUse" in block or "toolResult" in block for block in blocks)
    assert tooled == ("toolConfig" in written)


@given(TURNS)
def test_nothing_that_was_said_is_lost(turns: list[Turn]) -> None:
    asked = Conversation((user("start"), *turns, user("end")))
    written = body(asked)
    said = [part.text for turn in asked.turns for part in turn.parts if isinstance(part, Text) and part.text.strip()]
    blocks = [block for message in written["messages"] for block in message["content"]]
    texts = [block["text"] for block in blocks if "text" in block]
    assert sorted(said) == sorted(text for text in texts if text in said)
    media = [part for turn in asked.turns for part in turn.parts if isinstance(part, Media)]
    assert len([block for block in blocks if "image" in block or "document" in block]) == len(media)
    uses = [part for turn in asked.turns for part in turn.parts if isinstance(part, ToolUse | ToolResult)]
    assert len([block for block in blocks if "toolUse" in block or "toolResult" in block]) == len(uses)
