"""Providers: where a path of OpenAI's API is found, and what some call its fields."""

from __future__ import annotations

from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest

from spillway_api.providers import PRESETS, address
from spillway_api.types import Clamp, ProviderType
from spillway_balancer.wire.clamps import Clamped
from spillway_balancer.wire.openai import peek
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.providers import ADAPTERS
from spillway_balancer.wire.providers.fields import adapted

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "target"),
    [
        ("http://host:8000", CHAT),
        ("http://host:8000/", CHAT),
        ("https://host/v1", CHAT),
        ("https://host/v1/", CHAT),
        ("https://openrouter.ai/api/v1", "/api/v1/chat/completions"),
        ("https://api.groq.com/openai/v1", "/openai/v1/chat/completions"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "/v1beta/openai/chat/completions"),
        ("https://open.bigmodel.cn/api/paas/v4", "/api/paas/v4/chat/completions"),
        ("http://gateway/llama", "/llama/v1/chat/completions"),
        ("http://gateway/vllm1", "/vllm1/v1/chat/completions"),
        ("https://x.openai.azure.com/openai/v1?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
        ("http://[::1]:8000/v1", CHAT),
    ],
)
def test_the_version_stands_in_a_target_once_and_prefixes_stay(base_url: str, target: str) -> None:
    assert ADAPTERS["OpenAICompatible"].target(base_url, CHAT) == target


@pytest.mark.parametrize(
    ("base_url", "target"),
    [
        ("https://n.openai.azure.com", "/openai/v1/chat/completions"),
        ("https://n.openai.azure.com/", "/openai/v1/chat/completions"),
        ("https://n.openai.azure.com/openai", "/openai/v1/chat/completions"),
        ("https://n.openai.azure.com/openai/v1", "/openai/v1/chat/completions"),
        ("https://n.openai.azure.com/openai/v1?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
        ("https://n.services.ai.azure.com?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
        ("https://gateway/ours/openai/v1", "/ours/openai/v1/chat/completions"),
    ],
)
def test_azure_is_found_by_its_resource_or_by_the_whole_address(base_url: str, target: str) -> None:
    assert ADAPTERS["AzureOpenAI"].target(base_url, CHAT) == target


WHERE = {
    "Anthropic": "https://api.anthropic.com",
    "OpenAI": "https://api.openai.com/v1",
    "Gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "Mistral": "https://api.mistral.ai/v1",
    "Groq": "https://api.groq.com/openai/v1",
    "Together": "https://api.together.ai/v1",
    "Fireworks": "https://api.fireworks.ai/inference/v1",
    "DeepSeek": "https://api.deepseek.com/v1",
    "OpenRouter": "https://openrouter.ai/api/v1",
    "xAI": "https://api.x.ai/v1",
}


def test_each_is_asked_where_its_documentation_says() -> None:
    told = {name: each.base_url for name, each in PRESETS.items() if each.base_url and "{" not in each.base_url}
    assert told == WHERE
    for name, base_url in WHERE.items():
        at = urlsplit(base_url).path
        if name == "Anthropic":
            assert ADAPTERS[name].target(base_url, "/v1/messages") == "/v1/messages"
        else:
            assert ADAPTERS[name].target(base_url, CHAT) == f"{at}/chat/completions"


VERTEX = "/v1/projects/ml/locations/{}/endpoints/openapi"


@pytest.mark.parametrize(
    ("region", "base_url", "host"),
    [
        ("europe-west4", None, "https://europe-west4-aiplatform.googleapis.com"),
        ("global", None, "https://aiplatform.googleapis.com"),
        ("eu", None, "https://aiplatform.eu.rep.googleapis.com"),
        ("us-central1", "https://private.p.googleapis.com", "https://private.p.googleapis.com"),
        ("us-central1", "https://private.p.googleapis.com:8443/", "https://private.p.googleapis.com:8443"),
    ],
)
def test_vertex_is_found_by_the_region_and_the_project_of_an_account(region: str, base_url: str, host: str) -> None:
    found = address("VertexAI", base_url, region, "ml")
    assert found == host + VERTEX.format(region)
    assert ADAPTERS["VertexAI"].target(found, CHAT) == f"{VERTEX.format(region)}/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "found", "target"),
    [
        (None, "https://bedrock-runtime.eu-west-1.amazonaws.com", "/model/m/converse"),
        ("https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", None, "/model/m/converse"),
        ("https://gateway/aws/", "https://gateway/aws", "/aws/model/m/converse"),
    ],
)
def test_bedrock_is_found_by_the_region_of_an_account(base_url: str | None, found: str | None, target: str) -> None:
    at = address("Bedrock", base_url, "eu-west-1", "")
    assert at == (found or base_url)
    assert ADAPTERS["Bedrock"].target(at, "/model/m/converse") == target


def test_a_base_url_with_a_path_is_taken_as_it_is() -> None:
    for kind in ("VertexAI", "OpenAI", "AzureOpenAI"):
        assert address(kind, "https://gateway/ours/v1/", "global", "ml") == "https://gateway/ours/v1"
    assert address("OpenAI", "https://gateway", "", "") == "https://gateway"
    assert address("AzureOpenAI", None, "", "") == ""


def test_there_is_an_adapter_and_a_preset_for_each_type_and_for_no_other() -> None:
    assert [*ADAPTERS] == [*PRESETS]
    assert {*PRESETS} == {*get_args(ProviderType)}
    assert {name: adapter.type for name, adapter in ADAPTERS.items()} == {name: name for name in ADAPTERS}


def test_what_presets_say_of_paths_are_paths_that_there_are() -> None:
    for name, preset in PRESETS.items():
        assert preset.paths is None or preset.paths <= PATHS.keys(), name
        assert preset.paths is None or CHAT in preset.paths, name


SHORT = {"audio/*": ["audio/speech", "audio/transcriptions", "audio/translations"]}


def test_the_table_of_the_docs_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    told = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].strip("`") in PRESETS:
            told[cells[0].strip("`")] = cells[1:]
    assert told.keys() == PRESETS.keys()
    for name, (where, key, serves) in told.items():
        preset = PRESETS[name]
        own = "of the account's `region`" if "{" in (preset.base_url or "") else f"`{preset.base_url}`"
        assert where.startswith(own if preset.base_url else "`baseURL"), name
        assert key == f"`{f'{preset.header}: {preset.prefix}'.strip().rstrip(':')}`", name
        if preset.paths is None:
            assert serves == "everything is asked for", name
            continue
        listed = [
            path for each in serves.split(", ") if "/" in each or each.isalpha() for path in SHORT.get(each, [each])
        ]
        assert {CHAT, *(f"/v1/{path}" for path in listed)} == preset.paths, name


# -- fields by other names

MISTRAL = PRESETS["Mistral"]


def sent(body: bytes, path: str = CHAT) -> bytes:
    peeked = peek(PATHS[path], "application/json", body)
    return b"".join(peeked.forward("up", adapted(peeked, MISTRAL, "up")))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m","max_completion_tokens":7}', b'{"model":"up","max_tokens":7}'),
        (b'{ "max_completion_tokens" :  7 , "model" : "m" }', b'{ "max_tokens":7 , "model" : "up" }'),
        (b'{"model":"m","max_tokens":7}', b'{"model":"up","max_tokens":7}'),
        (b'{"model":"m","a":{"max_completion_tokens":7}}', b'{"model":"up","a":{"max_completion_tokens":7}}'),
        (
            b'{"model":"m","max_completion_tokens":7,"max_tokens":8}',
            b'{"model":"up","max_completion_tokens":7,"max_tokens":8}',
        ),
        (b'{"model":"m","stream_options": {"include_usage":true}}', b'{"model":"up","stream_options": {}}'),
        (
            b'{"stream_options":{"a":[1 ],"include_usage":false},"model":"m"}',
            b'{"stream_options":{"a":[1 ]},"model":"up"}',
        ),
        (b'{"model":"m","stream_options":{"a":1}}', b'{"model":"up","stream_options":{"a":1}}'),
        (b'{"model":"m","stream_options":null}', b'{"model":"up","stream_options":null}'),
        (b'{"model":"m","stream_options":[1]}', b'{"model":"up","stream_options":[1]}'),
        (b'{"model":"m","max_completion_tokens":null}', b'{"model":"up","max_completion_tokens":null}'),
    ],
)
def test_what_it_would_refuse_is_called_as_it_calls_it_or_left_out(body: bytes, expected: bytes) -> None:
    assert sent(body) == expected


def test_names_of_other_apis_stay() -> None:
    body = b'{"model":"m","input":"x","max_completion_tokens":7}'
    assert sent(body, "/v1/embeddings") == body.replace(b'"m"', b'"up"')


def test_a_clamp_and_a_name_go_into_the_same_field() -> None:
    peeked = peek(PATHS[CHAT], "application/json", b'{"max_completion_tokens": 500,"model":"m"}')
    edits = [*Clamped(peeked, Clamp(max_output_tokens=100)).edits("Mistral"), *adapted(peeked, MISTRAL, "up")]
    assert b"".join(peeked.forward("m", edits)) == b'{"max_tokens":100,"model":"m"}'
