"""examples/rules.yaml does what its comments say, against engines on real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge

EXAMPLE = Path(__file__).parents[2] / "examples" / "rules.yaml"
LONG = [{"role": "user", "content": "word " * 6000}]
SEEN = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]


@pytest.fixture
async def example(serve, endpoint, say):
    """The example, with an endpoint for each pool that answers with the pool's name."""
    docs = list(yaml.safe_load_all(EXAMPLE.read_text()))
    for doc in docs:
        if doc["kind"] == "ModelPool":
            name = doc["metadata"]["name"]
            doc["spec"]["source"]["static"]["endpoints"][0]["url"] = (await endpoint(say.well(name))).url
            doc["spec"] |= {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}
    return await serve(docs=docs)


def test_the_example_has_no_problems(tmp_path) -> None:
    judged = judge([EXAMPLE], "default", Credentials(None))
    assert judged.errors == ()
    assert judged.snapshot is not None


async def test_each_rule_of_the_example(example, dial) -> None:
    client = await dial(example)

    async def asked(session: int, headers: tuple[tuple[str, str], ...] = (), **fields: object) -> str:
        made = (("x-session-id", f"user-{session}"), *headers)
        return (await client.chat(made, model="best-model", **fields)).text

    assert await asked(1, (("x-tier", "premium"),)) == "large"
    assert await asked(1, messages=LONG) == "large"
    assert await asked(1, messages=SEEN) == "large"
    sides = [await asked(session) for session in range(200)]
    assert sides == [await asked(session) for session in range(200)]
    assert 15 <= sides.count("next") <= 68  # 40, more than four standard deviations either way
    assert sides.count("next") + sides.count("small") == 200
