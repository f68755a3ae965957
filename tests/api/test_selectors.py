"""Label selectors as Kubernetes reads them: a table, and what holds of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import LabelRequirement, LabelSelector, matches

LABELS = {"app": "vllm", "tier": "gpu", "empty": ""}


def demand(key, operator, *values):
    return LabelSelector(match_expressions=(LabelRequirement(key, operator, values or None),))


TABLE = [
    (LabelSelector(), True),
    (LabelSelector({}, ()), True),
    (LabelSelector({"app": "vllm"}), True),
    (LabelSelector({"app": "sglang"}), False),
    (LabelSelector({"app": "vllm", "tier": "gpu"}), True),
    (LabelSelector({"app": "vllm", "tier": "cpu"}), False),
    (LabelSelector({"missing": ""}), False),
    (LabelSelector({"empty": ""}), True),
    (demand("app", "In", "vllm", "sglang"), True),
    (demand("app", "In", "sglang"), False),
    (demand("missing", "In", "vllm"), False),
    (demand("app", "NotIn", "vllm"), False),
    (demand("app", "NotIn", "sglang"), True),
    (demand("missing", "NotIn", "vllm"), True),
    (demand("app", "Exists"), True),
    (demand("empty", "Exists"), True),
    (demand("missing", "Exists"), False),
    (demand("app", "DoesNotExist"), False),
    (demand("missing", "DoesNotExist"), True),
    (LabelSelector({"app": "vllm"}, (LabelRequirement("tier", "Exists"),)), True),
    (LabelSelector({"app": "vllm"}, (LabelRequirement("tier", "DoesNotExist"),)), False),
    (LabelSelector({"app": "other"}, (LabelRequirement("tier", "Exists"),)), False),
]


@pytest.mark.parametrize(("selector", "selected"), TABLE)
def test_which_labels_a_selector_matches(selector, selected):
    assert matches(selector, LABELS) is selected


KEYS, VALUES = st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z"])
LABEL_SETS = st.dictionaries(KEYS, VALUES)


@given(LABEL_SETS, KEYS, st.lists(VALUES, min_size=1))
def test_not_in_is_the_opposite_of_in(labels, key, values):
    assert matches(demand(key, "NotIn", *values), labels) != matches(demand(key, "In", *values), labels)


@given(LABEL_SETS, KEYS)
def test_does_not_exist_is_the_opposite_of_exists(labels, key):
    assert matches(demand(key, "DoesNotExist"), labels) != matches(demand(key, "Exists"), labels)


@given(LABEL_SETS, KEYS, st.lists(VALUES, min_size=1))
def test_who_is_in_has_the_label_and_one_of_the_values(labels, key, values):
    inside = matches(demand(key, "In", *values), labels)
    assert inside == any(matches(LabelSelector({key: value}), labels) for value in values)
    assert not inside or matches(demand(key, "Exists"), labels)


@given(LABEL_SETS, LABEL_SETS)
def test_match_labels_are_a_subset(selected, labels):
    assert matches(LabelSelector(selected), labels) == (selected.items() <= labels.items())


REQUIREMENTS = st.builds(
    LabelRequirement, KEYS, st.sampled_from(["In", "NotIn"]), st.lists(VALUES, min_size=1).map(tuple)
) | st.builds(LabelRequirement, KEYS, st.sampled_from(["Exists", "DoesNotExist"]))


@given(LABEL_SETS, LABEL_SETS, st.lists(REQUIREMENTS, max_size=4))
def test_all_demands_of_a_selector_hold(labels, selected, requirements):
    whole = matches(LabelSelector(selected, tuple(requirements)), labels)
    parts = [LabelSelector(selected), *(LabelSelector(match_expressions=(each,)) for each in requirements)]
    assert whole == all(matches(part, labels) for part in parts)
