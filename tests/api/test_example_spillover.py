"""The example of spillover is what its page says: without a fault, and every signal of it in the snapshot."""

from __future__ import annotations

from pathlib import Path

from spillway_api.compile import compile_snapshot
from spillway_api.files import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "spillover.yaml"


def test_the_example_compiles_without_a_problem():
    loaded = load([EXAMPLE])
    assert not loaded.problems
    compiled = compile_snapshot(loaded.objects, "default", lambda _secret, _key: True)
    assert not compiled.problems
    (route,) = compiled.snapshot.routes
    local, cloud = route.rules[0].tiers
    assert cloud.spill is None
    assert local.spill is not None
    assert local.spill.predicted_ttft is not None
    assert (local.spill.predicted_ttft.start, local.spill.predicted_ttft.full) == ("2s", "6s")
    assert (local.spill.smoothing, local.spill.min_dwell, local.spill.by) == ("2s", "10s", "Key")
