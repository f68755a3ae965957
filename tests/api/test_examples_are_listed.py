"""Every example stands in the table of docs/examples.md, and has no problem."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.files import load

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))
ROW = re.compile(r"^\| \[(?P<name>[^]]+)\]\(\.\./examples/(?P<target>[^)]+)\) \| (?P<shows>.+) \|$", re.MULTILINE)


def test_the_table_has_a_row_for_each_file_and_no_other():
    rows = [match.groupdict() for match in ROW.finditer((ROOT / "docs" / "examples.md").read_text())]
    assert all(row["name"] == row["target"] for row in rows)
    assert sorted(row["name"] for row in rows) == FILES


@pytest.mark.parametrize("name", FILES)
def test_an_example_lints_clean(name):
    loaded = load([ROOT / "examples" / name])
    assert not loaded.problems
    compiled = compile_snapshot(
        loaded.objects, "default", lambda _secret, _key: True, Cluster(selected=loaded.selected)
    )
    assert not compiled.problems
    assert compiled.snapshot.routes


@pytest.mark.parametrize("name", FILES)
def test_an_example_says_first_what_it_is_for(name):
    assert (ROOT / "examples" / name).read_text().startswith("# ")
