"""`spillway test`: what it finds in order, what it finds wrong, and what it says of slips in the cases themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

CASES = sorted((Path(__file__).parents[2] / "examples" / "cases").glob("*.yaml"))


def case(expect: Any, name: str = "one", **given: Any) -> dict[str, Any]:
    return {"name": name, "request": {"model": "chat"}, "expect": expect} | given


@pytest.fixture
def held(bench, two_tiers):
    """`held(case, …)`: the command on two tiers that spill by requests in flight."""

    def run(*cases: Any, options: Any = (), **file: Any) -> Any:
        path = bench.write("cases.yaml", {"cases": list(cases), **file})
        return bench.spillway("test", two_tiers(inFlightPerEndpoint={"start": 4, "full": 8}), path, *options)

    return run


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_every_example_does_what_its_cases_say(bench, examples, cases) -> None:
    said = bench.spillway("test", examples / cases.name, cases)
    assert said.code == 0, said.out
    assert said.out.endswith(": all as expected\n")


def test_all_that_is_expected_is_met(held) -> None:
    expect = {
        "status": 200,
        "policy": "chat",
        "rule": "all",
        "tier": "cloud",
        "pool": "other",
        "endpoint": "main",
        "model": "other-model",
        "reason": "least-work",
        "spilled": True,
        "attempt": 1,
        "never": ["own"],
    }
    said = held(case(expect, state={"pools": {"own": {"inFlight": 8}}}))
    assert (said.code, said.out) == (0, "ok    one\n1 case: all as expected\n")


DIFFERENCES = [
    ({"status": 503}, "cases[0].expect.status: expected 503, is 200"),
    ({"status": 200}, "cases[0].expect.status: expected 200, is 503 no_ready_endpoint"),
    ({"error": "budget"}, 'cases[0].expect.error: expected "budget", is none: it is served'),
    ({"rule": ""}, 'cases[0].expect.rule: expected "", is "all"'),
    ({"tier": "cloud"}, 'cases[0].expect.tier: expected "cloud", is "local"'),
    ({"pool": "other"}, 'cases[0].expect.pool: expected "other", is "default/own"'),
    ({"model": "gpt"}, 'cases[0].expect.model: expected "gpt", is "own-model"'),
    ({"spilled": True}, "cases[0].expect.spilled: expected true, is false"),
    ({"attempt": 2}, "cases[0].expect.attempt: expected 2, is 1"),
    ({"never": ["own"]}, 'cases[0].expect.never[0]: "own" must never be asked, and was'),
]


@pytest.mark.parametrize(("expect", "message"), DIFFERENCES, ids=[message for _, message in DIFFERENCES])
def test_what_is_not_as_expected_is_said_with_its_place(held, expect, message) -> None:
    state = {"pools": {"own": {"ready": 0}, "other": {"ready": 0}}} if expect == {"status": 200} else {}
    said = held(case(expect, state=state), case({"rule": "all"}, name="two"))
    assert said.code == 1
    assert "FAIL  one\n" in said.out
    assert message in said.out
    assert re.search(r"cases\.yaml:[67]:\d+: ", said.out)
    assert "ok    two\n2 cases: 1 not as expected\n" in said.out


SLIPS = [
    (case({"teir": "local"}), 'unknown field "cases[0].expect.teir" (did you mean "tier"?)'),
    (case({"pool": "owm"}), 'cases[0].expect.pool: no pool "default/owm" (did you mean "own"?)'),
    (case({"tier": "home"}), 'cases[0].expect.tier: no tier "home" (there are cloud, local)'),
    (case({"rule": "al"}), 'no rule "al" (did you mean "all"?)'),
    (case({"never": ["othr"]}), 'cases[0].expect.never[0]: no pool "default/othr" (did you mean "other"?)'),
    (case({"split": {"pools": {"oter": 5}}}), 'cases[0].expect.split.pools.oter: no pool "default/oter"'),
    (case({"split": {"within": 5}}), "at least one of rules, tiers, pools and endpoints must be set"),
    (case({}, state={"pools": {"owm": {}}}), 'cases[0].state.pools.owm: no pool "owm" (did you mean "own"?)'),
    (case({}, state={"pools": {"own": {"ready": 9}}}), "the pool has 2 endpoints"),
    ({"name": "one", "expect": {}}, "cases[0].request: Required value"),
]


@pytest.mark.parametrize(("wrong", "message"), SLIPS, ids=[message for _, message in SLIPS])
def test_a_slip_in_a_case_is_no_case(held, wrong, message) -> None:
    said = held(wrong, case({"rule": "all"}, name="two"))
    assert said.code == 2
    assert message in said.err
    assert "cases.yaml:" in said.err
    assert not said.out


def test_names_of_cases_are_unique(held) -> None:
    said = held(case({}), case({}))
    assert said.code == 2
    assert "Duplicate value" in said.err


def test_shares_are_of_sessions(held) -> None:
    half = {"pools": {"own": {"inFlight": 6}}}
    good = held(case({"split": {"pools": {"own": 50, "other": 50}, "within": 5}}, state=half))
    assert good.code == 0, good.out
    bad = held(case({"split": {"tiers": {"cloud": 80}, "within": 5, "sessions": 200}}, state=half))
    assert bad.code == 1
    assert "cases[0].expect.split.tiers.cloud: expected 80 % within 5, is " in bad.out
    assert "% of 200 sessions" in bad.out


def test_what_else_is_expected_holds_for_every_session(held) -> None:
    half = {"pools": {"own": {"inFlight": 6}}}
    said = held(case({"tier": "local", "split": {"tiers": {"local": 50}, "within": 10}}, state=half))
    assert said.code == 1
    assert 'expected "local", is "cloud"' in said.out


def test_who_takes_turns_takes_them_over_the_sessions(bench) -> None:
    from yaml import safe_dump_all

    objects = (bench.folder / "policies.yaml").with_suffix(".yaml")
    static = [{"name": name, "url": f"http://{name}:80"} for name in ("e1", "e2")]
    pool = {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": "own"},
        "spec": {
            "models": [{"name": "m"}],
            "source": {"static": {"endpoints": static}},
            "dispatch": {"strategy": "RoundRobin"},
        },
    }
    rules = [{"name": "all", "tiers": [{"name": "only", "pools": [{"name": "own"}]}]}]
    route = {**pool, "kind": "RoutePolicy", "metadata": {"name": "r"}, "spec": {"models": ["chat"], "rules": rules}}
    objects.write_text(safe_dump_all([pool, route]))
    expect = {"split": {"endpoints": {"e1": 50, "e2": 50}, "within": 0}}
    said = bench.spillway("test", objects, bench.write("cases.yaml", {"cases": [case(expect)]}))
    assert said.code == 0, said.out


def test_a_state_of_the_file_holds_for_all_and_a_case_has_the_last_word(held) -> None:
    said = held(
        case({"tier": "cloud"}),
        case({"tier": "local"}, name="two", state={"pools": {"own": {}}}),
        state={"pools": {"own": {"inFlight": 8}}},
    )
    assert said.code == 0, said.out


def test_a_prompt_is_as_long_as_the_case_says(bench, examples) -> None:
    for tokens, rule in ((6000, "default"), (6001, "long")):
        cases = {
            "cases": [
                {"name": "length", "request": {"model": "best-model", "tokens": tokens}, "expect": {"rule": rule}}
            ]
        }
        state = {"state": {"pools": {"next": {"ready": 0}}}}
        said = bench.spillway("test", examples / "rules.yaml", bench.write("cases.yaml", {**cases, **state}))
        assert said.code == 0, said.out


def test_a_failing_case_is_explained_to_who_asks(held) -> None:
    said = held(case({"tier": "cloud"}), options=["-v"])
    assert "| goes to  default/own/" in said.out


def test_results_for_a_ci_system(held, tmp_path) -> None:
    report = tmp_path / "report.xml"
    said = held(case({"tier": "cloud"}), case({"tier": "local"}, name="two"), options=["--junit", report])
    assert said.code == 1
    suite = ElementTree.fromstring(report.read_text())  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    one, two = suite
    assert (one.get("name"), two.find("failure")) == ("one", None)
    failure = one.find("failure")
    assert failure is not None
    assert "expected" in (failure.get("message") or "")
    assert held(case({}), options=["--junit", tmp_path / "no" / "where.xml"]).code == 2


def test_a_folder_of_cases(bench, two_tiers) -> None:
    folder = bench.folder / "cases"
    folder.mkdir()
    bench.write("cases/a.yaml", {"cases": [case({"tier": "local"})]})
    bench.write("cases/b.yaml", {"cases": [case({"tier": "local"}, name="two")]})
    assert bench.spillway("test", two_tiers(), folder).out.endswith("2 cases: all as expected\n")
    (bench.folder / "none").mkdir()
    assert bench.spillway("test", two_tiers(), bench.folder / "none").code == 2
    assert bench.spillway("test", two_tiers(), bench.folder / "nowhere.yaml").code == 2
