"""What `spillway explain` says follows from the state that is assumed, and is what the balancer itself would do."""

from __future__ import annotations

import pytest

SESSION = ("-H", "x-session-id: ann")


def steps(account, kind):
    return [step for step in account["steps"] if step["type"] == kind]


def test_all_is_ready_and_idle_unless_something_else_is_assumed(bench, two_tiers) -> None:
    account = bench.account(two_tiers(inFlightPerEndpoint={"start": 4, "full": 8}))
    assert account["policy"] == "default/chat"
    assert account["rules"] == [{"name": "all", "when": None, "result": "holds"}]
    assert account["tiers"] == ["local", "cloud"]
    outcome = account["outcome"]
    assert (outcome["type"], outcome["tier"], outcome["pool"]) == ("served", "local", "default/own")
    assert (outcome["spilled"], outcome["attempt"], outcome["upstreamModel"]) == (False, 1, "own-model")
    (spill,) = steps(account, "spill")
    assert (spill["share"], spill["leaves"]) == (0.0, False)
    (look,) = steps(account, "look")
    assert [each["state"] for each in look["endpoints"]] == ["ready", "ready"]
    assert outcome["endpoint"] == look["chosen"]
    assert account["header"].startswith(f"rule=all; tier=local; pool=default/own; endpoint={look['chosen']}; ")


def test_a_full_pool_is_left_before_it_is_tried(bench, two_tiers) -> None:
    policies = two_tiers(inFlightPerEndpoint={"start": 4, "full": 8})
    account = bench.account(policies, state={"pools": {"own": {"inFlight": 8}}})
    (spill,) = steps(account, "spill")
    assert (spill["share"], spill["leaves"]) == (1.0, True)
    assert spill["signals"] == [{"name": "inFlightPerEndpoint", "value": 8.0, "start": 4.0, "full": 8.0}]
    assert steps(account, "leave") == [{"type": "leave", "tier": "local", "reason": "saturated", "onward": True}]
    assert (account["outcome"]["tier"], account["outcome"]["spilled"]) == ("cloud", True)
    assert "spill=local:1.00" in account["header"]


SIGNALS = [
    ({"queuedPerEndpoint": {"start": 0, "full": 4}}, {"queued": 2}, 2.0),
    ({"inFlightPerEndpoint": {"start": 0, "full": 8}}, {"inFlight": 4}, 4.0),
    ({"predictedTTFT": {"start": "0s", "full": "6s"}}, {"predictedTTFT": "3s"}, 3.0),
    ({"predictedTTFT": {"start": "0s", "full": "6s"}}, {"predictedTTFT": "3s", "inFlight": 9, "queued": 5}, 3.0),
    ({"predictedTTFT": {"start": "0s", "full": "6s"}}, {"predictedTTFT": "50s"}, 50.0),
    ({"kvCachePercent": {"start": 0, "full": 100}}, {"kvCachePercent": 50}, 50.0),
    ({"errorPercent": {"start": 0, "full": 100}}, {"errorPercent": 50}, 50.0),
    ({"errorPercent": {"start": 0, "full": 100}}, {"errorPercent": 100}, 100.0),
]


@pytest.mark.parametrize(("spill", "given", "value"), SIGNALS, ids=str)
def test_each_signal_is_what_the_state_says(bench, two_tiers, spill, given, value) -> None:
    account = bench.account(two_tiers(**spill), state={"pools": {"own": given}})
    (seen,) = steps(account, "spill")
    assert [signal["value"] for signal in seen["signals"]] == [pytest.approx(value)]
    assert seen["share"] == pytest.approx(min(1.0, value / seen["signals"][0]["full"]))


def test_unknown_signals_are_said_to_be_unknown(bench, two_tiers) -> None:
    said = bench.explain(two_tiers(predictedTTFT={"start": "2s", "full": "6s"}))
    assert "predictedTTFT: unknown (leave from 2 s, all at 6 s)" in said.out


STATES = [
    ({"health": "Failing"}, "fails its probes"),
    ({"circuit": "Open"}, "ejected for 5 s"),
    ({"limitedFor": "30s"}, "limited for 30 s"),
    ({"credential": "Missing"}, "has no credential"),
    ({"credential": "Refused"}, "does not take its credential"),
]


@pytest.mark.parametrize(("given", "state"), STATES, ids=[state for _, state in STATES])
def test_why_an_endpoint_is_not_chosen(bench, two_tiers, given, state) -> None:
    account = bench.account(two_tiers(), state={"pools": {"own": {"endpoints": {"e1": given}}}})
    (look,) = steps(account, "look")
    assert {each["name"]: each["state"] for each in look["endpoints"]} == {"e1": state, "e2": "ready"}
    assert look["chosen"] == "e2"


def test_a_pool_of_which_nothing_is_ready_is_left_or_not(bench, two_tiers) -> None:
    state = {"pools": {"own": {"ready": 0}}}
    assert bench.account(two_tiers(), state=state)["outcome"]["tier"] == "cloud"
    refused = bench.explain(two_tiers(enter_on=["Transient"]), "--json", state=state)
    assert refused.code == 1
    account = refused.json()
    assert steps(account, "leave") == [
        {"type": "leave", "tier": "local", "reason": "no-ready-endpoint", "onward": False}
    ]
    outcome = account["outcome"]
    assert (outcome["type"], outcome["status"], outcome["code"]) == ("refused", 503, "no_ready_endpoint")


def test_so_many_endpoints_are_ready(bench, two_tiers) -> None:
    account = bench.account(two_tiers(), state={"pools": {"own": {"ready": 1}}})
    (look,) = steps(account, "look")
    assert [each["state"] for each in look["endpoints"]] == ["ready", "fails its probes"]


def test_attempts_that_are_assumed_to_fail_go_on_as_the_policy_says(bench, two_tiers) -> None:
    state = {"pools": {"own": {"fails": "server-error"}}}
    account = bench.account(two_tiers(), state=state)
    tried = [f"{step['pool']}/{step['endpoint']}: {step['failure']}" for step in steps(account, "attempt")]
    assert sorted(tried) == ["default/own/e1: server-error (500)", "default/own/e2: server-error (500)"]
    assert (account["outcome"]["endpoint"], account["outcome"]["attempt"]) == ("main", 3)
    assert "attempt=3" in account["header"]
    one = bench.account(two_tiers(), state={"pools": {"own": {"fails": "bad-request"}}})
    assert len(steps(one, "attempt")) == 1
    assert one["outcome"]["type"] == "refused"


def test_what_is_cached_of_the_prompt_draws_it(bench, two_tiers) -> None:
    words = [{"role": "user", "content": "In the beginning the reef was without form, and void. " * 200}]
    for name in ("e1", "e2"):
        state = {"pools": {"own": {"endpoints": {name: {"cachedPercent": 80}}}}}
        account = bench.account(two_tiers(), state=state, messages=words)
        outcome = account["outcome"]
        assert (outcome["endpoint"], outcome["reason"]) == (name, "prefix")
        assert outcome["cachedTokens"] == pytest.approx(0.8 * outcome["promptTokens"], rel=0.05)
        (look,) = steps(account, "look")
        costs = {each["name"]: each["cost"] for each in look["endpoints"]}
        assert min(costs, key=costs.__getitem__) == name


def test_rules_say_why_they_do_not_hold(bench, examples) -> None:
    account = bench.account(examples / "rules.yaml", *SESSION, body={"model": "best-model", "messages": []})
    assert {rule["name"]: rule["result"] for rule in account["rules"]} == {
        "near-limit": "does not hold",
        "premium": "missing",
        "long": "does not hold",
        "canary": "does not hold",
        "default": "holds",
    }
    account = bench.account(
        examples / "rules.yaml", "-H", "x-tier: premium", body={"model": "best-model", "messages": []}
    )
    assert [rule["result"] for rule in account["rules"]] == ["does not hold", "holds", *["not asked"] * 3]
    assert account["outcome"]["pool"] == "default/large"


def test_the_key_and_its_bucket_are_told(bench, two_tiers) -> None:
    account = bench.account(two_tiers(), *SESSION)
    again = bench.account(two_tiers(), "-H", "X-Session-Id:ann")
    assert account["key"] == "Header x-session-id"
    assert account["bucket"] == again["bucket"]
    assert account["outcome"] == again["outcome"]


@pytest.mark.parametrize(("now", "rule"), [("2026-05-01T22:30:00+02:00", "night"), ("2026-05-01T12:00:00Z", "day")])
def test_time_is_what_the_state_says(bench, two_tiers, now, rule) -> None:
    policies = two_tiers()
    tiers = "tiers: [{name: local, pools: [{name: own}]}]"
    text = policies.read_text().split("kind: RoutePolicy")[0] + (
        "kind: RoutePolicy\nmetadata: {name: chat}\nspec:\n  models: [chat]\n  rules:\n"
        f"  - {{name: night, when: 'now.getHours() >= 20', {tiers}}}\n  - {{name: day, {tiers}}}\n"
    )
    assert bench.account(bench.write("policies.yaml", text), state={"now": now})["rule"] == rule


def test_the_header_has_these_names_in_this_order(bench, two_tiers) -> None:
    """They are what scripts read: new ones are added, these stay."""
    policies = two_tiers(inFlightPerEndpoint={"start": 4, "full": 8})
    header = bench.account(policies, state={"pools": {"own": {"inFlight": 8}}})["header"]
    assert header == (
        "rule=all; tier=cloud; pool=default/other; endpoint=main; strategy=Adaptive; reason=least-work; attempt=1; "
        "prompt-tokens=8; requests=0; spill=local:1.00; cached-tokens=0; queued-tokens=0; ttft=0.001; "
        "bytes-per-token=4.00; prefill-rate=unknown; speed=1.00; cache-tokens=400000; policy=default/chat; "
        "matched=chat; model=other-model; before=local: saturated"
    )


def test_guards_are_told_and_what_they_keep_out(bench, examples) -> None:
    account = bench.account(examples / "eu-only.yaml", state={"pools": {"frankfurt": {"fails": "overloaded"}}})
    assert [(guard["name"], guard["result"]) for guard in account["guards"]] == [("eu-only", "missing")]
    assert [each["pool"] for each in account["leftOut"]] == ["default/cheap", "default/anywhere"]
    assert account["tiers"] == ["frankfurt"]
    assert account["outcome"]["code"] == "no_compliant_target"
    assert [step["why"] for step in steps(account, "wait")] == ["overloaded"]
    public = bench.account(examples / "eu-only.yaml", "-H", "x-data-class: public")
    assert [(guard["name"], guard["result"]) for guard in public["guards"]] == [("eu-only", "does not hold")]
    assert "guards=" not in public["header"]
    personal = bench.account(examples / "eu-only.yaml", "-H", "x-data-class: personal")
    assert "; guards=eu-only" in personal["header"]
    assert "; left-out=cheap:default/cheap(not compliant),anywhere:" in personal["header"]


def only(**pools: object) -> list[dict]:
    return [{"name": "only", "pools": [{"name": name, **(each or {})} for name, each in pools.items()]}]


@pytest.fixture
def made(bench):
    """`made(pools, tiers, …)`: policies of pools, each by its models, and one rule."""

    def write(pools, tiers, rule=None, **spec):
        docs = []
        for name, models in pools.items():
            static = {"endpoints": [{"name": "e1", "url": f"http://{name}:80"}]}
            capacity = {"maxInFlightPerEndpoint": 4}
            inside = {"models": models, "source": {"static": static}, "capacity": capacity}
            docs.append({"kind": "ModelPool", "metadata": {"name": name}, "spec": inside})
        rules = [{"name": "all", "tiers": tiers, **(rule or {})}]
        docs.append(
            {"kind": "RoutePolicy", "metadata": {"name": "r"}, "spec": {"models": ["chat"], "rules": rules, **spec}}
        )
        return bench.write("policies.yaml", [{"apiVersion": "spillway.dev/v1alpha1", **doc} for doc in docs])

    return write


def test_pools_that_are_chosen_by_a_score_show_it(bench, made) -> None:
    def priced(price):
        return [{"name": "m", "price": {"input": price, "output": price}}]

    tiers = [{**only(dear=None, cheap=None)[0], "select": "Cheapest"}]
    policies = made({"dear": priced("10"), "cheap": priced("1")}, tiers)
    account = bench.account(policies)
    (look,) = steps(account, "look")
    assert (look["pool"], look["select"]) == ("default/cheap", "Cheapest")
    full = bench.account(policies, state={"pools": {"cheap": {"inFlight": 4}}})
    cheap, dear = steps(full, "look")
    assert dear["score"] == pytest.approx(10 * cheap["score"])
    assert (cheap["reason"], full["outcome"]["pool"]) == ("saturated", "default/dear")
    assert ", Cheapest 0.000" in bench.explain(policies).out


def test_who_finds_no_room_waits_for_it(bench, made) -> None:
    policies = made({"own": [{"name": "m"}]}, only(own=None), queue={"maxWait": "7s"})
    account = bench.account(policies, state={"pools": {"own": {"inFlight": 4}}})
    assert [(step["tier"], step["seconds"], step["known"]) for step in steps(account, "queue")] == [
        ("only", 7.0, False)
    ]
    assert (account["outcome"]["status"], account["outcome"]["code"]) == (503, "queue_timeout")


def test_who_finds_a_limit_waits_for_its_end(bench, made) -> None:
    policies = made({"own": [{"name": "m"}]}, only(own=None))
    account = bench.account(policies, state={"pools": {"own": {"limitedFor": "20s"}}})
    assert [step["seconds"] for step in steps(account, "queue")] == [20.0]
    assert account["outcome"]["endpoint"] == "e1"
    late = bench.account(policies, state={"pools": {"own": {"limitedFor": "40s"}}})
    assert (late["outcome"]["status"], late["outcome"]["retryAfter"]) == (429, 40.0)
    assert not steps(late, "queue")


def test_without_a_queue_nobody_waits(bench, made) -> None:
    policies = made({"own": [{"name": "m"}]}, only(own=None), queue={"maxRequests": 0})
    account = bench.account(policies, state={"pools": {"own": {"inFlight": 4}}})
    assert not steps(account, "queue")
    assert account["outcome"]["status"] == 503


def test_what_a_rule_lowers_is_told(bench, made) -> None:
    policies = made({"own": [{"name": "m"}]}, only(own=None), rule={"set": {"maxOutputTokens": 100}})
    account = bench.account(policies)
    assert account["clamp"] == {"maxOutputTokens": 100}
    assert "; set=max-output-tokens:100" in account["header"]
    assert "lowered  to at most 100 tokens of answer, by rule all" in bench.explain(policies).out


def test_a_caller_that_chooses_itself_may_or_may_not(bench, made) -> None:
    pools = {"own": [{"name": "m"}], "other": [{"name": "m"}]}
    policies = made(pools, only(own=None, other={"weight": 0}), overrides={"allow": ["Pool"]})
    account = bench.account(policies, "-H", "x-spillway-pool: other")
    assert account["outcome"]["pool"] == "default/other"
    assert [(each["pool"], each["why"]) for each in account["leftOut"]] == [("default/own", "not asked for")]
    refused = bench.account(policies, "-H", "x-spillway-rule: all")
    assert refused["outcome"]["status"] == 403


CLOUD = [{"name": "m", "price": {"input": "1", "output": "1"}}]
LIMITS = [
    ("budget", {"budget": {"amount": "10.00"}}, "budget"),
    ("requestsPerMinute", {"requestsPerMinute": 60}, "rate-limited"),
    ("tokensPerMinute", {"tokensPerMinute": 1000}, "rate-limited"),
    ("maxSharePercent", {"maxSharePercent": 30}, "saturated"),
]


@pytest.mark.parametrize(("name", "limit", "reason"), LIMITS, ids=[name for name, _, _ in LIMITS])
def test_what_is_used_of_a_tiers_limits_is_what_the_state_says(bench, made, name, limit, reason) -> None:
    tiers = [*only(own=None), {"name": "cloud", "pools": [{"name": "cloud"}], "limits": limit}]
    policies = made({"own": [{"name": "m"}], "cloud": CLOUD}, tiers)
    for used in (0, 40, 100):
        given = {"pools": {"own": {"ready": 0}}, "policies": {"r": {"tiers": {"cloud": {name: used}}}}}
        account = bench.account(policies, state=given)
        look = steps(account, "look")[-1]
        assert look["limits"] == {name: pytest.approx(used, abs=2)}
        if used < 100:
            assert account["outcome"]["tier"] == "cloud"
        else:
            assert look["reason"] == reason
            assert account["outcome"]["type"] == "refused"
    assert f"limits: 100 % of {name} used" in bench.explain(policies, state=given).out


def test_a_slip_in_what_is_used_is_said(bench, made) -> None:
    policies = made({"own": [{"name": "m"}]}, only(own=None))
    for given, message in (
        ({"policies": {"q": {}}}, 'policies.q: no policy "q"'),
        ({"policies": {"r": {"tiers": {"onyl": {}}}}}, 'policies.r.tiers.onyl: no tier "onyl" (did you mean "only"?)'),
        ({"policies": {"r": {"tiers": {"only": {"budget": 5}}}}}, "the tier has no limit budget"),
        ({"consumer": {"name": "ann"}}, "consumer: no policy names consumers"),
    ):
        said = bench.explain(policies, state=given)
        assert said.code == 2
        assert message in said.err


def test_who_asks_is_who_the_state_says(bench, made) -> None:
    rule = {"when": 'consumer.labels["team"] == "search"'}
    consumers = {"secretSelector": {"matchLabels": {"spillway.dev/consumer": "r"}}}
    guard = {"name": "eu", "when": 'model == "x"', "require": {"jurisdictions": ["EU"]}}
    policies = made({"own": [{"name": "m"}]}, only(own=None), rule=rule, consumers=consumers, guards=[guard])
    nobody = bench.account(policies)
    assert (nobody["outcome"]["status"], nobody["outcome"]["code"]) == (401, "invalid_api_key")
    assert [each["result"] for each in nobody["guards"] + nobody["rules"]] == ["not asked"] * 2
    ann = bench.account(policies, state={"consumer": {"name": "ann", "labels": {"team": "search"}}})
    assert (ann["consumer"], ann["outcome"]["endpoint"]) == ("default/ann", "e1")
    bob = bench.account(policies, state={"consumer": {"name": "bob", "labels": {"team": "sales"}}})
    assert (bob["consumer"], bob["outcome"]["code"]) == ("default/bob", "no_rule")
    assert (
        "caller   default/ann"
        in bench.explain(policies, state={"consumer": {"name": "ann", "labels": {"team": "search"}}}).out
    )


def test_a_consumer_of_the_files_is_known_by_the_key(bench, made) -> None:
    consumers = {"secretSelector": {"matchLabels": {"a": "b"}}}
    policies = made({"own": [{"name": "m"}]}, only(own=None), consumers=consumers)
    secret = (
        "---\napiVersion: v1\nkind: Secret\nmetadata: {name: ann, labels: {a: b}}\nstringData: {api-key: sk-quagga}\n"
    )
    policies.write_text(policies.read_text() + secret)
    account = bench.account(policies, "-H", "authorization: Bearer sk-quagga")
    assert account["consumer"] == "default/ann"
    said = bench.explain(policies, "-H", "authorization: Bearer sk-quagga")
    assert "quagga" not in said.out + said.err
    assert bench.account(policies, "-H", "authorization: Bearer sk-zebra")["outcome"]["status"] == 401
    assert bench.account(policies, state={"consumer": {"name": "ann"}})["consumer"] == "default/ann"


def test_what_a_consumer_has_used_is_what_the_state_says(bench, examples) -> None:
    policies = examples / "near-limit.yaml"
    for limit, variable in (("tokensPerMinute", 60), ("requestsPerMinute", 50), ("maxInFlight", 75)):
        state = {"consumer": {"name": "team-a", "used": {limit: variable}}}
        account = bench.account(policies, state=state)
        assert account["used"][limit] == pytest.approx(variable, abs=1)
        assert account["outcome"]["pool"] == "default/large"
    full = bench.explain(policies, state={"consumer": {"name": "team-a", "used": {"maxInFlight": 100}}})
    assert full.code == 1
    assert "caller   default/team-a, 100 % of maxInFlight" in full.out
    assert "answer   429" in full.out
    newcomer = bench.account(policies, state={"consumer": {"name": "team-z", "used": {"tokensPerMinute": 60}}})
    assert newcomer["used"]["tokensPerMinute"] == pytest.approx(60)
    slip = bench.explain(policies, state={"consumer": {"name": "team-a", "used": {"budget": 60}}})
    assert "consumer.used.budget: no consumer has a limit budget" in slip.err


SCALED = """
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {name: own}
spec:
  models: [{name: m}]
  source: {pods: {selector: {matchLabels: {app: vllm}}, ports: [8000]}}
  scaling: {targetRef: {apiVersion: apps/v1, kind: Deployment, name: vllm}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {name: cloud}
spec:
  models: [{name: m}]
  source: {static: {endpoints: [{name: e1, url: "http://cloud:80"}]}}
---
apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {name: r}
spec:
  models: [chat]
  rules:
  - name: all
    tiers:
    - {name: own, pools: [{name: own}], spill: {whenCold: COLD, holdFor: 4s}}
    - {name: cloud, pools: [{name: cloud}]}
"""


@pytest.mark.parametrize(
    ("when_cold", "waits", "outcome"),
    [("Spill", [], "cloud"), ("HoldThenSpill", [(4.0, True)], "cloud"), ("Hold", [(600.0, False)], "queue_timeout")],
)
def test_what_is_scaled_to_zero_is_waited_for_as_the_policy_says(bench, when_cold, waits, outcome) -> None:
    policies = bench.write("policies.yaml", SCALED.replace("COLD", when_cold))
    account = bench.account(policies, state={"pools": {"own": {"ready": 0}}})
    assert [(step["seconds"], step["known"]) for step in steps(account, "queue")] == waits
    assert {step["tier"] for step in steps(account, "queue")} <= {"own"}, "told where it is held"
    assert account["outcome"].get("tier", account["outcome"].get("code")) == outcome
    awake = bench.account(policies)
    assert awake["outcome"]["tier"] == "own"
    if when_cold == "HoldThenSpill":  # without a place to wait in, nobody is held
        text = policies.read_text().replace("  models: [chat]", "  models: [chat]\n  queue: {maxRequests: 0}")
        account = bench.account(bench.write("policies.yaml", text), state={"pools": {"own": {"ready": 0}}})
        assert (steps(account, "queue"), account["outcome"]["tier"]) == ([], "cloud")


def test_what_one_request_may_cost_is_told(bench, made) -> None:
    price = {"input": "1000", "output": "1000"}
    pools = {"dear": [{"name": "m", "price": price}], "free": [{"name": "m"}]}
    tiers = [*only(dear=None), {"name": "other", "pools": [{"name": "free"}], "enterOn": ["Capacity", "Budget"]}]
    account = bench.account(made(pools, tiers, retry={"maxCost": {"amount": "0.01"}}))
    dear, free = steps(account, "look")
    assert (dear["pool"], dear["reason"]) == ("default/dear", "budget")
    assert (free["pool"], account["outcome"]["pool"]) == ("default/free", "default/free")


def test_a_pool_is_as_fast_as_the_state_says(bench, made) -> None:
    pools = {"one": [{"name": "m"}], "two": [{"name": "m"}]}
    policies = made(pools, [{**only(one=None, two=None)[0], "select": "Fastest"}])
    slow, quick = {"firstToken": "2s", "tokensPerSecond": 50}, {"firstToken": "500ms", "tokensPerSecond": 100}
    account = bench.account(policies, state={"pools": {"one": slow, "two": quick}})
    (look,) = steps(account, "look")
    assert look["pool"] == "default/two"
    assert look["score"] == pytest.approx(0.5 + 200 / 100, rel=0.02)  # an answer of unknown length is taken for 200
    slip = bench.explain(policies, state={"pools": {"one": {"firstToken": "2s"}}})
    assert "firstToken and tokensPerSecond go together" in slip.err


def test_a_second_attempt_beside_a_slow_one_is_told(bench, made) -> None:
    policies = made({"own": [{"name": "m"}]}, [{**only(own=None)[0], "hedge": {"after": "800ms"}}])
    assert bench.account(policies, stream=True)["outcome"]["hedgedAfter"] == 0.8
    assert bench.account(policies)["outcome"]["hedgedAfter"] is None
    said = bench.explain(policies, body={"model": "chat", "stream": True, "messages": []})
    assert "hedged   by a second attempt when no first token has come after 0.8 s" in said.out
