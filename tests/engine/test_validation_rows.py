"""The published figures that the timing model is held against: where they come from, and that they can be repeated."""

from statistics import fmean

import pytest
from benchmarks.validation import A100, H100, ROWS, SOURCES, off


def test_every_figure_has_a_source_that_can_be_looked_up() -> None:
    assert len(SOURCES) >= 3
    for source in SOURCES:
        assert source.where
        assert source.engine
    assert {row.source for row in ROWS} == set(SOURCES)


def test_every_figure_is_told_apart_by_source_part_setting_and_figure() -> None:
    assert len({(row.source.name, row.profile, row.setting, row.figure) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("part", [H100, A100])
def test_model_is_within_a_fifth_of_what_was_published_on_average(part: str) -> None:
    assert fmean(abs(off(row)) for row in ROWS if row.profile == part) < 0.2
