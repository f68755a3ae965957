"""The formats of recorded traffic, told apart by their first line.

    Mooncake      JSONL with timestamp (ms), input_length, output_length, hash_ids (of blocks of 512 tokens)
                  github.com/kvcache-ai/Mooncake, FAST25-release/traces
    Azure         CSV with TIMESTAMP, ContextTokens, GeneratedTokens
                  github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace_*.csv
    BurstGPT      CSV with Timestamp (s), Model, Request tokens, Response tokens, Total tokens, Log Type
                  github.com/HPMLL/BurstGPT; a column with the session or conversation is used where there is one
    records       JSONL of our own decisions, as `spillway run --record FILE` writes them

The first line tells which it is. Only the first and the last know what prompts have in common; BurstGPT does where
it names sessions, taken to grow by appending. Without that no dispatch can do better than to balance load.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

MOONCAKE_BLOCK: Final = 512
"""Tokens of one hash id."""
RECORD_BLOCK_BYTES: Final = 256
"""Bytes of canonical text in one block of our own records."""


class TraceError(ValueError):
    """A file that cannot be read as a trace; the text has file, line, and what is expected there."""


class Raw(NamedTuple):
    """One request as its file tells it."""

    at: float
    prompt_tokens: int
    output_tokens: int | None
    """None where nobody has counted them."""
    ids: Sequence[Hashable] = ()
    """Of its whole blocks, in order."""
    session: str | None = None
    size: int = 0
    """Bytes of the prompt, where they are known."""


class _Unfit(ValueError):
    """A line that does not say what its format asks for."""


FORMATS: Final = (
    "Mooncake JSONL (timestamp, input_length, output_length, hash_ids), "
    "Azure CSV (TIMESTAMP,ContextTokens,GeneratedTokens), "
    "BurstGPT CSV (Timestamp,Model,Request tokens,Response tokens,...), "
    "or records of `spillway run --record` (at, prompt_tokens, blocks, ...)"
)

Parse = Callable[[Path, Iterator[str]], Iterator[Raw | None]]
"""From a file's lines to its requests; None stands for a line that is no request to simulate. Raises TraceError."""


def recognise(path: Path, first: str) -> tuple[str, Parse]:
    """Name and parser of the format whose files begin with that line. TraceError when there is none."""
    if first.lstrip().startswith("{"):
        try:
            keys = json.loads(first).keys()
        except ValueError as error:
            raise TraceError(f"{path}:1: not JSON ({error}); expected one object a line") from None
        if {"timestamp", "input_length", "hash_ids"} <= keys:
            return "mooncake", _json_lines(_mooncake)
        if {"at", "prompt_tokens", "blocks"} <= keys:
            return "records", _json_lines(_record)
    else:
        columns = {column.strip() for column in first.strip().split(",")}
        if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= columns:
            return "azure", _table(_azure)
        if {"Timestamp", "Request tokens", "Response tokens"} <= columns:
            return "burstgpt", _table(_burstgpt)
    raise TraceError(f"{path}:1: no known trace format; expected {FORMATS}")


# ---- lines to raw rows -------------------------------------------------------------------------------------------


def _json_lines(row: Callable[[dict[str, Any]], Raw | None]) -> Parse:
    def parse(path: Path, lines: Iterator[str]) -> Iterator[Raw | None]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise _Unfit("expected one JSON object a line")
                yield row(found)
            except _Unfit as error:
                raise TraceError(f"{path}:{number}: {error}") from None
            except ValueError as error:
                raise TraceError(f"{path}:{number}: not JSON ({error}); expected one object a line") from None

    return parse


def _table(row: Callable[[dict[str, str]], Raw | None]) -> Parse:
    def parse(path: Path, lines: Iterator[str]) -> Iterator[Raw | None]:
        table = csv.DictReader(lines, skipinitialspace=True)
        for found in table:
            try:
                yield row({key.strip(): value or "" for key, value in found.items() if key})
            except _Unfit as error:
                raise TraceError(f"{path}:{table.line_num}: {error}") from None

    return parse


def _number(found: dict[str, Any], key: str, least: float = 0.0) -> float:
    value = found.get(key)
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else float("nan")
    except ValueError:
        number = float("nan")
    if not least <= number < 1e15:
        raise _Unfit(f'"{key}" is {json.dumps(value, default=str)}; expected a number, {least:g} or more')
    return number


def _mooncake(found: dict[str, Any]) -> Raw:
    prompt = int(_number(found, "input_length", 1))
    ids = found.get("hash_ids")
    if not isinstance(ids, list) or any(not isinstance(each, int) for each in ids):
        raise _Unfit('"hash_ids" is no list; expected one of whole numbers')
    # The last id is that of a block which is not full; engines keep full ones only.
    whole = ids[: prompt // MOONCAKE_BLOCK]
    return Raw(_number(found, "timestamp") / 1000, prompt, int(_number(found, "output_length")), whole)


def _record(found: dict[str, Any]) -> Raw | None:
    if not found.get("prompt_tokens"):
        return None  # refused before anybody counted
    blocks = found.get("blocks")
    if not isinstance(blocks, list) or any(not isinstance(each, str) for each in blocks):
        raise _Unfit('"blocks" is no list; expected one of hexadecimal hashes')
    prompt = int(_number(found, "prompt_tokens", 1))
    key = found.get("key")
    output = int(_number(found, "output_tokens")) if found.get("output_tokens") is not None else None
    session = key if isinstance(key, str) else None
    return Raw(_number(found, "at"), prompt, output, blocks, session, int(_number(found, "bytes")))


def _azure(found: dict[str, str]) -> Raw | None:
    stamp = found.get("TIMESTAMP", "")
    whole, _, part = stamp.partition(".")  # seven decimals, which fromisoformat of Python 3.11 does not take
    try:
        at = datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (part or "0"))
    except ValueError:
        raise _Unfit(f'TIMESTAMP is "{stamp}"; expected one like 2023-11-16 18:17:03.9799600') from None
    prompt = int(_number(found, "ContextTokens"))
    return Raw(at, prompt, int(_number(found, "GeneratedTokens"))) if prompt else None


def _burstgpt(found: dict[str, str]) -> Raw | None:
    prompt, output = int(_number(found, "Request tokens")), int(_number(found, "Response tokens"))
    session = next((value for name, value in found.items() if name.lower() in _SESSION_COLUMNS and value), None)
    at = _number(found, "Timestamp")
    return Raw(at, prompt, output, session=session) if prompt and output else None  # without output it had failed


_SESSION_COLUMNS: Final = {"session", "session id", "session_id", "conversation", "conversation id", "conversation_id"}
