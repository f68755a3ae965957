"""The city is built of the YAML that the balancer serves, moved to other ports or put under another strategy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from spillway_balancer.city.layout import Layout, Trouble, find_examples, moved, read_layout, under
from spillway_balancer.city.town import check_ports, free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout() -> Layout:
    return read_layout(ROOT / "examples" / "quickstart.yaml", ROOT / "examples" / "secrets")


def test_the_quickstart_has_four_engines_and_a_provider(layout: Layout) -> None:
    own = [engine for engine in layout.engines if engine.fake is None]
    (provider,) = (engine for engine in layout.engines if engine.fake is not None)
    assert [engine.port for engine in own] == [18001, 18002, 18003, 18004]
    assert {engine.model for engine in own} == {"meta-llama/Llama-3.1-8B-Instruct"}
    assert provider.fake is not None
    assert (provider.fake.type, provider.fake.price) == ("openai", "0.25,0.025,0.25,2")
    assert [(name, file.is_file()) for name, file in provider.fake.keys] == [("main", True)]
    assert (layout.strategy, layout.model) == ("Adaptive", "chat")


@pytest.mark.parametrize("base", [18002, 17999, 30001])
def test_moved_engines_are_those_of_the_moved_yaml(layout: Layout, tmp_path: Path, base: int) -> None:
    there = moved(layout, base, tmp_path)
    assert [engine.port - base for engine in there.engines] == [0, 1, 2, 3, 8]
    assert read_layout(there.file, layout.secrets).engines == there.engines


def test_another_strategy_changes_nothing_else(layout: Layout, tmp_path: Path) -> None:
    other = under(layout, "RoundRobin", tmp_path)
    again = read_layout(other.file, layout.secrets)
    assert again.strategy == other.strategy == "RoundRobin"
    assert again.engines == layout.engines
    # And the way back gives the same objects: only the strategy had been written.
    back = under(again, "Adaptive", tmp_path)
    assert read_layout(back.file, layout.secrets).strategy == layout.strategy


def test_a_bad_file_is_refused_with_its_problems(tmp_path: Path) -> None:
    bad = tmp_path / "quickstart.yaml"
    bad.write_text("apiVersion: spillway.dev/v1alpha1\nkind: ModelPool\nmetadata: {name: a}\nspec: {}\n")
    with pytest.raises(Trouble, match=r"quickstart.yaml:\d+:\d+"):
        read_layout(bad, tmp_path)


def test_a_file_without_engines_is_no_city(tmp_path: Path) -> None:
    empty = tmp_path / "quickstart.yaml"
    empty.write_text("")
    with pytest.raises(Trouble, match="static endpoints"):
        read_layout(empty, tmp_path)


def test_without_examples_the_reader_is_told_where_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spillway_balancer.city.layout.__file__", str(tmp_path / "a/b/c/d.py"))
    with pytest.raises(Trouble, match="checkout"):
        find_examples(tmp_path)


def test_a_taken_port_is_named_with_what_to_do(layout: Layout, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Trouble, match=rf"port {port} for the balancer .* --port {port + 1}"):
            check_ports(layout, port)
        with pytest.raises(Trouble, match=rf"port {port} for engine-1 .* --base-port"):
            check_ports(moved(layout, port, tmp_path), free_port())
