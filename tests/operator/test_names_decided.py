"""Public names that several policies claim: whose they are, and that the others say so, here and in `spillway lint`."""

from __future__ import annotations

from typing import Any

import pytest
import tests.operator.objects as make
import yaml
from tests.operator.fleets import Fleet

from spillway_balancer.cli import main


def aged(policy: dict[str, Any], year: int) -> dict[str, Any]:
    policy["metadata"]["creationTimestamp"] = f"{year}-01-01T00:00:00Z"
    return policy


CLAIMS = [
    (("chat",), ("chat",), "chat"),
    (("llama-*",), ("other", "llama-*"), "llama-*"),
    (("*",), ("*",), "*"),
    (("chat:floor",), ("chat:floor",), "chat:floor"),
    # What overlaps is no conflict: the more exact one has it.
    (("chat",), ("chat*",), None),
    (("llama*",), ("llama-3*",), None),
    (("llama-3*",), ("*",), None),
    (("chat",), ("chat:floor",), None),
]


@pytest.mark.parametrize(("old", "young", "clash"), CLAIMS)
def test_the_oldest_claim_holds_and_the_others_are_not_accepted(old: Any, young: Any, clash: Any) -> None:
    fleet = Fleet().see(
        make.model_pool("llama"),
        aged(make.route_policy("young", models=young), 2026),
        aged(make.route_policy("old", models=old), 2025),
    )
    fleet.acknowledge()
    assert fleet.condition("RoutePolicy/default/old", "Accepted") == ("True", "Accepted")
    accepted = ("True", "Accepted") if clash is None else ("False", "ModelNameConflict")
    assert fleet.condition("RoutePolicy/default/young", "Accepted") == accepted
    if clash is not None:
        said = fleet.message("RoutePolicy/default/young", "Accepted")
        assert f'model "{clash}" belongs to RoutePolicy/default/old' in said
    assert fleet.routes().keys() == ({"default/old", "default/young"} if clash is None else {"default/old"})


@pytest.mark.parametrize(("old", "young", "clash"), CLAIMS)
def test_lint_says_the_same(old: Any, young: Any, clash: Any, tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    objects = [
        make.model_pool("llama"),
        aged(make.route_policy("young", models=young), 2026),
        aged(make.route_policy("old", models=old), 2025),
    ]
    for each in objects:
        each["metadata"] = {name: each["metadata"][name] for name in ("name", "creationTimestamp")}
    file = tmp_path / "names.yaml"
    file.write_text("---\n".join(map(yaml.safe_dump, objects)))
    monkeypatch.setattr("sys.argv", ["spillway", "lint", "-f", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == (0 if clash is None else 1)
    assert ("ModelNameConflict" in said) == (clash is not None)
    if clash is not None:
        at = f"spec.models[{young.index(clash)}]"
        assert f'RoutePolicy/default/young: {at}: ModelNameConflict: model "{clash}" belongs to' in said
