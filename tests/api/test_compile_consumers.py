"""Who may call: Secrets by their labels, told apart from a route that is open, and never more than there are today."""

from __future__ import annotations

import pytest

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.consumers import KEY, MOST
from spillway_api.labelled import Labelled, has_labels
from spillway_api.snapshot import Consumer, Consumers

WANTED = {"app": "key"}
NOBODYS = {"spec.consumers.defaults": "ABSENT"}


def secret(name, annotations=None, **labels):
    return Labelled(name, {**WANTED, **labels}, annotations or {})


class Shelf:
    """The Secrets of the namespace `default`."""

    def __init__(self, *secrets, keyless=()):
        self.secrets = secrets
        self.keyless = keyless

    def has(self, name, key):
        return key == KEY and name not in self.keyless

    def selected(self, namespace, labels):
        assert namespace == "default"
        return [each for each in self.secrets if has_labels(each.labels, labels)]


@pytest.fixture
def compiled(built):
    """`compiled(shelf, edits, …)`: of a policy that names its callers, and its pool."""

    def make(shelf, edits=None, last=None, selected=None):
        cluster = Cluster(selected=selected or shelf.selected, last_good=last)
        return compile_snapshot(
            [built("pool"), built("closed", NOBODYS | (edits or {}))], "default", shelf.has, cluster
        )

    return make


def consumers(of):
    (route,) = of.snapshot.routes
    return route.consumers


def said(of):
    return [(problem.reason, problem.fatal) for problem in of.problems]


def test_a_policy_that_names_nobody_is_open(built):
    found = compile_snapshot([built("pool"), built("provider"), built("policy")], "default", lambda *_: True)
    assert consumers(found) is None


def test_secrets_with_the_labels_are_consumers_in_the_order_of_their_names(compiled):
    found = compiled(Shelf(secret("b", team="x"), secret("a"), Labelled("other", {"app": "db"}, {})))
    members = (
        Consumer("a", "default/a", KEY, WANTED),
        Consumer("b", "default/b", KEY, {**WANTED, "team": "x"}),
    )
    assert consumers(found) == Consumers(WANTED, members)
    assert said(found) == []


def test_nobody_is_not_everybody(compiled):
    found = compiled(Shelf())
    assert consumers(found) == Consumers(WANTED, ())
    assert said(found) == [("SecretNotFound", False)]


def test_where_secrets_may_not_be_listed_nobody_may_call_and_that_is_said(compiled):
    found = compiled(Shelf(secret("a")), selected=lambda *_: None)
    assert consumers(found) == Consumers(WANTED, ())
    assert said(found) == [("SecretsNotListed", False)]
    assert "consumers.enabled" in found.problems[0].message


def test_a_secret_without_the_key_is_left_out_alone(compiled):
    found = compiled(Shelf(secret("a"), secret("b"), keyless={"default/a"}))
    assert [each.name for each in consumers(found).members] == ["b"]
    assert said(found) == [("SecretKeyNotFound", False)]


def test_there_are_only_so_many(compiled):
    found = compiled(Shelf(*(secret(f"c{number:05}") for number in range(MOST + 2))))
    assert len(consumers(found).members) == MOST
    assert said(found) == [("Invalid", False)]


@pytest.mark.parametrize(
    "labels", [{"a b": "x"}, {"app": "a,b=c"}, {"/x": "y"}, {"app": "-a"}, {"Big.org/x": "y"}, {"a=b": "c"}]
)
def test_labels_that_no_secret_can_have_are_refused_and_let_nobody_in(compiled, labels):
    found = compiled(Shelf(secret("a")), {"spec.consumers.secretSelector.matchLabels": labels})
    assert consumers(found).members == ()
    assert said(found) == [("Invalid", True)]


@pytest.mark.parametrize("labels", [{"a.b/c-d_e": ""}, {"a": "A.b_c-9"}])
def test_labels_that_a_secret_can_have(compiled, labels):
    found = compiled(Shelf(), {"spec.consumers.secretSelector.matchLabels": labels})
    assert said(found) == [("SecretNotFound", False)]


def test_a_key_that_is_gone_is_refused_however_bad_its_policy_has_become(compiled):
    both = compiled(Shelf(secret("a"), secret("b")))
    bad = {"spec.rules[0].tiers[0].pools[0].name": "gone"}
    left = compiled(Shelf(secret("b")), bad, both.memory)
    assert left.kept == {"default/closed"}
    assert [each.name for each in consumers(left).members] == ["b"]
    unlisted = compiled(Shelf(), bad, left.memory, selected=lambda *_: None)
    assert consumers(unlisted).members == ()


DEFAULTS = {"requestsPerMinute": 60, "budget": {"amount": "5", "currency": "EUR", "period": "Day"}}


@pytest.mark.parametrize(
    ("annotations", "limits"),
    [
        ({}, (60, None, None, "5")),
        ({"requests-per-minute": "600"}, (600, None, None, "5")),
        ({"tokens-per-minute": " 9000 ", "max-in-flight": "3"}, (60, 9000, 3, "5")),
        ({"budget": "0.25"}, (60, None, None, "0.25")),
        ({"budget": "none", "requests-per-minute": "none"}, None),
        ({"requests-per-minute": "none"}, (None, None, None, "5")),
    ],
)
def test_a_secret_may_say_otherwise_for_its_consumer(compiled, annotations, limits):
    own = {f"spillway.dev/{name}": value for name, value in annotations.items()}
    found = compiled(Shelf(secret("a", own), secret("b")), {"spec.consumers.defaults": DEFAULTS})
    one, other = consumers(found).members
    assert said(found) == []
    assert other.limits.requests_per_minute == 60
    if limits is None:
        assert one.limits is None
        return
    has = one.limits
    amount = has.budget and has.budget.amount
    assert (has.requests_per_minute, has.tokens_per_minute, has.max_in_flight, amount) == limits
    assert has.budget is None or (has.budget.currency, has.budget.period) == ("EUR", "Day")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("requests-per-minute", "0"),
        ("requests-per-minute", "6O"),
        ("tokens-per-minute", "1e6"),
        ("max-in-flight", str(2**31)),
        ("max-in-flight", "-1"),
        ("budget", "5 EUR"),
        ("budget", ""),
        ("budget", "None"),
    ],
)
def test_an_annotation_that_cannot_be_read_lifts_no_limit_and_is_told(compiled, name, value):
    found = compiled(Shelf(secret("a", {f"spillway.dev/{name}": value})), {"spec.consumers.defaults": DEFAULTS})
    (one,) = consumers(found).members
    assert one.limits == consumers(found).defaults
    assert said(found) == [("Invalid", False)]
    assert f"spillway.dev/{name}" in found.problems[0].message


def test_a_budget_without_a_default_is_of_dollars_and_a_month(compiled):
    (one,) = consumers(compiled(Shelf(secret("a", {"spillway.dev/budget": "7"})))).members
    assert (one.limits.budget.amount, one.limits.budget.currency, one.limits.budget.period) == ("7", "USD", "Month")


@pytest.mark.parametrize(
    ("price", "said_of_it"),
    [
        (None, "has no price, so what it costs is not counted"),
        ({"input": "1", "currency": "USD"}, "is paid in USD and not in EUR, so no consumer gets it"),
        ({"input": "1", "currency": "EUR"}, None),
    ],
)
def test_what_a_budget_does_not_count_is_told(built, price, said_of_it):
    models = [{"name": "chat", **({} if price is None else {"price": price})}]
    pool = built("provider", {"metadata.name": "llama", "spec.models": models})
    policy = built("closed", {"spec.consumers.defaults": DEFAULTS})
    shelf = Shelf(secret("a"))
    found = compile_snapshot([pool, policy], "default", shelf.has, Cluster(selected=shelf.selected))
    assert [problem.fatal for problem in found.problems] == ([] if said_of_it is None else [False])
    assert all(said_of_it in problem.message for problem in found.problems)
