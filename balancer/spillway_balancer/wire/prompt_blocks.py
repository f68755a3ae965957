"""A prompt as chained hashes of blocks of its text: what the cache mirror compares, without a tokenizer.

Each block is hashed with the hash before it as the seed, so one equal hash means that everything before is equal too.
The text is `canonical.whole`, which grows at its end as a conversation goes on: the next turn begins with the blocks
of the last one, whoever wrote its JSON.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from ..core.prefix import BLOCK_BYTES, Prompt
from . import canonical


class PromptBlocks(NamedTuple):
    """A prompt, and what it takes to go on with its chain when the answer is known."""

    prompt: Prompt
    last: int
    """What the next block is chained to: the hash of the last whole block, or the seed."""
    carry: bytes | None
    """What stands behind the last whole block, with the opening of the answer; None where no turn can follow."""


def seed_of(model: str, tenant: str | None) -> int:
    """Where a chain begins: other models (and adapters) share no cache, nor do tenants that are isolated."""
    name = model if tenant is None else f"{model}\0{tenant}"
    return xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))  # a header's bytes may be no UTF-8


def prompt_of(values: Mapping[str, msgspec.Raw], turns: str, seed: int) -> PromptBlocks | None:
    """The prompt of a JSON body whose conversation is in the field `turns`; None where `canonical.whole` is."""
    whole = canonical.whole(values, turns)
    if whole is None:
        return None
    data = whole.text.encode()
    blocks = _chain(data, seed)
    # Characters, as a share of the bytes: how far is enough, and most text is ASCII.
    history = whole.history * len(data) // len(whole.text)
    prompt = Prompt(blocks, len(data), history=history)
    last = blocks[-1] if blocks else seed
    if whole.opening is None:
        return PromptBlocks(prompt, last, None)
    return PromptBlocks(prompt, last, data[len(blocks) * BLOCK_BYTES :] + whole.opening.encode())


def continue_blocks(state: PromptBlocks, text: str) -> array[int]:
    """The hashes that the answer `text` adds behind the prompt's, as the prompt of the next turn will have them.

    What ends the answer there (tool calls, the end of its message) is not known here, so the block it stands in is not
    among them.
    """
    if state.carry is None:
        return array("Q")
    return _chain(state.carry + text.encode("utf-8", "replace"), state.last)


def _chain(data: bytes, value: int) -> array[int]:
    blocks = array("Q")
    append = blocks.append
    for start in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES):
        value = xxh3_64_intdigest(data[start : start + BLOCK_BYTES], value)
        append(value)
    return blocks
