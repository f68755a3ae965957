"""Recorded traffic as one table of rows, whatever its format: sizes, times, and which prefixes requests share."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Final, NamedTuple

from .formats import FORMATS, MOONCAKE_BLOCK, RECORD_BLOCK_BYTES, Raw, TraceError, recognise

SESSION_BLOCK: Final = 64
"""Tokens of the blocks that are made up for sessions whose text is not known, and for traces without prefixes."""
COMMON: Final = 0.5
"""A block that more than this share of all requests begin with is taken for a system prompt of everybody."""
COARSE: Final = 1.0
"""Seconds. Timestamps further apart than this, with several requests at each, have been rounded."""


class Row(NamedTuple):
    """One request of a trace."""

    at: float
    prompt_tokens: int
    output_tokens: int
    nodes: array[int]
    """Number the prefixes that it consists of: equal numbers, equal text up to there."""
    session: int | None


class Trace(NamedTuple):
    """What a file holds, in order of arrival from second 0."""

    name: str
    format: str
    rows: Sequence[Row]
    nodes: int
    """How many different prefixes there are; 0 when the format does not tell them."""
    common: frozenset[int]
    """Nodes that most requests share."""
    block_tokens: int
    quantum: float
    """Seconds that timestamps were rounded to; 0 when they were not."""
    left_out: int
    """Rows that are no requests to simulate: failed ones, and such without tokens."""

    @property
    def span(self) -> float:
        """Seconds from the first request until the next would be due."""
        return self.rows[-1].at + (self.quantum or self.rows[-1].at / len(self.rows))


def read(path: Path) -> Trace:
    """The trace in a file. TraceError when it cannot be read, has no known format, or a line is not of its format."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            format, parse = recognise(path, first)
            file.seek(0)
            return _trace(path, format, parse(path, iter(file)))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: not a text file; expected {FORMATS}") from None


def _trace(path: Path, format: str, found: Iterator[Raw | None]) -> Trace:
    raws: list[Raw] = []
    left_out = 0
    for raw in found:
        if raw is None:
            left_out += 1
        else:
            raws.append(raw)
    if not raws:
        raise TraceError(f"{path}: no request in it; expected {FORMATS}")
    raws.sort(key=lambda raw: raw.at)
    block_tokens = _block_tokens(format, raws)
    ids = _sessions(raws) if format == "burstgpt" else [raw.ids for raw in raws]
    sessions: dict[str, int] = {}
    numbers: dict[tuple[int, Hashable], int] = {}
    start = raws[0].at
    counted = [raw.output_tokens for raw in raws if raw.output_tokens is not None]
    usual = round(fmean(counted)) if counted else 1  # an answer that nobody has counted is taken for a mean one
    rows = []
    for raw, chain in zip(raws, ids, strict=True):
        nodes = array("L")
        node = -1
        for each in chain[: raw.prompt_tokens // block_tokens]:
            # A node is known by the one before it: ids need not be chained themselves.
            node = numbers.setdefault((node, each), len(numbers))
            nodes.append(node)
        session = None if raw.session is None else sessions.setdefault(raw.session, len(sessions))
        rows.append(
            Row(
                raw.at - start,
                raw.prompt_tokens,
                max(1, usual if raw.output_tokens is None else raw.output_tokens),
                nodes,
                session,
            )
        )
    quantum = _quantum([row.at for row in rows])
    return Trace(path.name, format, rows, len(numbers), _common(rows), block_tokens, quantum, left_out)


def _block_tokens(format: str, raws: Sequence[Raw]) -> int:
    if format == "mooncake":
        return MOONCAKE_BLOCK
    size = sum(raw.size for raw in raws)
    if format == "records" and size:
        return max(16, round(RECORD_BLOCK_BYTES * sum(raw.prompt_tokens for raw in raws if raw.size) / size))
    return SESSION_BLOCK


def _sessions(raws: Sequence[Raw]) -> list[Sequence[Hashable]]:
    """Block ids where only the session is known: each prompt repeats the one before, its answer, and goes on.

    A prompt that is shorter than what was there before has started anew.
    """
    streams: dict[str, tuple[int, int]] = {}  # how often started anew, tokens so far
    chains: list[Sequence[Hashable]] = []
    for raw in raws:
        if raw.session is None:
            chains.append(())
            continue
        turn, tokens = streams.get(raw.session, (0, 0))
        if raw.prompt_tokens < tokens:
            turn += 1
        streams[raw.session] = turn, raw.prompt_tokens + (raw.output_tokens or 0)
        chains.append([(raw.session, turn)] * (raw.prompt_tokens // SESSION_BLOCK))
    return chains


def _common(rows: Sequence[Row]) -> frozenset[int]:
    seen = Counter(node for row in rows for node in row.nodes[:64])
    return frozenset(node for node, number in seen.items() if number > COMMON * len(rows))


def _quantum(times: Sequence[float]) -> float:
    """The step that timestamps come in, when it is a coarse one (Mooncake's are rounded to some 3 s)."""
    distinct = sorted(set(times))
    if len(distinct) < 2 or len(times) < 2 * len(distinct):
        return 0.0
    step = median(after - before for before, after in pairwise(distinct))
    return step if step >= COARSE else 0.0
