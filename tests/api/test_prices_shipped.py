"""The prices that are shipped, how they are made of a public list, and what wins over them."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.prices import BadPrices, Prices, known_types, origin, read_overlay, shipped
from spillway_api.prices.update import DATA, PROVIDERS, SOURCE, main, table
from spillway_api.schema import schema_of
from spillway_api.types import Price
from spillway_api.validate import checked

SHIPPED = json.loads(files("spillway_api.prices").joinpath("table.json").read_bytes())
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# ---- the table


def test_it_says_where_it_comes_from_and_by_what_licence():
    assert SHIPPED["source"] == SOURCE
    assert re.fullmatch("[0-9a-f]{40}", SHIPPED["commit"])
    assert origin() == (SHIPPED["source"], SHIPPED["commit"], SHIPPED["on"])
    date.fromisoformat(SHIPPED["on"])
    licence = files("spillway_api.prices").joinpath("LICENSE.genai-prices").read_text()
    assert licence.startswith("The MIT License (MIT)")
    assert "Copyright (c) Pydantic Services Inc." in licence


def test_every_price_of_it_is_one_that_the_api_takes():
    for provider, named in SHIPPED["prices"].items():
        for name, price in named.items():
            made = checked(schema_of(Price), price)
            assert not made.errors, (provider, name, made.errors)
            assert msgspec.convert(made.document, Price).currency == "USD"


def test_no_price_of_it_is_absurd():
    """A slip of a digit in the list would be somebody's bill. What is cached costs no more, of any provider."""
    for named in SHIPPED["prices"].values():
        for name, price in named.items():
            amounts = {sort: Decimal(said) for sort, said in price.items() if isinstance(said, str)}
            assert all(amount <= 1000 for amount in amounts.values()), name
            if "cachedInput" in amounts:
                assert amounts["cachedInput"] <= amounts["input"], name
            for step in price.get("longContext", ()):
                assert step["above"] >= 32_000, name
                assert all(Decimal(said) >= amounts[sort] for sort, said in step.items() if sort != "above"), name


def test_it_is_sorted_and_a_model_a_line():
    text = files("spillway_api.prices").joinpath("table.json").read_text()
    assert [*SHIPPED["prices"]] == sorted(SHIPPED["prices"], key=[*PROVIDERS].index) == [*PROVIDERS]
    for named in SHIPPED["prices"].values():
        assert [*named] == sorted(named)
    assert len(text.splitlines()) == sum(map(len, SHIPPED["prices"].values())) + 2 * len(SHIPPED["prices"]) + 7


@pytest.mark.parametrize(
    ("provider", "model", "name"),
    [
        ("OpenAI", "gpt-5-mini", "gpt-5-mini"),
        ("OpenAI", "gpt-5-mini-2031-01-31", "gpt-5-mini"),  # a dated one of the same model
        ("OpenAI", "gpt-5-mini-audio", None),
        ("OpenAI", "gpt-5-min", None),
        ("OpenAI", "", None),
        ("AzureOpenAI", "gpt-5-mini", "gpt-5-mini"),  # a deployment that is called like its model
        ("AzureOpenAI", "our-deployment", None),
        ("Anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5*"),
        ("Anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4*"),
        ("Anthropic", "claude-opus-4-50", None),
        ("Anthropic", "claude-sonnet-5-1", None),  # another model, whatever it will cost
        ("Gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("Gemini", "gemini-2.5-pro-preview-05-06", "gemini-2.5-pro*"),
        ("Gemini", "gemini-2.5-pro-preview-tts", None),
        ("Gemini", "claude-opus-4-8", None),
        ("VertexAI", "google/gemini-2.5-pro", "gemini-2.5-pro*"),
        ("VertexAI", "publishers/anthropic/models/claude-opus-4-8", "claude-opus-4-8*"),
        ("Bedrock", "anthropic.claude-3-5-haiku-20241022-v1:0", "claude-3-5-haiku-20241022*"),
        ("Bedrock", "eu.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        (
            "Bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.meta.llama3-1-70b-instruct-v1:0",
            "meta.llama3-1-70b-instruct-v1:0",
        ),
        ("OpenAICompatible", "gpt-5-mini", None),
        ("Unheard", "gpt-5-mini", None),
    ],
)
def test_a_model_is_found_by_the_name_that_is_sent_and_not_guessed_at(provider, model, name):
    found = shipped(provider, model)
    assert (found and found.name) == name


def test_where_a_model_runs_can_change_its_price():
    anywhere = shipped("Bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0")
    here = shipped("Bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    assert Decimal(here.price.input) == Decimal("1.1") * Decimal(anywhere.price.input)


@given(st.sampled_from(known_types()), st.text("abg-.:@0123456789/*", max_size=40))
def test_any_name_is_looked_up_without_harm(provider, model):
    found = shipped(provider, model)
    assert found is None or found.source == "table"


# ---- made of the list

LIST = [
    {
        "id": "anthropic",
        "models": [
            {
                "id": "claude-x",
                "match": {"or": [{"starts_with": "claude-x-2025"}, {"equals": "claude-x-latest"}]},
                "prices": [
                    {"prices": {"input_mtok": 2, "output_mtok": 10}},
                    {
                        "constraint": {"start_date": "2026-09-01"},
                        "prices": {
                            "input_mtok": 3,
                            "cache_write_mtok": 3.75,
                            "cache_write_1h_mtok": 6,
                            "output_mtok": 15,
                        },
                    },
                ],
            }
        ],
    },
    {
        "id": "google",
        "models": [
            {
                "id": "gemini-x",
                "match": {"contains": "gemini-x"},
                "prices": {
                    "input_mtok": {"base": 1.25, "tiers": [{"start": 200000, "price": 2.5}]},
                    "cache_read_mtok": 0.1250,
                    "output_mtok": {"base": 10, "tiers": [{"start": 200000, "price": 15}]},
                },
            },
            {"id": "gemini-x-image", "match": {"equals": "gemini-x-image"}, "prices": {"input_mtok": 1}},
            {"id": "gemini-y", "match": {"equals": "gemini-y"}, "prices": {"input_mtok": 1, "output_image_mtok": 9}},
            {"id": "claude-x", "match": {"equals": "claude-x"}, "prices": {"input_mtok": 3}},
        ],
    },
    {
        "id": "deepseek",
        "models": [
            {
                "id": "chat",
                "match": {"equals": "chat"},
                "prices": [
                    {"prices": {"input_mtok": 0.135}},
                    {
                        "constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"},
                        "prices": {"input_mtok": 0.27},
                    },
                ],
            }
        ],
    },
    {
        "id": "openrouter",
        "models": [
            {"id": "a/b:free", "match": {"equals": "a/b:free"}, "prices": {}},
            {"id": "a/b", "match": {"equals": "a/b"}, "prices": {}},
            {
                "id": "deep",
                "match": {"regex": "^deep"},
                "prices": {"output_mtok": 8, "output_reasoning_mtok": 3.0000000004},
            },
        ],
    },
    *({"id": each, "models": []} for each in {*PROVIDERS.values()} - {"anthropic", "google", "deepseek", "openrouter"}),
]


def made(on: str = "2026-10-01") -> dict:
    plain = json.loads(json.dumps(LIST), parse_float=Decimal, parse_int=Decimal)
    text = table(plain, COMMIT, date.fromisoformat(on))
    assert text == table(plain, COMMIT, date.fromisoformat(on))
    return json.loads(text)["prices"]


def test_what_is_taken_of_a_list():
    prices = made()
    dear = {"input": "3", "cacheWrite": "3.75", "cacheWriteLong": "6", "output": "15"}
    assert prices["Anthropic"] == {"claude-x*": dear, "claude-x-latest": dear}
    assert prices["Gemini"] == {
        "gemini-x*": {
            "input": "1.25",
            "cachedInput": "0.125",
            "output": "10",
            "longContext": [{"above": 200000, "input": "2.5", "output": "15"}],
        }
    }
    assert prices["VertexAI"] == {"claude-x": {"input": "3"}}
    assert prices["DeepSeek"] == {"chat": {"input": "0.27"}}
    assert prices["OpenRouter"] == {
        "a/b:free": {"input": "0", "output": "0"},
        "deep": {"output": "8", "reasoning": "3"},
    }
    assert made("2026-08-31")["Anthropic"]["claude-x*"] == {"input": "2", "output": "10"}


def test_the_command_writes_the_table(tmp_path, capsys):
    source, out = tmp_path / "data.json", tmp_path / "table.json"
    source.write_text(json.dumps(LIST))
    command = ["--from", str(source), "--commit", COMMIT, "--on", "2026-10-01", "--table", str(out)]
    assert main(command) == 0
    first = out.read_text()
    assert json.loads(first)["commit"] == COMMIT
    assert main(command) == 0
    assert out.read_text() == first
    assert capsys.readouterr().out.endswith("0 lines are new, 0 are gone\n")


def test_of_a_checkout_git_says_the_commit_unless_the_list_was_touched(tmp_path):
    def git(*words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", tmp_path, *author, *words], check=True, capture_output=True, text=True
        ).stdout

    source, out = tmp_path / DATA, tmp_path / "table.json"
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps(LIST))
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "prices")
    command = ["--from", str(tmp_path), "--on", "2026-10-01", "--table", str(out)]
    assert main(command) == 0
    assert json.loads(out.read_text())["commit"] == git("rev-parse", "HEAD").strip()
    source.write_text(json.dumps(LIST, indent=1))
    with pytest.raises(SystemExit):
        main(command)


def test_a_table_without_its_commit_is_not_made(tmp_path):
    source = tmp_path / "data.json"
    source.write_text("[]")
    with pytest.raises(SystemExit):
        main(["--from", str(source), "--table", str(tmp_path / "table.json")])
    assert not (tmp_path / "table.json").exists()


# ---- what wins


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


def test_an_overlay_wins_and_the_rest_is_as_shipped(tmp_path):
    path = written(tmp_path, 'OpenAI:\n  gpt-5-mini: {input: "0.20", output: "1.60", currency: EUR}\n')
    prices = read_overlay(path)
    found = prices("OpenAI", "gpt-5-mini-2025-08-07")
    assert (found.source, found.price) == ("overlay", Price(input="0.20", output="1.60", currency="EUR"))
    assert prices("OpenAI", "gpt-5-nano").source == "table"
    assert prices("AzureOpenAI", "gpt-5-mini").source == "table", "who buys elsewhere has another contract"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("- a\n", "expected are types of providers"),
        ("OpenAI: 5\n", "expected are types of providers"),
        ("OpenAI: {gpt: 5}\n", "OpenAI.gpt: expected a price"),
        ("OpenAI: {gpt: {input: 0.25}}\n", 'OpenAI.gpt.input: Invalid value: "number"'),
        ('OpenAI: {gpt: {input: "-1"}}\n', "OpenAI.gpt.input: Invalid value"),
        ('OpenAI: {gpt: {inputs: "1"}}\n', "inputs"),
        ("a: [\n", "no YAML"),
    ],
)
def test_a_list_that_cannot_be_read_is_told_by_its_place(tmp_path, text, why):
    path = written(tmp_path, text)
    with pytest.raises(BadPrices, match=re.escape(why)) as told:
        read_overlay(path)
    assert str(told.value).startswith(f"{path}: ")


def test_a_list_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BadPrices, match="No such file"):
        read_overlay(tmp_path / "none.yaml")
    assert read_overlay(written(tmp_path, ""))("OpenAI", "gpt-5-mini").source == "table"


KNOWN = Prices({"OpenAI": {"gpt-5-mini": Price(input="1")}})


@pytest.mark.parametrize(
    ("base", "model", "prices", "expected"),
    [
        ("provider", {"name": "m", "upstreamName": "gpt-5-mini"}, None, "0.25"),
        ("provider", {"name": "gpt-5-mini"}, None, "0.25"),
        ("provider", {"name": "m", "upstreamName": "gpt-5-mini"}, KNOWN, "1"),
        ("provider", {"name": "m", "upstreamName": "gpt-5-mini", "price": {"input": "7"}}, KNOWN, "7"),
        ("provider", {"name": "gpt-5-mini", "upstreamName": "ours"}, KNOWN, None),
        ("pool", {"name": "gpt-5-mini"}, KNOWN, None),  # own engines
    ],
)
def test_the_pool_wins_over_the_overlay_and_that_over_the_table(built, base, model, prices, expected):
    tier = {"spec.rules[0].tiers": [{"name": "t", "pools": [{"name": "openai" if base == "provider" else "llama"}]}]}
    objects = [built(base, {"spec.models": [model]}), built("policy", tier)]
    cluster = Cluster() if prices is None else Cluster(prices=prices)
    compiled = compile_snapshot(objects, "default", lambda *_: True, cluster)
    (pool,) = compiled.snapshot.pools
    price = pool.models[0].price
    assert (price and price.input) == expected


def test_the_list_that_the_docs_show_can_be_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
    text = page.partition("### A list of your own")[2].partition("```yaml\n")[2].partition("```")[0]
    prices = read_overlay(written(tmp_path, text))
    assert prices("AzureOpenAI", "our-deployment").price.currency == "EUR"
    assert prices("OpenAICompatible", "kimi-k2-0905").source == "overlay"
