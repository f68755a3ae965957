"""Files of credentials: no two keys share one, and each is a name that a Secret may have."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.credentials import file_of

NAMESPACES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
SECRETS = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?){0,4}", fullmatch=True
)
LONG = st.from_regex(r"[a-z0-9]([-.a-z0-9]{100,251}[a-z0-9])?", fullmatch=True)
KEYS = st.from_regex(r"[-._a-zA-Z0-9]{1,253}", fullmatch=True)
REFERENCES = st.tuples(NAMESPACES, SECRETS | LONG, KEYS)
NEAR = st.tuples(*[st.text("a_-.", min_size=1, max_size=4)] * 3).filter(lambda each: "_" not in each[0] + each[1])
"""Names that look alike once they are put together."""


def named(reference):
    namespace, name, key = reference
    return file_of(f"{namespace}/{name}", key)


def test_the_name_can_be_read_by_a_person():
    assert file_of("default/openai-key", "api-key") == "default_openai-key_api-key"


@given(REFERENCES | NEAR, REFERENCES | NEAR)
def test_two_keys_never_share_a_file(first, second):
    assert (named(first) == named(second)) == (first == second)


@given(REFERENCES)
def test_a_name_cut_short_is_never_that_of_another_written_in_full(reference):
    whole = len("_".join(reference)) <= 253
    file = named(reference)
    assert file == "_".join(reference) if whole else re.fullmatch(rf"{reference[0]}_[0-9a-f]{{64}}", file)


@settings(max_examples=200)
@given(REFERENCES)
def test_the_name_is_one_that_a_secret_may_have(reference):
    """k8s.io/apimachinery, IsConfigMapKey: [-._a-zA-Z0-9]+, at most 253, neither `.` nor beginning with `..`."""
    file = named(reference)
    assert re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", file)
    assert file != "."
    assert not file.startswith("..")


def test_the_longest_names_that_there_may_be_still_fit():
    file = file_of("n" * 63 + "/" + "s" * 253, "k" * 253)
    assert len(file) <= 253
    assert file != file_of("n" * 63 + "/" + "s" * 253, "k" * 252)
    assert file != file_of("n" * 63 + "/" + "s" * 252, "k" * 253)
