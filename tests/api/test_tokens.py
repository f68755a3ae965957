"""What can be read of a token without asking anybody."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.tokens import end_of


def token(claims: object) -> str:
    return f"head.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.tail"


@pytest.mark.parametrize(
    ("claims", "end"),
    [
        ({"exp": 17}, 17.0),
        ({"exp": 17.5, "aud": ["x"]}, 17.5),
        ({}, float("inf")),
        ({"exp": "17"}, float("inf")),
        ([17], float("inf")),
    ],
)
def test_its_end(claims: object, end: float) -> None:
    assert end_of(token(claims)) == end


@given(st.text(st.characters(max_codepoint=127)))
def test_any_text_has_an_end_or_none(text: str) -> None:
    assert end_of(text.replace(".", "")) == float("inf")
    assert isinstance(end_of(f"a.{text}.b"), float)
