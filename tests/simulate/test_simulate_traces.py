"""Traces of every format come to the same rows, and a bad line says where it is and what should be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spillway_balancer.simulate.formats import TraceError
from spillway_balancer.simulate.plan import Plan
from spillway_balancer.simulate.playback import play
from spillway_balancer.simulate.traces import Trace, read

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "trace"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def mooncake(at: int, size: int, ids: list[int]) -> str:
    return json.dumps({"timestamp": at, "input_length": size, "output_length": 5, "hash_ids": ids}) + "\n"


def sizes(trace: Trace) -> list[tuple[float, int, int]]:
    return [(row.at, row.prompt_tokens, row.output_tokens) for row in trace.rows]


def test_mooncake_rows_share_the_whole_blocks_of_equal_prefixes(write: Write) -> None:
    trace = read(
        write(mooncake(1000, 1300, [7, 8, 9]) + mooncake(3500, 1600, [7, 8, 9, 10]) + mooncake(3600, 512, [8]))
    )
    assert trace.format == "mooncake"
    assert sizes(trace) == [(0.0, 1300, 5), (2.5, 1600, 5), (2.6, 512, 5)]
    first, second, third = (list(row.nodes) for row in trace.rows)
    assert len(first) == 2, "the third block is not full"
    assert second[:2] == first
    assert third[0] not in second, "the same id behind another beginning is another prefix"


def test_azure_times_have_seven_decimals_and_prefixes_are_not_known(write: Write) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    trace = read(write(head + "2023-11-16 18:17:03.9799600,480,10\r\n2023-11-16 18:17:05.0,31,0\r\n"))
    assert trace.format == "azure"
    assert sizes(trace) == [(0.0, 480, 10), (pytest.approx(1.02004), 31, 1)]
    assert trace.nodes == 0


BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


def test_burstgpt_leaves_out_failures(write: Write) -> None:
    trace = read(write(f"{BURST}\n5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,10,0,10,Conversation log\n"))
    assert (trace.format, sizes(trace), trace.left_out) == ("burstgpt", [(0.0, 472, 18)], 1)


def test_burstgpt_sessions_grow_by_appending_until_they_start_anew(write: Write) -> None:
    rows = "1,G,200,100,300,C,a\n2,G,400,10,410,C,a\n3,G,200,10,210,C,b\n4,G,128,10,138,C,a\n"
    first, second, other, anew = read(write(f"{BURST},Session ID\n{rows}")).rows
    assert second.nodes[:3] == first.nodes
    assert not {*other.nodes, *anew.nodes} & {*second.nodes}
    assert first.session == second.session == anew.session != other.session


def test_own_records_tell_how_many_tokens_a_block_is(write: Write) -> None:
    blocks = ["0a", "0b", "0c", "0d"]
    row = {"at": 0.5, "prompt_tokens": 128, "output_tokens": 9, "bytes": 1024, "blocks": blocks, "key": "ff"}
    refused = {**row, "at": 0.7, "prompt_tokens": 0, "status": "context-length"}
    failed = {**row, "at": 0.9, "output_tokens": None, "key": None, "status": "connect"}
    trace = read(write("".join(json.dumps(each) + "\n" for each in (row, refused, failed))))
    assert (trace.format, trace.block_tokens, trace.left_out) == ("records", 32, 1)
    assert sizes(trace) == [(0.0, 128, 9), (pytest.approx(0.4), 128, 9)]  # not counted: as the mean
    assert trace.rows[0].nodes == trace.rows[1].nodes
    assert len(trace.rows[0].nodes) == 4


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, "Mooncake JSONL"),
        ("hello\n", 1, "no known trace format"),
        ('{"prompt": "x"}\n', 1, "no known trace format"),
        ("{nonsense\n", 1, "not JSON"),
        (mooncake(0, 600, [1]) + '{"timestamp": 3, "input_length": "many", "hash_ids": []}\n', 2, '"input_length"'),
        (
            mooncake(0, 600, [1]) + '{"timestamp": 3, "input_length": 9, "output_length": -1, "hash_ids": []}\n',
            2,
            "0 or more",
        ),
        (
            mooncake(0, 600, [1]) + '{"timestamp": 3, "input_length": 9, "output_length": 1, "hash_ids": 3}\n',
            2,
            '"hash_ids"',
        ),
        (mooncake(0, 600, [1]) + "\n[1]\n", 3, "one JSON object a line"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", 2, "2023-11-16"),
        (f"{BURST}\n1,G,nan,2,3,C\n", 2, '"Request tokens"'),
    ],
)
def test_a_bad_line_is_named_with_what_is_expected_there(write: Write, text: str, line: int, expected: str) -> None:
    path = write(text)
    with pytest.raises(TraceError, match="expected") as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}:{line}: ")
    assert expected in str(refused.value)


def test_a_file_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read(tmp_path / "missing")


def test_rounded_timestamps_are_spread_by_the_dice(write: Write) -> None:
    trace = read(write("".join(mooncake(at // 4 * 3000, 600, [at]) for at in range(40))))
    assert trace.quantum == 3.0
    one = [request.at for request in play(trace, Plan(1.0, 1, 8, None)).requests]
    assert one == [request.at for request in play(trace, Plan(1.0, 1, 8, None)).requests]
    assert one != [request.at for request in play(trace, Plan(1.0, 2, 8, None)).requests]
    assert len(set(one)) == 40
    twice = [request.at for request in play(trace, Plan(2.0, 1, 8, None)).requests]
    assert twice == pytest.approx([at / 2 for at in one])


def test_copies_for_more_endpoints_share_only_what_everybody_shares(write: Write) -> None:
    trace = read(write("".join(mooncake(at * 100, 1100, [0, 1000 + at]) for at in range(20))))
    requests = list(play(trace, Plan(1.0, 1, 16, None)).requests)
    assert len(requests) == 40
    assert len({request.blocks[0] for request in requests}) == 1
    assert len({request.blocks[1] for request in requests}) == 40
