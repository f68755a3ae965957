"""Where a path of OpenAI's API is found at a base URL."""

from __future__ import annotations

import pytest

from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.providers import ADAPTERS

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


def test_every_path_is_found_at_openai() -> None:
    openai = ADAPTERS["OpenAI"]
    assert openai.base_url is not None
    assert {path: openai.target(openai.base_url, path) for path in PATHS} == {path: path for path in PATHS}


def test_adapters_know_themselves_by_the_name_they_are_found_by() -> None:
    assert {name: adapter.type for name, adapter in ADAPTERS.items()} == {name: name for name in ADAPTERS}
