"""What kopf does too often: wake everybody who waits for the first listing, whenever one object of it is done.

kopf holds handlers back until every object of the first listing is in the indices. Each object is a toggle, and each
toggle that goes wakes all the others' tasks to look whether it was the last one: the square of the number of objects,
minutes of CPU for some thousand. Who waits for the set wants to know of one thing only, that its state has turned.
"""

from __future__ import annotations

from typing import Any

from kopf._cogs.aiokits import aiotoggles


def install() -> None:
    """From now on kopf's sets of toggles wake their waiters when the set turns, and only then."""
    aiotoggles.ToggleSet.make_toggle = _make_toggle  # type: ignore[method-assign]
    aiotoggles.ToggleSet.drop_toggle = _drop_toggle  # type: ignore[method-assign]


async def _make_toggle(self: Any, __val: bool = False, *, name: str | None = None) -> aiotoggles.Toggle:
    toggle = aiotoggles.Toggle(__val, name=name, condition=self._condition)
    async with self._condition:
        before = self.is_on()
        self._toggles.add(toggle)
        if self.is_on() != before:
            self._condition.notify_all()
    return toggle


async def _drop_toggle(self: Any, toggle: aiotoggles.Toggle) -> None:
    async with self._condition:
        before = self.is_on()
        self._toggles.discard(toggle)
        if self.is_on() != before:
            self._condition.notify_all()
