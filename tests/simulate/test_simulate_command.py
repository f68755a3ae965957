"""`spillway simulate` from end to end: what it writes, that it writes it again the same, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_balancer.commands import app


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    rows = [
        {
            "timestamp": 40 * at,
            "input_length": 2100,
            "output_length": 20,
            "hash_ids": [0, at % 7 + 1, at + 100, at + 900],
        }
        for at in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def simulate(*options: object) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["simulate", *map(str, options)])
    return found.exit_code, found.stdout, found.stderr


def test_a_trace_becomes_tables_results_and_a_report(trace: Path, tmp_path: Path) -> None:
    asked = ("--trace", trace, "--strategy", "Adaptive,least-request", "--seeds", 2, "--jobs", 1, "--endpoints", 2)
    asked = (*asked, "--load", "0.5,0.9", "--objective", "0.2")
    code, said, shown = simulate(*asked, "--out", tmp_path / "one")
    assert code == 0, shown
    assert "50% of the best capacity" in said
    assert "90% of the best capacity" in said
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    assert [load["share"] for load in results["loads"]] == [0.5, 0.9]
    for load in results["loads"]:
        assert set(load["strategies"]) == {"Adaptive", "least-request"}
        for each in load["strategies"].values():
            assert each["figures"]["requests"]["mean"] == 108
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert "http" not in page.partition("<h2>Where")[0]

    assert simulate(*asked, "--out", tmp_path / "two")[0] == 0
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()


def test_capacity_events_and_several_balancers(trace: Path, tmp_path: Path) -> None:
    code, said, shown = simulate(
        *("--trace", trace, "--workload", "conversation", "--strategy", "Adaptive", "--strategy", "RoundRobin"),
        *("--capacity", "--objective", "0.5", "--rate", "2", "--seeds", 1, "--balancers", 2, "--jobs", 1),
        *("--profile", "2xh100-llama3-8b,l4-llama3-8b", "--event", "fail:0@1", "--event", "join@2", "--out", tmp_path),
    )
    assert code == 0, shown
    assert "Capacity" in said
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["setup"]["endpoints"] == ["h100-llama3-8b", "h100-llama3-8b", "l4-llama3-8b"]
    assert all(each["mean"] > 0 for each in results["capacity"]["strategies"].values())
    assert len(results["loads"][0]["strategies"]["Adaptive"]["balancers"]) == 2


def test_two_processes_come_to_the_same(trace: Path, tmp_path: Path) -> None:
    for jobs in (1, 2):
        asked = ("--trace", trace, "--rate", "3", "--strategy", "Adaptive", "--seeds", 2, "--endpoints", 2)
        assert simulate(*asked, "--jobs", jobs, "--out", tmp_path / str(jobs))[0] == 0
    assert (tmp_path / "1" / "results.json").read_bytes() == (tmp_path / "2" / "results.json").read_bytes()


def test_a_pool_from_a_file_has_its_endpoints_weights_and_strategy(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
    code, _, shown = simulate(
        *("--pool", example, "--workload", "chat", "--rate", "1", "--seeds", 1, "--limit", 60, "--jobs", 1),
        *("--out", tmp_path),
    )
    assert code == 0, shown
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["setup"]["weights"]) == 4
    assert "RoundRobin" in results["strategies"]


def test_a_trace_too_short_to_be_a_load_says_so(trace: Path) -> None:
    code, _, said = simulate("--trace", trace, "--strategy", "Adaptive", "--seeds", 1, "--capacity", "--jobs", 1)
    assert code == 2
    assert "too few requests" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "--trace FILE"),
        (("--workload", "conversation"), "give one with --trace"),
        (("--workload", "tool-agent"), "give one with --trace"),
        (("--workload", "poetry"), "there are: conversation, tool-agent"),
        (("--workload", "chat", "--strategy", "Magic"), "ours: Adaptive"),
        (("--workload", "chat", "--profile", "abacus"), "there are: h100-llama3-8b"),
        (("--workload", "chat", "--endpoints", "3", "--profile", "2xl4-llama3-8b"), "tell one for each"),
        (("--workload", "chat", "--load", "much"), "such as 0.5,0.8"),
        (("--workload", "chat", "--event", "fail:9@3"), "endpoints 0 to 7"),
        (("--trace", "no-such-file"), "No such file"),
        (("--pool", "no-such-file.yaml", "--workload", "chat"), "no-such-file.yaml"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(options: tuple[str, ...], expected: str) -> None:
    code, _, said = simulate(*options)
    assert code == 2
    assert expected in said
    assert "Traceback" not in said
