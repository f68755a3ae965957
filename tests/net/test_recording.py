"""Records of requests in a real file: what they say, what they keep to themselves, and how the file is looked after."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from spillway_balancer.net.recording import CannotRecord, Record, Recorder
from spillway_balancer.simulate import traces

SYSTEM = {"role": "system", "content": "You know all about animals. " * 40}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Callable[..., Recorder]]:
    started: list[Recorder] = []

    def start(limit: int = 1 << 20, **settings: Any) -> Recorder:
        started.append(Recorder(tmp_path / "records.jsonl", limit, **settings))
        return started[-1]

    yield start
    for one in started:
        await one.close()


def record(**fields: Any) -> Record:
    now = monotonic()
    plain = Record(now, now + 0.5, "default/p", "e1", "chat", 100, 10, 64, 400, (1, 2**64 - 1), 7, True, 0.1, "ok")
    return plain._replace(**fields)


# ---- what a balancer writes


async def test_a_conversation_is_recorded_without_a_word_of_it(serve, engine, dial, say, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    lb = await serve(await engine(), await engine(), record=file)
    client = await dial(lb)
    messages = [SYSTEM, {"role": "user", "content": f"{say.PROMPT} first"}]
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    first = await client.chat(messages=messages, user="ann", max_tokens=20, **stream)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": f"{say.PROMPT} second"}]
    await client.chat(messages=messages, user="ann", max_tokens=20)
    await lb.balancer.recorder.close()

    text = file.read_text()
    assert say.PROMPT not in text
    assert first.text not in text
    one, two = lines(file)
    assert list(one) == [
        "at", "pool", "endpoint", "model", "prompt_tokens", "output_tokens", "cached_tokens", "bytes", "blocks", "key",
        "streams", "ttft", "duration", "status",
    ]  # fmt: skip
    assert (one["pool"], one["model"], one["status"], one["endpoint"]) == (
        "default/local",
        "chat",
        "ok",
        two["endpoint"],
    )
    assert (one["streams"], two["streams"]) == (True, False)
    assert 0 < one["ttft"] <= one["duration"]
    assert two["ttft"] is None
    assert 0 <= one["at"] < two["at"]
    assert (one["output_tokens"], one["cached_tokens"]) == (20, 0)
    assert two["cached_tokens"] > 0
    assert len(one["blocks"]) == one["bytes"] // 256 > 0
    assert two["blocks"][: len(one["blocks"])] == one["blocks"]
    assert all(len(block) == 16 for block in two["blocks"])
    trace = traces.read(file)
    assert (trace.format, len(trace.rows)) == ("records", 2)


async def test_requests_that_fail_or_are_refused_are_recorded_too(serve, endpoint, dial, say, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    server = await endpoint(say.steps(say.message(400)))
    lb = await serve(server, record=file)
    client = await dial(lb)
    assert (await client.chat()).status == 400
    lb.endpoint("e1").probe = lb.endpoint("e1").probe._replace(healthy=False)
    assert (await client.chat()).status == 503
    assert (await client.chat(model="unknown")).status == 404
    await lb.balancer.recorder.close()
    failed, refused = lines(file)
    assert (failed["endpoint"], failed["output_tokens"], failed["ttft"]) == ("e1", None, None)
    assert failed["status"] not in ("ok", "")
    assert failed["prompt_tokens"] > 0
    assert (refused["pool"], refused["endpoint"], refused["status"]) == (None, None, "no_ready_endpoint")


async def test_a_client_that_leaves_is_recorded_as_gone(serve, endpoint, dial, say, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    server = await endpoint(say.steps(say.SSE + say.chunk(say.word("a")), say.HANG))
    lb = await serve(server, record=file)
    client = await dial(lb)
    await client.send(client.request(body=client.chat_body(stream=True)))
    await client.head()
    client.close()
    await lb.until(lambda: lb.in_flight == 0 and lb.balancer.proxy.in_flight == 0)
    await lb.balancer.recorder.close()
    (gone,) = lines(file)
    assert gone["status"] == "client-gone"


async def test_strategies_that_read_no_prompts_are_recorded_alike(serve, engine, dial, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    lb = await serve(await engine(), record=file, pool={"dispatch": {"strategy": "RoundRobin"}})
    await (await dial(lb)).chat(messages=[SYSTEM, {"role": "user", "content": "hi"}], max_tokens=5)
    await lb.balancer.recorder.close()
    (one,) = lines(file)
    assert one["output_tokens"] == 5
    assert len(one["blocks"]) == one["bytes"] // 256 > 0


# ---- the file


async def test_hashes_are_comparable_within_a_file_and_say_nothing_outside_of_it(recorder, tmp_path: Path) -> None:
    for _ in range(2):
        one = recorder()
        one.record(record(blocks=(1, 2), key=1))
        one.record(record(blocks=(1, 3), key=None))
        await one.close()
    first, second, third, fourth = lines(tmp_path / "records.jsonl")
    assert first["blocks"][0] == second["blocks"][0] == first["key"]
    assert first["blocks"][1] != second["blocks"][1]
    assert not set(first["blocks"]) & set(third["blocks"])
    assert f"{1:016x}" not in first["blocks"] + third["blocks"]
    assert fourth["key"] is None


async def test_a_file_is_gone_on_with_and_so_is_its_clock(recorder, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    one = recorder()
    one.record(record(ended=monotonic() + 1000.0))
    await one.close()
    with file.open("ab") as cut:
        cut.write(b'{"at":12.5,"pool":"defau')  # killed in the middle of a line
    two = recorder()
    two.record(record())
    await two.close()
    first, second = lines(file)
    assert first["at"] < 1
    assert 1000 <= second["at"] < 1001
    file.write_bytes(b'{"at":1')
    await recorder().close()
    assert file.read_bytes() == b""


@pytest.mark.parametrize("held", ["kind: ModelPool\n", '{"at": 1}\n', "no line end", '{"at":1,"other":2}\n'])
async def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, held: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(held)
    with pytest.raises(CannotRecord, match="something else"):
        Recorder(file, 1 << 20)
    assert file.read_text() == held


async def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "file", Path(os.devnull)):
        with pytest.raises(CannotRecord, match="cannot record to"):
            Recorder(path, 1 << 20)


async def test_it_stops_at_its_limit_and_says_so_once(
    recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = recorder(limit=4096)
    for _ in range(100):
        one.record(record())
    await one.close()
    assert 3000 < (tmp_path / "records.jsonl").stat().st_size <= 4096
    assert [each.getMessage().split(":")[0] for each in caplog.records] == ["recording has stopped"]
    before = len(lines(tmp_path / "records.jsonl"))
    two = recorder(limit=4096)  # what was there before counts
    for _ in range(100):
        two.record(record())
    await two.close()
    assert len(lines(tmp_path / "records.jsonl")) <= before + 1


async def test_what_the_disk_cannot_take_is_left_out_and_counted(
    recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = recorder(buffer=10_000)
    for _ in range(1000):
        one.record(record())
    await one.close()
    kept = len(lines(tmp_path / "records.jsonl"))
    assert 10 < kept < 1000
    assert f"{1000 - kept} requests are not in" in caplog.text


async def test_a_full_disk_ends_the_record_and_nothing_else(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    one = Recorder(tmp_path / "records.jsonl", 1 << 20)
    reader, writer = os.pipe()
    os.close(reader)
    one._file.close()
    one._file = os.fdopen(writer, "wb")
    one.record(record())
    await one.close()
    one.record(record())
    assert "recording has stopped" in caplog.text


async def test_lines_are_written_while_the_balancer_runs(recorder, tmp_path: Path) -> None:
    recorder().record(record())
    async with asyncio.timeout(15):
        while not (tmp_path / "records.jsonl").stat().st_size:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)


async def test_answers_that_tell_no_usage_are_estimated_by_their_text(serve, endpoint, dial, say, tmp_path) -> None:
    """Most streams: clients seldom ask for `stream_options.include_usage`."""
    file = tmp_path / "records.jsonl"
    words = [say.word("ten bytes.") for _ in range(40)]
    answer = say.SSE + say.chunks(say.role(), *words, say.delta("stop"), say.DONE) + say.END
    lb = await serve(await endpoint(say.steps(answer)), record=file)
    assert (await (await dial(lb)).chat(stream=True)).status == 200
    await lb.balancer.recorder.close()
    (one,) = lines(file)
    assert one["output_tokens"] == 100
