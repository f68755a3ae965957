"""Fault switches as values: how they are written, and which one hits."""

from __future__ import annotations

import msgspec
import pytest

from spillway_balancer.engine.faults import KINDS, Reset, Scope, Status, Switches, arm, parse, strike


def test_every_kind_can_be_written_and_comes_back_the_same() -> None:
    for kind in KINDS:
        more = {"slow": {"factor": 2}, "status": {"status": 503}}.get(kind, {})
        faults = parse(msgspec.json.encode({"kind": kind} | more))
        assert parse(msgspec.json.encode(faults)) == faults


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"kind":"boom"}', "kinds are: refuse, slow"),
        ('{"stage":"accept"}', "required field `kind`"),
        ('[{"kind":"reset","stage":"late"}]', r"\$\[0\].stage`; stages are: accept, before-headers"),
        ('{"kind":"slow"}', "missing required field `factor`"),
        ('{"kind":"status","status":429,"procent":3}', "unknown field `procent`"),
        ('{"kind":"cut","percent":0}', r"> 0.0 - at `\$.percent`"),
        ("{", "not JSON"),
    ],
)
def test_errors_say_what_and_where(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(written)


def test_count_and_time_switch_a_fault_off() -> None:
    armed = arm(parse('[{"kind":"status","status":500,"count":2,"lasts":10}]'), now=100.0)
    for _ in range(2):
        fault, armed = strike(armed, Scope.REQUEST, "/v1/models", 0.5, 101.0)
        assert isinstance(fault, Status)
    assert strike(armed, Scope.REQUEST, "/v1/models", 0.5, 101.0)[0] is None
    assert armed[0].hits == 2
    fresh = arm((armed[0].fault,), now=100.0)
    assert strike(fresh, Scope.REQUEST, "/v1/models", 0.5, 110.0)[0] is None


def test_shares_of_several_faults_stand_side_by_side() -> None:
    armed = arm(parse('[{"kind":"status","status":500,"percent":30},{"kind":"reset","percent":30}]'), 0.0)
    hit = [strike(armed, Scope.REQUEST, "/v1/x", roll / 100, 0.0)[0] for roll in range(100)]
    assert sum(isinstance(fault, Status) for fault in hit) == 30
    assert sum(isinstance(fault, Reset) for fault in hit) == 30


def test_a_share_is_a_share_and_the_same_each_time() -> None:
    def hits() -> list[bool]:
        switches = Switches(parse('{"kind":"status","status":500,"percent":20}'))
        return [switches.strike(Scope.REQUEST, "/v1/x", 0.0) is not None for _ in range(2000)]

    assert hits() == hits()
    assert 0.17 < sum(hits()) / 2000 < 0.23


def test_faults_keep_to_their_scope_and_path() -> None:
    armed = arm(parse('[{"kind":"reset","stage":"accept"},{"kind":"status","status":500,"paths":["/v1/chat"]}]'), 0.0)
    assert strike(armed, Scope.REQUEST, "/v1/models", 0.0, 0.0)[0] is None
    assert isinstance(strike(armed, Scope.REQUEST, "/v1/chat/completions", 0.0, 0.0)[0], Status)
    assert isinstance(strike(armed, Scope.CONNECTION, "", 0.0, 0.0)[0], Reset)
    assert strike(armed, Scope.HEALTH, "/health", 0.0, 0.0)[0] is None
