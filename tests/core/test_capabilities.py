"""Who can serve a request: nobody gets what it declares not to be able to do, and an estimate refuses nobody."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.providers import PRESETS, Api, served_by
from spillway_api.types import Capability, Capacity, Dispatch, Health, Metrics, Model, Ramp, Retry, Spill, Timeouts
from spillway_balancer.core.apis import CLIENTS, COUNTING, MESSAGES, TALKS
from spillway_balancer.core.attempts import Attempts, Try, Wait
from spillway_balancer.core.capabilities import KINDS, Needs, lacks
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.errors import BadRequest, NoCapableTarget
from spillway_balancer.core.planning import Plan, plan
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.wire.paths import PATHS

CHAT = "/v1/chat/completions"
ALL: tuple[Capability, ...] = get_args(Capability)
MOMENT = Moment(1000.0, 1.8e9, random.Random(1))


class Request:
    """What a request tells, and how often it was asked."""

    caller, consumer, client_ip, streams, output_tokens, model = "", None, None, False, 256, "chat"

    def __init__(self, path: str = CHAT, tokens: int = 100, limit: int = 0, **asks: bool) -> None:
        self.path, self.prompt_tokens, self._limit, self._asks = path, tokens, limit, asks
        self.asked: Counter[str] = Counter()

    thorough = False
    lost: tuple[str, ...] | BadRequest = ()
    """What translation makes of it."""

    def _told(self, name: str) -> bool:
        self.asked[name] += 1
        return self._asks.get(name, False)

    def tools(self) -> bool:
        return self._told("tools")

    def images(self) -> bool:
        return self._told("images")

    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        self.asked["uncarried"] += 1
        if isinstance(self.lost, BadRequest):
            raise self.lost
        return self.lost

    def json(self) -> bool:
        return self._told("json")

    def max_tokens(self) -> int:
        self.asked["max_tokens"] += 1
        return self._limit

    def user(self) -> str:
        return ""

    def headers(self, names: Any) -> dict[str, str]:
        return {}

    def header(self, name: str) -> None: ...
    def body(self, name: str) -> None: ...
    def prefix(self, chars: int | None) -> None: ...


def runtime(*tiers: Any) -> Runtime:
    """Tiers of models, a pool for each; in place of a model may stand (model, weight), and `enterOn` as a string."""
    pools, made = [], []
    for number, models in enumerate(tiers):
        enter_on = tuple(each for each in models if isinstance(each, str))
        targets = []
        for at, each in enumerate(each for each in models if not isinstance(each, str)):
            model, weight = each if type(each) is tuple else (each, 100)
            name = f"default/p{number}{'abcd'[at]}"
            endpoints = (snapshot.Endpoint("e", "http://e:80"),)
            pools.append(
                snapshot.Pool(name, (model,), "Auto", None, endpoints, Dispatch(), Capacity(), Metrics(), Health())
            )
            targets.append(snapshot.Target(name, None, weight))
        made.append(snapshot.RouteTier(f"t{number}", tuple(targets), "Weighted", enter_on))
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", tuple(made)),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", tuple(pools), (route,)))


def model(*capabilities: Capability, window: int | None = None) -> Model:
    return Model("m", capabilities=capabilities, context_window=window)


def decided(request: Request, *tiers: Any) -> Plan:
    return plan(runtime(*tiers).routes, request, MOMENT)


def names(made: Plan) -> list[str]:
    return [target.pool.name.removeprefix("default/p") for tier in made.tiers for target in tier.targets]


NEEDS: list[tuple[dict[str, Any], Capability]] = [
    *(({"path": path}, kind) for path, kind in KINDS.items()),
    ({"tools": True}, "Tools"),
    ({"images": True}, "Vision"),
    ({"json": True}, "StructuredOutput"),
]


@pytest.mark.parametrize(("asks", "need"), NEEDS, ids=[f"{asks} {need}" for asks, need in NEEDS])
def test_each_need_is_one_capability(asks: dict[str, Any], need: Capability) -> None:
    every = model(*ALL)
    gone = TALKS if need in TALKS else {need}  # what can be asked in one of those APIs can be asked in the other
    without = model(*(each for each in ALL if each not in gone))
    assert lacks(every, Needs(Request(**asks))) == ()
    assert lacks(without, Needs(Request(**asks))) == (need,)
    assert lacks(model(), Needs(Request(**asks))) == ()


def test_chat_alone_is_a_model_without_tools_and_a_path_of_no_kind_needs_nothing() -> None:
    assert lacks(model("Chat"), Needs(Request(tools=True, json=True))) == ("Tools", "StructuredOutput")
    assert lacks(model("Tools"), Needs(Request(path="/v1/moderations"))) == ()


@given(
    tiers=st.lists(
        st.lists(st.tuples(st.sets(st.sampled_from(["Chat", "Tools", "Vision"])), st.sampled_from([0, 1, 100])),
                 min_size=1, max_size=3),
        min_size=1, max_size=4,
    ),
    tools=st.booleans(),
    images=st.booleans(),
)  # fmt: skip
def test_what_is_left_can_serve_and_what_is_left_out_cannot(tiers: Any, tools: bool, images: bool) -> None:
    tiers = [[(model(*sorted(has)), weight) for has, weight in tier] for tier in tiers]
    tiers = [tier if any(weight for _, weight in tier) else [(tier[0][0], 1), *tier[1:]] for tier in tiers]
    request = Request(tools=tools, images=images)
    made = decided(request, *tiers)
    needs = Needs(request)
    for tier in made.tiers:
        assert any(target.weight for target in tier.targets)
        for target in tier.targets:
            assert not lacks(target.pool.spec.models[0], needs)
    able = [
        f"{number}{'abcd'[at]}"
        for number, tier in enumerate(tiers)
        for at, (each, _) in enumerate(tier)
        if not lacks(each, needs) and any(weight and not lacks(other, needs) for other, weight in tier)
    ]
    assert names(made) == able
    assert (made.refused is None) == bool(able)
    assert len(made.left_out) == sum(bool(lacks(each, needs)) for tier in tiers for each, _ in tier)
    if made.refused is not None:
        assert (made.refused.status, made.refused.code) == (400, "no_capable_target")


def test_where_order_alone_decides_no_weight_is_needed() -> None:
    spec = runtime([model("Chat"), (model("Chat", "Vision"), 0)]).spec
    (route,) = spec.routes
    (tier,) = route.rules[0].tiers
    for select, left in (("Weighted", []), ("InOrder", ["0b"])):
        rule = replace(route.rules[0], tiers=(replace(tier, select=select),))
        made = Runtime(replace(spec, routes=(replace(route, rules=(rule,)),)))
        assert names(plan(made.routes, Request(images=True), MOMENT)) == left


def test_the_error_says_what_is_missing_and_where() -> None:
    made = decided(Request(images=True, tools=True), [model("Chat", "Tools")], [model("Chat", "Vision")])
    assert made.refused is not None
    assert made.refused.message.endswith("needs: Vision, Tools")
    assert made.refused.attempts == ("t0 default/p0a: has no Vision", "t1 default/p1a: has no Tools")


def test_a_request_that_its_first_tier_cannot_serve_begins_at_the_next_whatever_may_enter_it() -> None:
    assert names(decided(Request(images=True), [model("Chat")], [model("Chat", "Vision"), "Capacity"])) == ["1a"]


def test_nothing_is_read_of_a_body_where_nobody_declares_anything() -> None:
    request = Request(tools=True)
    assert names(decided(request, [model()], [Model("m")])) == ["0a", "1a"]
    assert not request.asked
    request = Request(tokens=100_000)
    decided(request, [model(window=8192)], [model(window=8192)])
    assert request.asked == {"max_tokens": 1}
    request = Request(tools=True)
    decided(request, [model("Chat")], [model("Chat")], [model("Chat", "Tools")])
    assert request.asked == {"tools": 1, "images": 1, "json": 1}
    request = Request(tools=True)
    decided(request, [model("Chat", "Vision", "StructuredOutput")], [model(*ALL)])
    assert request.asked == {"tools": 1}  # what all have, nobody has to need


# ---- the context window, which is an estimate against a fact

SMALL, LARGE = model(window=8_000), model(window=128_000)


@pytest.mark.parametrize(
    ("tokens", "limit", "tiers", "left"),
    [
        (6_000, 0, [[LARGE], [SMALL]], ["0a", "1a"]),
        (7_000, 0, [[LARGE], [SMALL]], ["0a"]),  # would fit by 12 %: no spill rests on that
        (6_000, 1_000, [[LARGE], [SMALL]], ["0a"]),  # nor with the answer that it asks for
        (20_000, 0, [[SMALL], [SMALL]], ["0a"]),  # home answers itself
        (20_000, 0, [[SMALL]], ["0a"]),
        (20_000, 0, [[SMALL], [LARGE, "Capacity"]], ["0a", "1a"]),  # the policy lets no length enter there
        (20_000, 0, [[SMALL], [LARGE, "Capacity", "ContextLength"]], ["1a"]),
        (9_000, 0, [[SMALL], [LARGE, "ContextLength"]], ["0a", "1a"]),  # home may have room for it after all
        (20_000, 0, [[SMALL], [SMALL], [LARGE, "ContextLength"]], ["2a"]),
        (20_000, 0, [[SMALL, LARGE], [SMALL, "ContextLength"]], ["0b"]),
        (20_000, 0, [[SMALL, (LARGE, 0)]], ["0a", "0b"]),  # what takes no requests gets none for their length
        (20_000, 0, [[Model("m")], [Model("m")]], ["0a", "1a"]),
    ],
)
def test_long_requests_go_where_there_is_room_and_home_where_nobody_can_say(
    tokens: int, limit: int, tiers: Any, left: list[str]
) -> None:
    made = decided(Request(tokens=tokens, limit=limit), *tiers)
    assert made.refused is None
    assert names(made) == left


def test_tokens_are_counted_as_the_pool_has_learned_to() -> None:
    """Code or Chinese: three bytes a token and not four."""
    made = runtime([LARGE], [SMALL])
    assert names(plan(made.routes, Request(tokens=6_000), MOMENT)) == ["0a", "1a"]
    made.pools["default/p1a"].learned.bytes_per_token = 3.0
    assert names(plan(made.routes, Request(tokens=6_000), MOMENT)) == ["0a"]


def test_texts_that_are_embedded_together_need_no_window_together() -> None:
    assert names(decided(Request(path="/v1/embeddings", tokens=90_000), [SMALL], [SMALL])) == ["0a", "1a"]


@given(
    windows=st.lists(st.lists(st.sampled_from([None, 1_000, 8_000, 128_000]), min_size=1, max_size=3), min_size=1),
    tokens=st.integers(1, 200_000),
    limit=st.integers(0, 10_000),
    enters=st.booleans(),
)
def test_an_estimate_refuses_nobody(windows: Any, tokens: int, limit: int, enters: bool) -> None:
    enter_on = ["ContextLength"] if enters else []
    tiers = [[*(model(window=each) for each in tier), *enter_on] for tier in windows]
    made = decided(Request(tokens=tokens, limit=limit), *tiers)
    assert made.refused is None
    assert made.tiers
    for tier in made.tiers[1:]:
        for target in tier.targets:
            window = target.pool.spec.models[0].context_window
            assert window is None or tokens * 1.25 + limit <= window


# ---- what is left of a tier


def spilling(*tiers: Any) -> Runtime:
    """As `runtime`, and the first tier spills by requests in flight."""
    spec = runtime(*tiers).spec
    (route,) = spec.routes
    ramp = Spill(in_flight_per_endpoint=Ramp(start=0, full=1), smoothing="0s", min_dwell="0s")
    first, *others = route.rules[0].tiers
    rule = replace(route.rules[0], tiers=(replace(first, spill=ramp), *others))
    return Runtime(replace(spec, routes=(replace(route, rules=(rule,)),)))


def test_what_is_left_of_a_tier_spills_by_its_own_load() -> None:
    made = spilling([model("Chat"), model("Chat", "Vision")], [model(), "Capacity"])
    made.pools["default/p0a"].endpoints["e"].load.lease(10, 10)
    made.pools["default/p0a"].endpoints["e"].load.lease(10, 10)
    able, whole = (plan(made.routes, Request(images=images), MOMENT).tiers[0] for images in (True, False))
    assert able.spilling is not None
    assert whole.spilling is not None
    assert able.spilling.share(MOMENT.now) == 0.0
    assert whole.spilling.share(MOMENT.now) == 1.0
    again = plan(made.routes, Request(images=True), MOMENT).tiers[0]
    assert again.spilling is able.spilling  # the share that it has come to is kept
    assert [each.pool for each in again.spec.targets] == ["default/p0b"]


def test_a_tier_that_has_become_the_last_spills_no_more() -> None:
    made = plan(spilling([model("Chat", "Vision")], [model("Chat")]).routes, Request(images=True), MOMENT)
    (home,) = made.tiers
    assert (home.spilling, home.spec.spill) == (None, None)


@given(
    tiers=st.lists(st.lists(st.sets(st.sampled_from(["Chat", "Tools", "Vision"])), min_size=1, max_size=3), min_size=1),
    asks=st.sets(st.sampled_from(["tools", "images"])),
    failures=st.lists(st.sampled_from(["connect", "overloaded", "auth", "context-length", "rate-limited"]), max_size=9),
    ejected=st.sets(st.integers(0, 8)),
    seed=st.integers(0, 1000),
)
def test_no_attempt_goes_to_who_cannot_serve_it(tiers: Any, asks: Any, failures: Any, ejected: Any, seed: int) -> None:
    """Whatever fails, whoever is ejected, and in the last resort too."""
    enter_on = ["Capacity", "Transient", "Auth", "ContextLength"]
    made = runtime(*([*(model(*sorted(has)) for has in tier), *enter_on] for tier in tiers))
    for at, pool in enumerate(made.pools.values()):
        for _ in range(3 if at in ejected else 0):
            pool.failed(pool.endpoints["e"], Failure("connect"), 0.0, MOMENT.now)
    request: Any = Request(**dict.fromkeys(asks, True))
    request.prompt = lambda model: None
    decided = plan(made.routes, request, MOMENT)
    if decided.refused is not None:
        return
    needs, route, now = Needs(request), decided.route, MOMENT.now
    retry = Retry(attempts=10, budget_percent=100)
    way = Attempts(decided.tiers, retry, route.retry_budget, request, random.Random(seed), now + 1e3, 0.0)
    for reason in [*failures, None]:
        while isinstance(step := way.next(now), Wait):
            now += step.seconds
        if not isinstance(step, Try):
            return
        served = step.pool.model(request.model, None)
        assert served is not None
        assert not lacks(served, needs)
        if reason is None:
            return
        way.failed(step, Failure(reason, status={"overloaded": 503, "rate-limited": 429, "auth": 401}.get(reason)))


# -- what providers serve


def providers(*kinds: str | None) -> Runtime:
    """A tier for each type of provider, None for endpoints of one's own."""
    pools, tiers = [], []
    for number, kind in enumerate(kinds):
        name, endpoints = f"default/p{number}", (snapshot.Endpoint("e", "http://e:80"),)
        pools.append(
            snapshot.Pool(name, (model(),), "Auto", kind, endpoints, Dispatch(), Capacity(), Metrics(), Health())
        )
        tiers.append(snapshot.RouteTier(f"t{number}", (snapshot.Target(name),), "Weighted", ()))
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", tuple(tiers)),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", tuple(pools), (route,)))


KINDS_OF_POOLS = st.none() | st.sampled_from(sorted(PRESETS)) | st.just("OfANewerOperator")


@given(st.lists(KINDS_OF_POOLS, min_size=1, max_size=4), st.sampled_from(sorted(PATHS)))
def test_no_plan_leads_to_a_provider_that_does_not_serve_the_path(kinds: list[str | None], path: str) -> None:
    made = plan(providers(*kinds).routes, Request(path), MOMENT)
    served = [None if kind is None else served_by(kind) for kind in kinds]
    known = [kind in PRESETS for kind in kinds]
    expected = [
        str(at)
        for at, paths in enumerate(served)
        if (paths is None and path != COUNTING)
        or path in (paths or ())
        or (path in CLIENTS and known[at])  # else it is translated
    ]
    assert names(made) == expected
    assert (made.refused is None) is bool(expected)
    assert [each.pool.removeprefix("default/p") for each in made.left_out] == [
        str(at) for at in range(len(kinds)) if str(at) not in expected
    ]
    if made.refused is not None:
        assert isinstance(made.refused, NoCapableTarget)
        assert KINDS.get(path, path) in str(made.refused)


def test_a_type_that_is_not_known_is_asked_for_nothing() -> None:
    made = plan(providers("OfANewerOperator", None).routes, Request(), MOMENT)
    assert names(made) == ["1"]
    assert made.left_out[0].why == f"its provider has no {CHAT}"


# ---- requests that are translated


def asking(lost: tuple[str, ...] | BadRequest, path: str = MESSAGES) -> Request:
    request = Request(path)
    request.lost = lost
    return request


@pytest.mark.parametrize(
    ("path", "capabilities", "into"),
    [
        (CHAT, (), None),
        (CHAT, ("Chat",), None),
        (CHAT, ("Chat", "Messages"), None),
        (CHAT, ("Messages",), "messages"),
        (MESSAGES, (), "chat"),
        (MESSAGES, ("Chat",), "chat"),
        (MESSAGES, ("Chat", "Messages"), None),
        (MESSAGES, ("Messages",), None),
        ("/v1/completions", ("Messages",), None),
    ],
)
def test_translation_is_for_those_who_do_not_speak_the_clients_api(
    path: str, capabilities: tuple[Capability, ...], into: Api | None
) -> None:
    pool = runtime([model(*capabilities)]).pools["default/p0a"]
    assert pool.apis.into(path, "m") == into


def test_a_field_that_cannot_be_translated_leaves_a_pool_out_and_is_named() -> None:
    request = asking(("top_k", "messages[0].content[1]"))
    request.thorough = True
    made = decided(request, [model("Chat"), model("Messages")], [model()])
    assert names(made) == ["0b"]
    assert [each.why for each in made.left_out] == ["cannot be told top_k, messages[0].content[1]"] * 2


@pytest.mark.parametrize("lost", [("top_k",), BadRequest("odd")])
def test_what_lies_behind_is_looked_at_when_a_request_goes_on(lost: tuple[str, ...] | BadRequest) -> None:
    request = Asked(path=MESSAGES)
    asked: list[Api] = []

    def uncarried(into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        asked.append(into)
        if isinstance(lost, BadRequest):
            raise lost
        return lost

    request.uncarried = uncarried  # type: ignore[method-assign]
    speaks = model("Messages")
    route = runtime([speaks], ["Transient", model("Chat")], ["Transient", speaks]).routes
    made = plan(route, request, MOMENT)
    assert names(made) == ["0a", "1a", "2a"]
    attempts = Attempts(made.tiers, Retry(), made.route.retry_budget, request, MOMENT.dice, 2000.0)
    first = attempts.next(1000.0)
    assert isinstance(first, Try)
    assert not asked
    attempts.failed(first, Failure("server-error", 500))
    second = attempts.next(1000.0)
    assert isinstance(second, Try)
    assert (second.tier, second.into) == ("t2", None)
    assert asked == ["chat"]
    assert any(line.startswith("t1 default/p1a: cannot be") for line in attempts.log)


def test_where_nobody_is_left_the_fields_are_named() -> None:
    made = decided(asking(("top_k",)), [model("Chat")], [model()])
    assert isinstance(made.refused, NoCapableTarget)
    assert "top_k" in made.refused.message
    assert not made.tiers


def test_what_is_not_understood_is_the_clients_fault_only_where_it_would_have_to_be() -> None:
    wrong = BadRequest("the field 'max_tokens' is missing", param="max_tokens")
    assert names(decided(asking(wrong), [model("Chat")], [model("Messages")])) == ["1a"]
    assert decided(asking(wrong), [model("Chat")], [model()]).refused is wrong


def test_what_goes_on_as_it_came_is_never_read_to_be_translated() -> None:
    request = asking(("top_k",), CHAT)
    assert names(decided(request, [model("Chat")], [model()])) == ["0a", "1a"]
    assert not request.asked["uncarried"]
