"""Expressions of rules: what they may read, where they are wrong, and which policies may have them."""

from __future__ import annotations

import datetime

import pytest

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.expressions import VARIABLES, EvaluationError, InvalidExpression, MissingKey, condition
from spillway_api.files import load

LITERALS = ['headers["x-tier"] == "premium"', "tokens_used > 75"]
WHEN = "spec.rules[0].when"
OTHER = {"name": "other", "tiers": [{"name": "only", "pools": [{"name": "openai"}]}]}

SAMPLES = {"bool": True, "string": "s", "dyn": 1.5, "strings": {"a": "b"}, "map": {"x": {"queued": 1}}}
SAMPLES["timestamp"] = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
READS = {
    "bool": "{} == true",
    "string": "{} != ''",
    "dyn": "{} >= 0",
    "strings": "size({}) >= 0",
    "map": "size({}) >= 0",
    "timestamp": "{}.getHours() >= 0",
}


@pytest.mark.parametrize("name", list(VARIABLES))
def test_every_variable_can_be_read_and_is_all_that_is_needed(name):
    made = condition(READS[VARIABLES[name]].format(name))
    assert made.reads == {name}
    assert made.holds({name: SAMPLES[VARIABLES[name]]}) is True


def test_no_variable_begins_with_the_name_of_another():
    assert not [(a, b) for a in VARIABLES for b in VARIABLES if b.startswith(f"{a}.")]


@pytest.mark.parametrize(
    ("used", "held"), [(0, False), (75, False), (75.01, True), (75.0, False), (76, True), (100.0, True)]
)
def test_numbers_compare_whether_they_are_whole_or_not(used, held):
    assert condition("tokens_used > 75").holds({"tokens_used": used}) is held


@pytest.mark.parametrize("tier", ["premium", "basic", ""])
def test_a_header_is_compared_as_written(tier):
    assert condition(LITERALS[0]).holds({"headers": {"x-tier": tier}}) is (tier == "premium")


def test_what_is_not_there_is_told_from_other_errors():
    with pytest.raises(MissingKey):
        condition(LITERALS[0]).holds({"headers": {}})
    with pytest.raises(EvaluationError) as caught:
        condition("tokens_used > 75").holds({"tokens_used": "many"})
    assert not isinstance(caught.value, MissingKey)
    assert condition('"x-tier" in headers && headers["x-tier"] == "premium"').holds({"headers": {}}) is False


def test_loops_without_end_are_errors():
    numbers = f"[{','.join('1' * 50)}]"
    source = f"{numbers}.all(a, {numbers}.all(b, {numbers}.all(c, a == b && b == c)))"
    with pytest.raises(EvaluationError):
        condition(source).holds({})


@pytest.mark.parametrize(
    ("source", "reads", "pools"),
    [
        ('pools["x"].queued > 3', {"pools"}, {"x"}),
        ("pools['x'].ready == 0 || pools [ \"team/y\" ].saturation > 0.5", {"pools"}, {"x", "team/y"}),
        ("pools[model].ready > 0", {"pools", "model"}, None),
        ('pools["x"].ready > 0 && size(pools) > 1', {"pools"}, None),
        ("[1, 2].all(now, now > 0)", set(), set()),
        ('model == "bucket"', {"model"}, set()),
        ("request.stream && tokens.input > 10 && bucket < 5", {"request.stream", "tokens.input", "bucket"}, set()),
        ("true", set(), set()),
    ],
)
def test_only_what_is_read_is_named(source, reads, pools):
    made = condition(source)
    assert made.reads == reads
    assert made.pools == (None if pools is None else frozenset(pools))


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        ('headers["x-tier"] == "a"', {"x-tier"}),
        ("'a' in headers && headers [ 'a' ] == headers[\"b\"]", {"a", "b"}),
        ('size(headers) > 3 && headers["a"] == ""', None),
        ("headers[model] == 'a'", None),
        ("headers.exists(name, name.startsWith('x-'))", None),
        ('"x-" + "tier" in headers', None),
        ('"""a""" in headers', None),
        ('!("a" in headers)', {"a"}),
        ("has(headers.a)", None),
        ('model == "headers"', None),
        ("true", set()),
    ],
)
def test_headers_are_named_where_the_text_names_them(source, headers):
    assert condition(source).headers == (None if headers is None else frozenset(headers))


@pytest.mark.parametrize(
    ("source", "line", "column", "said"),
    [
        ('true ||\n  headers["X-Tier"] == "a"', 2, 3, 'names of headers are in lower case: "x-tier"'),
        ("tokens.inptu > 3", 1, 7, 'there is no "tokens.inptu" (did you mean "tokens.input"?)'),
        ("true &&\nbuckett < 5", 2, 1, 'there is no "buckett" (did you mean "bucket"?)'),
        ('headers["x-tier" == "a"', 1, 24, "Syntax error"),
        ('headers["x-count"] > 3', 1, 20, "found no matching overload"),
        ("tokens.input", 0, 0, "must be true or false, and is of type dyn"),
        ('"yes"', 0, 0, "must be true or false, and is of type string"),
        ("(" * 400 + "true" + ")" * 400, 0, 0, "nested too deep"),
    ],
)
def test_what_does_not_compile_is_refused_with_its_place(source, line, column, said):
    with pytest.raises(InvalidExpression) as caught:
        condition(source)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert said in str(caught.value)


def compiled(built, *, rules=None, **policy):
    edits = dict(policy)
    if rules is not None:
        edits["spec.rules"] = rules
    return compile_snapshot(
        [built("pool"), built("provider"), built("policy", edits)], "default", lambda _secret, _key: True
    )


@pytest.mark.parametrize("literal", LITERALS)
def test_the_snapshot_has_the_rules_in_order_with_their_conditions(built, literal):
    done = compiled(built, **{WHEN: literal, "spec.rules[1]": OTHER})
    assert not done.problems
    (route,) = done.snapshot.routes
    assert [(rule.name, rule.when) for rule in route.rules] == [("default", literal), ("other", None)]


def test_an_expression_that_does_not_compile_is_a_problem_and_its_rule_is_left_out(built):
    done = compiled(built, **{WHEN: "tokens.inptu > 3", "spec.rules[1]": OTHER})
    (problem,) = done.problems
    assert (problem.path, problem.reason, problem.fatal) == (WHEN, "InvalidExpression", True)
    assert problem.message == 'line 1, column 7: there is no "tokens.inptu" (did you mean "tokens.input"?)'
    assert [rule.name for rule in done.snapshot.routes[0].rules] == ["other"]


def test_the_last_good_version_keeps_its_conditions(built):
    before = compiled(built, **{WHEN: LITERALS[0], "spec.rules[1]": OTHER})
    broken = {WHEN: LITERALS[0] + "]", "spec.rules[1]": {**OTHER, "when": "bucket < 5"}}
    cluster = Cluster(last_good=before.memory)
    for provider in ([built("provider")], []):  # also when a pool is gone, and with it what led there
        policy = built("policy", broken)
        after = compile_snapshot([built("pool"), *provider, policy], "default", lambda _secret, _key: True, cluster)
        assert after.kept == {"default/chat"}
        (route,) = after.snapshot.routes
        assert [(rule.name, rule.when) for rule in route.rules] == [("default", LITERALS[0]), ("other", None)]
        assert len(route.rules[1].tiers) == len(provider)


def test_a_rule_without_any_pool_stays_and_its_requests_go_nowhere_else(built):
    rules = [{**OTHER, "when": LITERALS[0], "tiers": [{"name": "only", "pools": [{"name": "gone"}]}]}]
    rules.append({"name": "default", "tiers": [{"name": "only", "pools": [{"name": "llama"}]}]})
    done = compiled(built, rules=rules)
    assert [problem.reason for problem in done.problems] == ["PoolNotFound"]
    (route,) = done.snapshot.routes
    assert [(rule.name, len(rule.tiers)) for rule in route.rules] == [("other", 0), ("default", 1)]
    assert not compiled(built, rules=rules[:1]).snapshot.routes


def test_a_pool_that_the_policy_does_not_lead_to_is_a_problem(built):
    done = compiled(built, **{WHEN: 'pools["lama"].ready > 0', "spec.rules[1]": OTHER})
    (problem,) = done.problems
    assert (problem.path, problem.reason) == (WHEN, "InvalidExpression")
    assert problem.message == 'pools["lama"]: this policy leads to no such pool; it leads to "llama", "openai"'
    assert not compiled(built, **{WHEN: 'pools["openai"].ready > 0', "spec.rules[1]": OTHER}).problems


@pytest.mark.parametrize(
    ("whens", "good"),
    [
        ([None], True),
        (["true"], True),
        (["true", None], True),
        (["true", "true"], True),
        ([None, "true"], False),
        ([None, None], False),
        (["true", None, "true"], False),
        (["true", None, None], False),
    ],
)
def test_only_the_last_rule_may_go_without_a_condition(edited, errors_of, whens, good):
    tiers = OTHER["tiers"]
    rules = [
        {"name": f"r{at}", "tiers": tiers} | ({} if when is None else {"when": when}) for at, when in enumerate(whens)
    ]
    errors = errors_of(edited("policy", {"spec.rules": rules}))
    assert (not errors) is good
    assert all("only the last rule may leave out when" in error for error in errors)


def test_files_say_where_the_expression_stands(tmp_path):
    text = """apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {name: chat}
spec:
  models: [chat]
  rules:
  - name: big
    when: tokens.inptu > 3
    tiers: [{name: only, pools: [{name: openai}]}]
"""
    (tmp_path / "policy.yaml").write_text(text)
    loaded = load([tmp_path])
    done = compile_snapshot(loaded.objects, "default", lambda _secret, _key: True)
    found = next(problem for problem in done.problems if problem.reason == "InvalidExpression")
    placed = loaded.problem_at(found.object, found.path, found.message)
    assert (placed.line, placed.column) == (8, 5)
    assert "line 1, column 7" in str(placed)
