"""Reading numbers out of metrics pages: engines' whole pages, and what can go wrong on a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire.engines import DIALECTS, Layout, Page, Reading, detect, read
from spillway_balancer.wire.prometheus import largest, selector, total

Golden = Callable[[str], bytes]


@dataclass
class Names:
    waiting: str | None = None
    running: str | None = None
    kv_cache_usage: str | None = None
    prefix_cache_queries: str | None = None
    prefix_cache_hits: str | None = None


@pytest.mark.parametrize(
    ("page", "engine", "expected"),
    [
        ("vllm-0.8", "vLLM", Reading(4, 23, 0.6175310236, 508056, 311204, cache_tokens=27543 * 16)),
        ("vllm-0.10-dp2", "vLLM", Reading(3, 21, 0.733, 2_300_000, 1_350_000, cache_tokens=2 * 27543 * 16)),
        ("sglang-0.5", "SGLang", Reading(7, 18, 0.28, 8_128_902, 5_011_200)),
        ("sglang-dp2-tp2", "SGLang", Reading(11, 54, 0.87, 8_128_902, 5_000_000)),
    ],
)
def test_engines_pages(golden: Golden, page: str, engine: str, expected: Reading) -> None:
    layout = Layout()
    for likely in (None, engine, "Generic"):
        text = Page(golden(f"metrics/{page}.prom"), layout)
        assert detect(text, likely) == engine
        assert read(DIALECTS[engine], text) == expected


def test_the_dialects_know_themselves_by_the_name_they_are_found_by() -> None:
    assert {name: dialect.engine for name, dialect in DIALECTS.items()} == {name: name for name in DIALECTS}


def test_an_engine_is_told_by_its_help_lines_alone() -> None:
    assert detect(Page(b"# HELP sglang:num_running_reqs The number of running requests.\n")) == "SGLang"
    assert detect(Page(b"vllm_num_requests_waiting 1")) == "vLLM"


@pytest.mark.parametrize("page", [b"", b"python_info 1\n", b"<html>vllm:</html>", b"kserve_vllm:num 1\n", b"\x00\xff"])
def test_other_pages_are_of_no_known_engine(page: bytes) -> None:
    assert detect(Page(page)) is None
    assert detect(Page(page), "vLLM") is None


def test_what_is_missing_is_unknown_and_named() -> None:
    reading = read(DIALECTS["vLLM"], Page(b'vllm:num_requests_running{engine="0"} 0\n'))
    assert reading.running == 0
    assert reading.waiting is None
    assert reading.missing == ("vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


def test_a_generic_server_tells_only_what_the_pool_names() -> None:
    page = Page(
        b'my_queue{shard="a"} 3\nmy_queue{shard="b"} 4\nmy_running 2\nkv{s="a"} 0.5\nkv{s="b"} 0.7\nq 10\nh 4\n'
    )
    assert read(DIALECTS["Generic"], page) == Reading()
    names = Names("my_queue", "my_running", "kv", "q", "h")
    assert read(DIALECTS["Generic"], page, names) == Reading(7, 2, 0.7, 10, 4)


def test_a_name_of_the_pools_replaces_the_engines_and_is_missed_when_absent(golden: Golden) -> None:
    page = Page(golden("metrics/vllm-0.8.prom"))
    reading = read(DIALECTS["vLLM"], page, Names(waiting="my_queue", running='vllm:num_requests_running{engine="0"}'))
    assert (reading.waiting, reading.running, reading.missing) == (None, 23, ("my_queue",))


def test_a_name_with_labels_that_do_not_parse_is_missing_and_does_no_harm() -> None:
    name = 'a{b=~"x"}'
    assert read(DIALECTS["Generic"], Page(b"a 1\n"), Names(waiting=name)).missing == (name,)


def test_a_name_that_was_found_is_looked_for_first_and_another_when_it_is_gone() -> None:
    layout = Layout()
    for name, value in (("gpu_cache_usage_perc", 0.5), ("kv_cache_usage_perc", 0.7), ("gpu_cache_usage_perc", 0.6)):
        page = Page(f"vllm:{name} {value}\n".encode(), layout)
        assert read(DIALECTS["vLLM"], page).kv_usage == value
        assert layout.names[DIALECTS["vLLM"].kv_usage] == f"vllm:{name}"


LINES = st.lists(st.sampled_from(["m", "n", "m_total", "other"]), max_size=4, unique=True).flatmap(
    lambda names: st.tuples(*(st.tuples(st.just(name), st.integers(1, 40), st.integers(0, 90)) for name in names))
)


@given(st.lists(LINES, min_size=1, max_size=4))
def test_the_memory_of_a_page_changes_nothing_that_is_read(pages: list[tuple[tuple[str, int, int], ...]]) -> None:
    layout = Layout()
    for families in pages:
        lines = [
            f'{name}{{number="{number}"}} {number}\n'
            if number
            else f"# TYPE {name} gauge\n{'# ' + 'x' * 99}\n" * filler
            for name, count, filler in families
            for number in range(count)
        ]
        text = "".join(lines).encode()
        for name in ("m", "n", "other"):
            assert Page(text, layout).samples(selector(name)) == Page(text).samples(selector(name))


@pytest.mark.parametrize(
    ("engine", "page", "expected"),
    [
        ("vLLM", b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1', 1600),
        ("vLLM", b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100",kv_cache_size_tokens="900"} 1', 900),
        ("vLLM", b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100",kv_cache_size_tokens="None"} 1', 1600),
        ("vLLM", b'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1', None),
        ("vLLM", b'vllm:cache_config_info{block_size="16"} 1', None),
        ("vLLM", b'vllm:cache_config_info{block_size="1e308",num_gpu_blocks="1e308"} 1', None),
        ("vLLM", b'vllm:cache_config_info{block_size="nan",num_gpu_blocks="1"} 1', None),
        ("vLLM", b"vllm:cache_config_info 1", None),
        (
            "SGLang",
            b'sglang:max_total_num_tokens{tp_rank="0"} 471258\nsglang:max_total_num_tokens{tp_rank="1"} 471258',
            471258,
        ),
        ("SGLang", b'sglang:max_total_num_tokens{dp_rank="0"} 10\nsglang:max_total_num_tokens{dp_rank="1"} 10', 20),
        ("SGLang", b'sglang:cache_config_info{page_size="1",num_pages="5000"} 1', 5000),
        ("Generic", b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1', None),
    ],
)
def test_room_for_keys_and_values(engine: str, page: bytes, expected: float | None) -> None:
    assert read(DIALECTS[engine], Page(page)).cache_tokens == expected


def values(page: bytes, text: str) -> list[float]:
    return [sample.value for sample in Page(page).samples(selector(text))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"m 1", [1]),
        (b"m 1\n", [1]),
        (b"m 1\r\n", [1]),
        (b"m\t1", [1]),
        (b"m  1.5e3  1700000000000", [1500]),
        (b'm{a="b"} 2', [2]),
        (b'm{a="b",} 2', [2]),
        (b"m{} 2", [2]),
        (b'm {a="b"} 2', []),  # no exporter writes it
        (b'm{a="}",b="{x} 9"} 2', [2]),
        (b'm{a="say \\"hi\\" 5"} 2', [2]),
        (b'm{a="x"}2', [2]),
        (b'm{a="x"} 7 # {trace_id="abc"} 3 1.6e9', [7]),
        (b'm 7 # {trace_id="abc"} 3', [7]),
        (b"m 0x10", []),
        (b"m NaN", []),
        (b"m +Inf", []),
        (b"m -Inf", []),
        (b"m 1e999", []),
        (b"m -3", [-3]),
        (b"m", []),
        (b"m ", []),
        (b"m{", []),
        (b'm{a="b} 1', []),
        (b'm{a="b"', []),
        (b"m abc", []),
        (b"m_total 1", []),
        (b"m_created 1.7e9", []),
        (b"m_by_reason 5", []),
        (b"xm 1", []),
        (b" m 1", []),
        (b"# m 1", []),
        (b"# HELP m 1", []),
        (b"# TYPE m gauge", []),
        (b"m NaN\nm 4", [4]),
    ],
)
def test_lines(line: bytes, expected: list[float]) -> None:
    assert values(line, "m") == expected
    assert values(b"other 1\n" + line + b"\nother 2\n", "m") == expected


def test_colons_and_underscores_count_as_the_same() -> None:
    page = b"a:b_c 1\na_b:c 2\na_b_c 3\n"
    assert values(page, "a:b:c") == [1, 2, 3]


def test_a_colon_in_a_label_is_not_changed() -> None:
    (sample,) = Page(b'm{model="org:8b"} 1').samples(selector('m{model="org:8b"}'))
    assert sample.labels == {b"model": b"org:8b"}
    assert values(b'm{model="org:8b"} 1', 'm{model="org_8b"}') == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m", [1, 2, 3]),
        ('m{type="waiting"}', [1, 2]),
        ('m{ type = "waiting" , model = "a" }', [1]),
        ('m{type="waiting",}', [1, 2]),
        ("m{}", [1, 2, 3]),
        ('m{type="none"}', []),
        ('m{quote="a\\"b"}', [3]),
    ],
)
def test_selectors(text: str, expected: list[float]) -> None:
    page = b'm{type="waiting",model="a"} 1\nm{model="b",type="waiting"} 2\nm{type="active",quote="a\\"b"} 3\n'
    assert values(page, text) == expected


@pytest.mark.parametrize("text", ["", "1m", "m{", 'm{a!="b"}', 'm{a=~"b"}', "m{a=b}", 'm{a="b"} 1', "m n"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"label|metric"):
        selector(text)


def test_ranks_are_summed_and_repeats_within_a_rank_are_not() -> None:
    page = Page(b'm{r="0",t="0"} 3\nm{r="0",t="1"} 3\nm{r="1",t="2"} 4\nm{r="1",t="3"} 1\n')
    samples = page.samples(selector("m"))
    assert total(samples, b"r") == 7
    assert total(samples, b"absent") == 4
    assert total(samples, None) == 11
    assert largest(samples) == 4
    assert total([], None) is None
    assert largest([]) is None


@given(
    st.binary(max_size=120) | st.text(alphabet='vllm:num_requests_waiting{}="\\\n 10.e#N', max_size=120).map(str.encode)
)
def test_no_page_makes_it_fail(noise: bytes) -> None:
    for page in (noise, b"vllm:num_requests_waiting" + noise, b"vllm:num_requests_waiting{" + noise):
        detect(Page(page))
        for dialect in DIALECTS.values():
            read(dialect, Page(page))
