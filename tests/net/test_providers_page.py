"""The table of docs/providers.md is what the tests are: every type has a row, and behind every cell is a test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from tests.net.test_every_family import TYPES

from spillway_api.types.source import ProviderType

ROOT = Path(__file__).parents[2]
COLUMNS = ["plain", "stream", "tools", "images", "structured output", "reasoning", "usage", "errors", "quotas"]


def table() -> dict[str, dict[str, str]]:
    """Cells by type and column."""
    section = (ROOT / "docs" / "providers.md").read_text().partition("## Held by tests")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    head = rows[0][1:]
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in rows[2:]}


@pytest.fixture(scope="module")
def collected() -> set[tuple[str, str]]:
    """Test and family of every test that pytest finds in the file."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "--collect-only"]
    found = subprocess.run(
        [*command, "tests/net/test_every_family.py"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    names = set(TYPES)
    tests = set()
    for test, parameters in re.findall(r"::(test_\w+)\[([\w-]+)\]", found):
        tests |= {(test, family) for family in names if family in parameters.split("-")}
    return tests


def test_every_type_has_a_row_and_every_row_all_columns() -> None:
    rows = table()
    assert set(rows) == set(get_args(ProviderType)) == set(TYPES.values())
    assert all(list(row) == COLUMNS for row in rows.values())


def test_behind_every_cell_is_a_test_or_a_reason(collected: set[tuple[str, str]]) -> None:
    rows = table()
    for family, type in TYPES.items():
        for column, cell in rows[type].items():
            test = f"test_{column.replace(' ', '_')}"
            if cell.startswith("✓"):
                assert (test, family) in collected, f"{type}, {column}: no {test} of {family}"
            else:
                assert len(cell.split()) > 1, f"{type}, {column}: neither a test nor why there is none"


def test_no_test_is_missing_in_the_table(collected: set[tuple[str, str]]) -> None:
    rows = table()
    for column in COLUMNS:
        tested = {family for test, family in collected if test == f"test_{column.replace(' ', '_')}"}
        assert {TYPES[family] for family in tested} == {type for type, row in rows.items() if row[column][:1] == "✓"}


def test_files_that_the_page_names_exist() -> None:
    page = (ROOT / "docs" / "providers.md").read_text()
    for name in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", page):
        assert list((ROOT / "tests").rglob(Path(name).name)), name
