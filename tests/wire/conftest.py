"""Golden files of wire formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], bytes]:
    """Reads a golden file by its path below tests/wire/golden."""
    return lambda name: (GOLDEN / name).read_bytes()
