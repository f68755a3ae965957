"""An account whose key is refused is closed until its own Secret has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from spillway_api.snapshot import Credential, Endpoint
from spillway_balancer.net.credentials import Credentials

PATIENCE = 10.0


@pytest.fixture
async def accounts(serve, endpoint, objects, say, tmp_path: Path):
    """A balancer with accounts a and b of one provider, which takes the keys that are in `good`; and keys to write."""
    good, shown = {f"{say.KEY}-b"}, []

    async def behave(call: Any) -> None:
        key = (call.header("authorization") or "").removeprefix("Bearer ")
        shown.append(key)
        call.write(say.completion() if key in good else say.error(401))

    def write(name: str, key: str) -> None:
        (tmp_path / "keys" / name).mkdir(parents=True, exist_ok=True)
        fresh = tmp_path / f"{name}.fresh"
        fresh.write_text(key)
        fresh.rename(tmp_path / "keys" / name / "api-key")

    for name in "abz":
        write(name, f"{say.KEY}-{name}")
    pool = objects.provider("cloud", (await endpoint(behave)).url, "a", "b", dispatch={"strategy": "RoundRobin"})
    lb = await serve(docs=[pool, objects.route("cloud")], secrets=tmp_path / "keys")
    return lb, good, shown, write


async def test_it_is_closed_until_its_own_secret_has_changed(accounts, dial, say) -> None:
    lb, good, shown, write = accounts
    client = await dial(lb)
    a, b = lb.endpoint("a", "cloud"), lb.endpoint("b", "cloud")
    for _ in range(6):
        assert (await client.chat()).status == 200
    assert (a.refused, b.refused) == (True, False)
    assert shown.count(f"{say.KEY}-a") == 1
    write("b", f"{say.KEY}-c")  # somebody else's
    good.add(f"{say.KEY}-c")
    async with asyncio.timeout(PATIENCE):
        while f"{say.KEY}-c" not in shown:
            assert (await client.chat()).status == 200
            await asyncio.sleep(0.02)
    assert a.refused
    assert shown.count(f"{say.KEY}-a") == 1
    good.add(f"{say.KEY}-d")
    write("a", f"{say.KEY}-d")
    await lb.until(lambda: not a.refused)
    for _ in range(4):
        assert (await client.chat()).status == 200
    assert shown.count(f"{say.KEY}-d") == 2


def test_a_refusal_of_the_key_before_says_nothing_of_this_one(tmp_path: Path) -> None:
    spec = Endpoint("a", "https://cloud", credential=Credential("default/a", "k", "Authorization", "Bearer "))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "k").write_text("old")
    credentials = Credentials(tmp_path, {})
    assert credentials.keyed(spec)
    begun = monotonic()
    (tmp_path / "a" / "k").write_text("new")
    credentials.refresh()
    assert not credentials.refused(spec, begun)
    later = monotonic()
    assert credentials.refused(spec, later)
    assert not credentials.renewed(spec)
    credentials.refresh()
    assert not credentials.renewed(spec)
    assert credentials.refused(spec, later), "it has been read again, and is the same"
    (tmp_path / "a" / "k").write_text("newer")
    credentials.refresh()
    assert credentials.renewed(spec)
