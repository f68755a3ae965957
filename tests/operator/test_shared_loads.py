"""What several balancers of a gateway say of the same endpoints, and that each sidecar comes to know its pools."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.stream import EndpointLoad, Loads, PoolLoad
from spillway_operator.loads import REMEMBERED, SILENT, SharedLoads

POOLS = ("default/a", "default/b")
values = st.tuples(
    st.sampled_from(POOLS),
    st.integers(0, 3),
    st.none() | st.integers(0, 9),
    st.sampled_from([None, True, False]),
)
steps = st.one_of(
    st.tuples(st.just("says"), st.sampled_from(["gw-1", "gw-2"]), st.lists(values, max_size=4), st.booleans()),
    st.tuples(st.just("hears"), st.sampled_from(["here", "there", "late"])),
    st.tuples(st.just("time"), st.floats(0.1, 4.0)),
)
SIDECARS = {"here": frozenset(POOLS), "there": frozenset(POOLS[:1]), "late": frozenset(POOLS[1:])}


def load(pool: str, *endpoints: EndpointLoad, whole: bool = False) -> Loads:
    return Loads((PoolLoad(pool, endpoints),), whole)


def applied(known: dict[tuple[str, str], EndpointLoad], loads: Loads) -> None:
    """As a sidecar does it."""
    if loads.whole:
        known.clear()
    for pool in loads.pools:
        for each in pool.endpoints:
            if each == EndpointLoad(each.endpoint):
                known.pop((pool.pool, each.endpoint), None)
            else:
                known[pool.pool, each.endpoint] = each


def plain(each: EndpointLoad) -> Any:
    return each.running, each.healthy, each.engine


@given(st.lists(steps, max_size=40))
@settings(deadline=None)
def test_who_hears_what_is_new_knows_what_who_hears_all_knows(story: Any) -> None:
    shared, now = SharedLoads(), 100.0
    said: dict[str, dict[tuple[str, str], EndpointLoad]] = {}
    spoke: dict[str, float] = {}
    heard = {name: (0, dict[tuple[str, str], EndpointLoad]()) for name in SIDECARS}
    for step in story:
        match step:
            case "time", seconds:
                now += seconds
                shared.fade(now)
                alive = [name for name, at in spoke.items() if now - at <= SILENT]
                for name in list(said) if alive else []:
                    if name not in alive:
                        del said[name]
            case "says", who, of, whole:
                loads = [
                    load(pool, EndpointLoad(f"e{number}", running=running, healthy=healthy))
                    for pool, number, running, healthy in of
                ]
                known = said.setdefault(who, {})
                for each in [Loads(whole=True), *loads] if whole else loads or [Loads()]:
                    shared.hear(who, each, now)
                    applied(known, each)
                spoke[who] = now
            case "hears", who:
                version, known = heard[who]
                applied(known, shared.since(version, SIDECARS[who], now))
                heard[who] = shared.version, known
    for who, (version, known) in heard.items():
        applied(known, shared.since(version, SIDECARS[who], now))
        new: dict[tuple[str, str], EndpointLoad] = {}
        first = shared.since(0, SIDECARS[who], now)
        assert first.whole
        applied(new, first)
        assert {key: plain(each) for key, each in known.items()} == {key: plain(each) for key, each in new.items()}
        keys = {key for each in said.values() for key in each if key[0] in SIDECARS[who]}
        assert new.keys() == keys
        for key, each in new.items():
            all_said = [there[key] for there in said.values() if key in there]
            assert each.running in {one.running for one in all_said}
            assert (each.running is None) == all(one.running is None for one in all_said)
            findings = {one.healthy for one in all_said}
            assert each.healthy is (True if True in findings else False if False in findings else None)


def test_the_newest_reading_counts_and_its_age_goes_on() -> None:
    shared = SharedLoads()
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", 0.25, running=4.0)), 10.0)
    shared.hear("gw-2", load("default/a", EndpointLoad("e1", 0.5, running=7.0)), 10.5)
    told = shared.since(0, {"default/a"}, 11.0)
    assert told.pools == (PoolLoad("default/a", (EndpointLoad("e1", 1.0, running=7.0),)),)
    shared.hear("gw-2", Loads(), 11.5)  # it is as it was: read half a second before that
    assert shared.since(0, {"default/a"}, 11.5).pools[0].endpoints[0].ago == 0.5
    assert shared.since(shared.version, {"default/a"}, 11.5) == Loads()


def test_what_is_only_read_again_is_no_news() -> None:
    shared = SharedLoads()
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", 0.1, running=4.0)), 10.0)
    version = shared.version
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", 0.7, running=4.0), whole=True), 20.0)
    assert shared.version == version


def test_that_an_endpoint_is_unhealthy_is_urgent_once() -> None:
    shared = SharedLoads()
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", healthy=True)), 10.0)
    assert not shared.urgent
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", healthy=False)), 11.0)
    assert shared.urgent == shared.version
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", running=1.0, healthy=False)), 12.0)
    assert shared.urgent < shared.version


def test_a_gateway_of_one_that_falls_silent_is_told_of_no_more() -> None:
    shared = SharedLoads()
    shared.hear("gw-1", load("default/a", EndpointLoad("e1", running=1.0)), 10.0)
    assert shared.speaks(10.0 + SILENT)
    shared.fade(11.0 + SILENT)
    assert not shared.speaks(11.0 + SILENT)


def test_names_that_come_and_go_are_not_kept_for_ever() -> None:
    shared = SharedLoads()
    for number in range(3 * REMEMBERED):
        shared.hear("gw-1", load("default/a", EndpointLoad(f"pod-{number}", running=1.0)), 1.0)
        shared.hear("gw-1", load("default/a", EndpointLoad(f"pod-{number}")), 1.0)
    assert len(shared._entries) <= REMEMBERED
    assert shared.since(1, {"default/a"}, 1.0) == Loads(whole=True)  # too far behind
