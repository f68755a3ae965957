"""Predicted times to the first token against those that came: the figures, and that a run reports them."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_balancer.commands import app
from spillway_balancer.simulate.forecasts import errors


def test_exact_predictions_are_not_off() -> None:
    found = errors([0.5, 2.0], [0.5, 2.0])
    assert found is not None
    assert found == (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_errors_are_parts_of_what_came() -> None:
    found = errors([1.2, 0.5, 3.0, nan], [1.0, 1.0, 1.0, 5.0])
    assert found is not None
    assert found.known == 0.75
    assert found.near == pytest.approx(1 / 3)
    assert found.bias == pytest.approx((0.2 - 0.5 + 2.0) / 3)
    assert (found.error_p50, found.error_p99) == (pytest.approx(0.5), pytest.approx(2.0))
    assert (found.seconds_p50, found.seconds_p90) == (pytest.approx(0.5), pytest.approx(2.0))


def test_who_predicts_nothing_is_not_off() -> None:
    assert errors([nan, nan], [1.0, 2.0]) is None
    assert errors([], []) is None


def test_a_run_says_how_far_predictions_were_off(tmp_path: Path) -> None:
    asked = ("--workload", "tenants", "--rate", "20", "--endpoints", "2", "--seeds", "1", "--jobs", "1")
    asked = (*asked, "--strategy", "Adaptive,LeastLoad", "--limit", "1500", "--out", str(tmp_path))
    done = CliRunner().invoke(app, ["simulate", *asked])
    assert done.exit_code == 0, done.output
    assert "Predicted against real first tokens, 20 requests/s" in done.stdout
    (load,) = json.loads((tmp_path / "results.json").read_text())["loads"]
    assert load["strategies"]["LeastLoad"]["forecast"] is None
    found = load["strategies"]["Adaptive"]["forecast"]
    assert found["known"]["mean"] == 1.0
    assert found["near"]["mean"] > 0.3
    assert abs(found["bias"]["mean"]) < 0.3
