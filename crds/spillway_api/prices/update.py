"""`python -m spillway_api.prices.update --from DIR|FILE`: makes the shipped table of a public list of prices.

The list is that of https://github.com/pydantic/genai-prices (MIT, see LICENSE.genai-prices), `data.json` of its second
format. DIR is a checkout, whose commit is asked of git; with FILE, `--commit` says it. Nothing is fetched.

Taken are the types of providers that Spillway knows, and of these the models that are paid by tokens of text alone:
who is paid by the image, the minute or the request would be priced wrongly. Equal input gives equal output, a model a
line, so that a review sees what has changed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Final

SOURCE: Final = "https://github.com/pydantic/genai-prices"
DATA: Final = "prices/new_data/v2/data.json"
TABLE: Final = Path(__file__).with_name("table.json")

PROVIDERS: Final = {
    "Anthropic": "anthropic",
    "AzureOpenAI": "azure",
    "Bedrock": "aws",
    "DeepSeek": "deepseek",
    "Fireworks": "fireworks",
    "Gemini": "google",
    "Groq": "groq",
    "Mistral": "mistral",
    "OpenAI": "openai",
    "OpenRouter": "openrouter",
    "Together": "together",
    "VertexAI": "google",
    "xAI": "x-ai",
}
"""Types of providers, and what they are called in the list."""

AMOUNTS: Final = {
    "input_mtok": "input",
    "cache_read_mtok": "cachedInput",
    "cache_write_mtok": "cacheWrite",
    "cache_write_1h_mtok": "cacheWriteLong",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
}
"""What a million tokens cost, and what Spillway calls it."""

_OTHERWISE: Final = re.compile(r"audio|image|realtime|live|transcribe|tts|whisper|voxtral|sonic|moderation|^ft:|\.ft-")
"""Models that are not paid by text alone, and those that are somebody's own."""
_UNIT: Final = re.compile(r"^output_(audio|image|video|citation)_mtok$|^requests_")
_ELSEWHERE: Final = {"Gemini": re.compile("^(?!gemini|gemma)"), "VertexAI": re.compile("^(gemini|gemma)")}
"""Google's models at its two types: Gemini's stand for both, others are to be had of Vertex AI alone."""
_LEAST: Final = Decimal("0.000000001")
_CUT: Final = re.compile(r"[-@.:](?:20\d\d-?)?$")
"""The beginning of a date, with which a pattern ends."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spillway_api.prices.update", description=__doc__)
    parser.add_argument("--from", dest="origin", type=Path, required=True, help="a checkout of the list, or its file")
    parser.add_argument("--commit", help="of the list, where a file is given")
    parser.add_argument("--on", type=date.fromisoformat, default=None, help="day whose prices are taken; today's")
    parser.add_argument("--table", type=Path, default=TABLE, help="the file to write")
    asked = parser.parse_args(arguments)
    path: Path = asked.origin
    commit = asked.commit or (_commit(path) if path.is_dir() else None)
    if not commit or not re.fullmatch(r"[0-9a-f]{40}", commit):
        parser.error("of which commit? A checkout must have the list as it was committed; --commit takes 40 digits")
    data = (path / DATA if path.is_dir() else path).read_text()
    text = table(json.loads(data, parse_float=Decimal, parse_int=Decimal), commit, asked.on or datetime.now(UTC).date())
    before = asked.table.read_text() if asked.table.exists() else ""
    asked.table.write_text(text)
    old, new = set(before.splitlines()), set(text.splitlines())
    sys.stdout.write(f"{asked.table}: {len(new - old)} lines are new, {len(old - new)} are gone\n")
    return 0


def _commit(checkout: Path) -> str | None:
    """None where the list is not as it is in the commit, or there is none."""
    git = ["git", "-C", str(checkout)]
    same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", DATA], check=False, capture_output=True)  # noqa: S603
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=False, capture_output=True, text=True)  # noqa: S603
    return head.stdout.strip() if same.returncode == head.returncode == 0 else None


def table(providers: list[dict[str, Any]], commit: str, on: date) -> str:
    """The table as it is written. Numbers of `providers` are Decimals."""
    lists = {each["id"]: each["models"] for each in providers}
    head = [f'"source":{json.dumps(SOURCE)}', f'"commit":"{commit}"', f'"on":"{on.isoformat()}"']
    kinds = []
    for kind, called in PROVIDERS.items():
        rows = [f"    {json.dumps(name)}:{_line(price)}" for name, price in sorted(_named(kind, lists[called], on))]
        kinds.append(f'  "{kind}":{{\n' + ",\n".join(rows) + "\n  }")
    return "{\n" + ",\n".join(head) + ',\n"prices":{\n' + ",\n".join(kinds) + "\n}\n}\n"


def _line(price: Mapping[str, Any]) -> str:
    return json.dumps(price, separators=(",", ":"))


def _named(kind: str, models: list[dict[str, Any]], on: date) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and prices of a provider's models. The first that has a name keeps it, as in the list."""
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        if kind in _ELSEWHERE and _ELSEWHERE[kind].search(model["id"]):
            continue
        price = _price(_now(model["prices"], on), free=model["id"].endswith(":free"))
        if price is None or _OTHERWISE.search(model["id"]):
            continue
        names = _names(model["match"])
        if kind != "Fireworks" and not model["id"].startswith("regional."):
            names.add(model["id"])
        for name in sorted(names):
            if name.endswith("*") or name + "*" not in names:
                found.setdefault(name, price)
    yield from ((name, price) for name, price in found.items() if not _OTHERWISE.search(name))


def _names(match: Mapping[str, Any]) -> set[str]:
    """The names that a pattern stands for; those of a whole family end in a star."""
    found: set[str] = set()
    for kind, said in match.items():
        if kind == "or":
            found.update(*map(_names, said))
        elif kind in ("equals", "ends_with"):
            found.add(said)
        elif kind in ("starts_with", "contains"):
            found.add(_CUT.sub("", said) + "*")
    return found


def _now(prices: Any, on: date) -> Mapping[str, Any]:
    """Of prices that change, those of a day. Where they change with the hour, the dearest."""
    if isinstance(prices, dict):
        return prices
    found: Mapping[str, Any] = {}
    for each in prices:
        when = each.get("constraint") or {}
        if "start_date" in when:
            if date.fromisoformat(when["start_date"]) <= on:
                found = each["prices"]
        elif not found or _base(each["prices"]["input_mtok"]) > _base(found["input_mtok"]):
            found = each["prices"]
    return found


def _price(prices: Mapping[str, Any], free: bool) -> dict[str, Any] | None:
    """A price as a ModelPool has it; None of what has none, or is not paid by text alone."""
    if any(_UNIT.match(name) for name in prices):
        return None
    known = {name: prices[sort] for sort, name in AMOUNTS.items() if sort in prices}
    if not known:
        return {"input": "0", "output": "0"} if free else None
    price: dict[str, Any] = {name: _amount(_base(said)) for name, said in known.items()}
    starts = sorted({step["start"] for said in known.values() if isinstance(said, dict) for step in said["tiers"]})
    if starts:
        price["longContext"] = [
            {"above": int(start)}
            | {
                name: _amount(step["price"])
                for name, said in known.items()
                if isinstance(said, dict)
                for step in said["tiers"]
                if step["start"] == start
            }
            for start in starts
        ]
    return price


def _base(said: Any) -> Decimal:
    base: Decimal = said["base"] if isinstance(said, dict) else said
    return base


def _amount(number: Decimal) -> str:
    """With at most nine digits behind the point: more are a quotient that somebody has written out."""
    return f"{number.quantize(_LEAST, ROUND_HALF_UP).normalize():f}"


if __name__ == "__main__":
    sys.exit(main())
