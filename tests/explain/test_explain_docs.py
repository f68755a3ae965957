"""docs/explain.md shows what the commands really say. To renew it: `python tests/explain/test_explain_docs.py`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spillway_balancer.commands import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explain.md"
SHOWN = re.compile(r"```console\n\$ ([^\n]*)\n```\n<!-- output: (\w+) -->\n```\n(.*?)```", re.DOTALL)


def said(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "spillway"
    found = CliRunner().invoke(app, arguments)
    return re.sub(r" in \d+\.\d+ s\b", " in 0.1 s", found.output)


@pytest.mark.parametrize("shown", SHOWN.findall(PAGE.read_text()), ids=lambda shown: shown[1])
def test_what_is_shown_is_what_is_said(shown: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command, _, output = shown
    assert output == said(command)


def test_every_field_of_a_state_is_on_the_page() -> None:
    from msgspec.structs import fields

    from spillway_balancer.explain.given import EndpointGiven, PoolGiven, State

    page = PAGE.read_text()
    for kind in (EndpointGiven, PoolGiven, State):
        for field in fields(kind):
            assert re.search(rf"`(….)?{field.encode_name}(\.NAME)?`", page), field.encode_name


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    made = SHOWN.sub(lambda found: found[0].removesuffix(found[3] + "```") + said(found[1]) + "```", PAGE.read_text())
    PAGE.write_text(made)
