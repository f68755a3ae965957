"""examples/eu-only.yaml keeps its promise on real sockets: what is bound stays in the EU, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge

EXAMPLE = Path(__file__).parents[2] / "examples" / "eu-only.yaml"
PUBLIC = [("x-data-class", "public")]
PERSONAL = [("x-data-class", "personal")]


@pytest.fixture
async def example(serve, endpoint, say):
    """The example, with an endpoint for each pool that answers with the pool's name; those in `down` fail."""
    docs = list(yaml.safe_load_all(EXAMPLE.read_text()))
    down: set[str] = set()

    async def stand_in(name: str):
        async def behave(call):
            call.write(say.error(503) if name in down else say.completion(name))

        return await endpoint(behave)

    for doc in docs:
        if doc["kind"] == "ModelPool":
            one = await stand_in(doc["metadata"]["name"])
            doc["spec"]["source"]["static"]["endpoints"][0]["url"] = one.url
            doc["spec"] |= {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}
    return await serve(docs=docs), down


def test_the_example_has_no_problems(tmp_path) -> None:
    judged = judge([EXAMPLE], "default", Credentials(None))
    assert judged.errors == ()
    assert judged.snapshot is not None


async def test_public_data_goes_where_it_is_cheap_and_falls_back(example, dial) -> None:
    lb, down = example
    client = await dial(lb)
    assert (await client.chat(PUBLIC)).text == "cheap"
    down.add("cheap")
    assert (await client.chat(PUBLIC)).text == "frankfurt"
    down.add("frankfurt")
    assert (await client.chat(PUBLIC)).text == "anywhere"


@pytest.mark.parametrize("headers", [PERSONAL, [], [*PUBLIC, *PERSONAL], [("x-data-class", "")]])
@pytest.mark.parametrize("stream", [False, True])
async def test_everything_else_stays_in_the_eu_or_is_refused(example, dial, headers, stream) -> None:
    lb, down = example
    client = await dial(lb)
    assert (await client.chat(headers)).text == "frankfurt"
    down.add("frankfurt")
    for _ in range(8):
        reply = await client.chat(headers, stream=stream)
        assert (reply.status, reply.error["code"]) == (503, "no_compliant_target")
    assert lb.sample("spillway_attempts_total", pool="default/cheap") == 0
    assert lb.sample("spillway_attempts_total", pool="default/anywhere") == 0
