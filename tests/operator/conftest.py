"""What tests of the operator share: its certificates, and a config stream on a real socket with real TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from tests.operator.rig import NAMES, Rig

from spillway_operator.certificates import Made, needed


@pytest.fixture(scope="session")
def made() -> Made:
    """Certificates for the Service's names, made now."""
    made = needed(None, NAMES, datetime.now(UTC))
    assert made is not None
    return made


@pytest.fixture
async def rig(made: Made) -> AsyncIterator[Callable[..., Rig]]:
    """`await rig()`: a config stream that serves, with the tokens of a gateway "chat" and of one "other"."""
    running: list[Rig] = []

    async def start(**settings: object) -> Rig:
        one = Rig(made, **settings)
        running.append(one)
        await one.start()
        return one

    yield start
    for one in running:
        await one.stop()
