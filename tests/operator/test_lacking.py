"""Which Pods lack the sidecar that they asked for, and what is said of each."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator import facts
from spillway_operator.injection import CONTAINER, INJECTED, LABEL, Sidecar
from spillway_operator.lacking import (
    CONDITION,
    Lack,
    Seen,
    Shown,
    condition,
    differs,
    labelled_since,
    lack,
    seen,
)
from spillway_operator.podwatch import MANY, Scope, scopes

SIDECAR = Sidecar("image", "https://operator:9443", {"default": "http://gateway"})
START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def by(manager, seconds, *labels):
    """An entry of managedFields."""
    fields = {"f:metadata": {"f:labels": {".": {}, **{f"f:{each}": {} for each in labels}}}, "f:spec": {}}
    return {"manager": manager, "operation": "Update", "time": at(seconds), "fieldsV1": fields}


def client(own="true", *, made=0.0, labelled=None, namespace="shop", **more):
    """A Pod as the API server has it; `own` None says nothing of sidecars."""
    labels = {} if own is None else {LABEL: own}
    meta = {
        "name": "web-1",
        "namespace": namespace,
        "uid": "u1",
        "creationTimestamp": at(made),
        "labels": labels,
        "managedFields": [by("controllers", made, "app"), by("who", made if labelled is None else labelled, *labels)],
    }
    spec = {"containers": [{"name": "web", "image": "web"}]}
    return {"metadata": {**meta, **more.pop("meta", {})}, "spec": {**spec, **more.pop("spec", {})}, "status": more}


INSTALLED = at(-3600)


def told(pod, asking=None, webhook=INSTALLED):
    there = seen(pod, {"kube-system", "spillway"}, SIDECAR)
    return None if there is None else lack(there, {} if asking is None else asking, webhook)


SPACES = {"shop": at(-1800)}


def test_a_pod_that_asked_and_has_none_has_missed_the_webhook():
    for why in (told(client()), told(client(None), SPACES)):
        assert why is not None
        assert why.reason == "MissedWebhook"
        assert "make the Pod anew" in why.message


def test_without_a_webhook_that_is_said():
    why = told(client(), webhook=None)
    assert why is not None
    assert (why.reason, "not installed" in why.message) == ("MissedWebhook", True)


@pytest.mark.parametrize(
    ("pod", "asking"),
    [
        (client(None), {}),
        (client("false"), SPACES),
        (client("yes"), SPACES),
        (client(namespace="kube-system"), SPACES),
        (client(namespace="spillway"), SPACES),
        (client(phase="Succeeded"), SPACES),
        (client(phase="Failed"), SPACES),
        (client(meta={"deletionTimestamp": at(1)}), SPACES),
        (client(meta={"annotations": {INJECTED: "i"}}, spec={"initContainers": [{"name": CONTAINER}]}), SPACES),
    ],
    ids=["nobody-asks", "not-this-one", "odd", "kube-system", "own", "done", "failed", "ending", "injected"],
)
def test_of_these_nothing_is_said(pod, asking):
    assert told(pod, asking) is None


def test_a_refused_pod_is_told_the_words_of_the_injection_whenever_it_was_made():
    for made in (0, -7200):
        why = told(client(made=made, spec={"hostNetwork": True}))
        assert why is not None
        assert why.reason == "Refused"
        assert "it has the network of its node" in why.message
    why = told(client(meta={"annotations": {"spillway.dev/gateway": "nowhere"}}))
    assert why is not None
    assert "there is no gateway 'nowhere'" in why.message


@pytest.mark.parametrize(
    ("pod", "asking", "webhook", "words"),
    [
        (client(made=-7200), {}, at(-3600), "before sidecars were installed"),
        (client(None, made=-7200), {"shop": at(-1)}, at(-9000), "before its namespace was labelled"),
        (client(made=-7200, labelled=-60), {}, at(-9000), f"before its label {LABEL} was set"),
        (client(None, made=0), {"shop": at(-1)}, at(-9000), "before its namespace was labelled"),
    ],
    ids=["older-than-the-webhook", "older-than-the-label", "labelled-by-hand", "in-the-moment-that-it-takes"],
)
def test_who_was_there_before_is_told_so(pod, asking, webhook, words):
    why = told(pod, asking, webhook)
    assert why is not None
    assert why.reason == "CreatedBefore"
    assert words in why.message


def test_who_has_missed_the_webhook_stays_so_when_its_namespace_is_edited():
    why = told(client(None), SPACES)
    assert why is not None
    pod = client(None, conditions=[condition(why, None, at(1))])
    assert told(pod, {"shop": at(600)}) == why


def test_a_label_is_as_old_as_the_oldest_of_its_owners_says():
    meta = {"managedFields": [by("a", 50, LABEL), by("b", 9, LABEL, "x"), by("c", 1, "x"), {"manager": "d"}]}
    assert labelled_since(meta) == at(9)
    assert labelled_since({}) == labelled_since({"managedFields": None}) == ""
    fields = {"f:metadata": {"f:annotations": {f"f:{LABEL}": {}}}}
    assert labelled_since({"managedFields": [{"time": at(1), "fieldsV1": fields}]}) == ""


def test_a_namespace_asks_since_it_was_labelled():
    meta = {"name": "shop", "creationTimestamp": at(0), "labels": {LABEL: "true"}, "managedFields": [by("k", 5, LABEL)]}
    assert facts.namespace({"metadata": meta}).asking == at(5)
    assert facts.namespace({"metadata": meta | {"managedFields": []}}).asking == at(0)
    assert facts.namespace({"metadata": meta | {"labels": {LABEL: "false"}}}).asking == ""


@given(
    st.sampled_from([None, "true", "false"]),
    st.integers(-9000, 10),
    st.one_of(st.none(), st.integers(-9000, 10)),
    st.one_of(st.none(), st.integers(-9000, 10)),
    st.booleans(),
)
def test_what_was_told_is_not_told_again_and_keeps_its_time(own, made, space, webhook, host):
    pod = client(own, made=made, spec={"hostNetwork": host})
    asking, installed = {} if space is None else {"shop": at(space)}, None if webhook is None else at(webhook)
    why = told(pod, asking, installed)
    if why is None:
        assert not differs(None, None)
        return
    before = copy.deepcopy(pod)
    pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}, condition(why, None, at(20))]
    there = seen(pod, (), SIDECAR)
    assert there is not None
    assert there.shown == Shown(why.reason, why.message, at(20))
    assert lack(there, asking, installed) == why
    assert not differs(why, there.shown)
    assert condition(Lack("Refused", "x"), there.shown, at(99))["lastTransitionTime"] == at(20)
    assert differs(None, there.shown)
    assert seen(before, (), SIDECAR) == there._replace(shown=None)


def test_what_the_condition_looks_like():
    assert condition(Lack("Refused", "no"), None, at(3)) == {
        "type": CONDITION,
        "status": "False",
        "lastTransitionTime": at(3),
        "reason": "Refused",
        "message": "no",
    }


def test_what_is_watched_grows_with_what_asks_and_is_bounded():
    mine = Scope("", f"{LABEL}=true")
    assert scopes((), (), ()) == {mine}
    assert scopes(("a", "kube-system"), (), ("kube-system",)) == {mine, Scope("a", f"!{LABEL}")}
    many = {f"n{each}" for each in range(MANY + 1)}
    assert scopes(many, (), ()) == {mine, Scope("", f"!{LABEL}", frozenset(many))}


def test_with_namespaces_that_are_named_no_other_is_watched():
    named = ("a", "b", "own")
    assert scopes(("b", "c"), named, ("own",)) == {
        Scope("a", f"{LABEL}=true"),
        Scope("b", f"{LABEL}=true"),
        Scope("b", f"!{LABEL}"),
    }


def test_little_is_kept_of_a_pod():
    there = seen(client(spec={"containers": [{"name": "c", "image": "x" * 10_000}]}), (), SIDECAR)
    assert isinstance(there, Seen)
    assert len(repr(there)) < 300
