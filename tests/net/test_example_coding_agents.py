"""examples/coding-agents.yaml: an agent is served at home, and where home cannot be told what it asks, at Anthropic."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
import yaml
from tests.net.conftest import QUIET
from tests.net.staging import EXAMPLES

from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Settings

SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}
ASK: dict[str, Any] = {
    "model": "claude-opus-4-6",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Fix the failing test."}],
}


@pytest.fixture
async def agent(serve, endpoint, say, tmp_path):
    """The SDK before the example, its engines at home, and Anthropic; Bedrock has no key."""
    home = await endpoint(say.well("at home"))
    async with ProviderServer(Settings("anthropic")) as away:
        docs = list(yaml.safe_load_all((EXAMPLES / "coding-agents.yaml").read_text()))
        own, cloud, *_ = docs
        own["spec"] |= {**QUIET, "source": {"static": {"endpoints": [{"name": "gpu-0", "url": home.url}]}}}
        cloud["spec"]["source"]["provider"] |= {"baseURL": away.url, "allowPlainHTTP": True}
        (tmp_path / "anthropic-key").mkdir()
        (tmp_path / "anthropic-key" / "api-key").write_text("fake-key")
        lb = await serve(docs=docs, secrets=tmp_path)
        async with anthropic.AsyncAnthropic(base_url=lb.url, api_key="anything", max_retries=0) as sdk:
            yield sdk, home


async def test_whatever_model_an_agent_asks_for_home_answers(agent) -> None:
    sdk, home = agent
    for model in ("claude-opus-4-6", "claude-haiku-4-5-20251001"):
        answer = await sdk.messages.create(**{**ASK, "model": model})
        assert (answer.content[0].text, answer.model) == ("at home", model)
    assert {call.json()["model"] for call in home.calls} == {"Qwen/Qwen3-Coder-480B-A35B-Instruct"}


async def test_what_only_anthropic_has_goes_there_at_once(agent) -> None:
    sdk, home = agent
    answer = await sdk.messages.create(**ASK, tools=[SEARCH])
    assert (answer.content[0].type, answer.model) == ("text", "claude-sonnet-4-5")
    assert not home.calls


async def test_when_home_is_down_anthropic_answers(agent) -> None:
    sdk, home = agent
    await home.stop()
    async with sdk.messages.stream(**ASK) as stream:
        message = await stream.get_final_message()
    assert (message.content[0].type, message.model) == ("text", "claude-sonnet-4-5")
