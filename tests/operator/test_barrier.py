"""kopf's barrier before the first listing is done: what it costs, and that it still holds."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kopf._cogs.aiokits.aiotoggles import Toggle, ToggleSet

from spillway_operator import barrier


@pytest.fixture(autouse=True)
def installed():
    barrier.install()


class Counting(ToggleSet):
    asked = 0

    def is_on(self):
        self.asked += 1
        return super().is_on()


async def cost(objects):
    """How often somebody looks whether all are done, when so many wait for one another."""
    several = Counting(all)
    toggles = [await several.make_toggle() for _ in range(objects)]

    async def worker(toggle):
        await several.drop_toggle(toggle)
        await several.wait_for(True)

    await asyncio.gather(*map(worker, toggles))
    return several.asked


async def test_a_first_listing_of_twice_as_many_costs_twice_as_much():
    assert await cost(800) <= 2.1 * await cost(400)


@given(st.lists(st.tuples(st.sampled_from(["make", "drop"]), st.integers(0, 5), st.booleans()), max_size=30))
def test_who_waits_is_let_go_when_the_set_turns_and_not_before(steps):
    async def main():
        for kind in (all, any):
            several, toggles = ToggleSet(kind), {}
            for what, name, value in steps:
                wanted = not several.is_on()
                waiter = asyncio.get_running_loop().create_task(several.wait_for(wanted))
                await asyncio.sleep(0)
                if what == "make" and name not in toggles:
                    toggles[name] = await several.make_toggle(value)
                    assert isinstance(toggles[name], Toggle)
                elif what == "drop" and name in toggles:
                    await several.drop_toggle(toggles.pop(name))
                for _ in range(5):
                    await asyncio.sleep(0)
                assert waiter.done() == (several.is_on() == wanted)
                assert several.is_on() == kind(toggle.is_on() for toggle in toggles.values())
                waiter.cancel()
                await asyncio.gather(waiter, return_exceptions=True)

    asyncio.run(main())
