"""Fields of a request that a provider refuses: called by its own name, or left out; all others stay as they came."""

from __future__ import annotations

from typing import Final

import msgspec

from spillway_api.providers import Preset

from ..peeked import Edit, Peeked
from .anthropic import own_thoughts
from .takeover import taken_over

CHAT: Final = "/v1/chat/completions"

_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def adapted(peeked: Peeked, preset: Preset, model: str) -> tuple[Edit, ...]:
    """What to change in a body for this provider and its name of the model. What is there by both names is for it to
    refuse."""
    if preset.api == "messages":
        return own_thoughts(peeked) if peeked.path.messages else ()
    if not (preset.renames or preset.tells_usage or preset.takes or preset.reasoning) or peeked.path.path != CHAT:
        return ()
    spans = peeked.spans()
    edits: list[Edit] = []
    for old, new in preset.renames:
        if old in spans and new not in spans and bytes(peeked.values()[old]) != b"null":
            opening, value, _ = spans[old]
            edits.append((opening, value, b'"%b":' % new.encode()))
    if preset.tells_usage and (asked := _without_usage(peeked)) is not None:
        edits.append(asked)
    if (taken := taken_over(peeked, preset, model)) is not None:
        edits.append(taken)
    return tuple(edits)


def with_own(edits: tuple[Edit, ...], own: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Changes of a rule's and those for a provider, which are the last word on a field that both change."""
    if not own or not edits:
        return edits or own
    taken = {(first, last) for first, last, _ in own if last > first}
    return (*(edit for edit in edits if edit[:2] not in taken), *own)


def _without_usage(peeked: Peeked) -> Edit | None:
    """`stream_options` of which nothing asks for usage, where it does."""
    raw = peeked.values().get("stream_options")
    if raw is None:
        return None
    try:
        options = _options(raw) or {}
    except msgspec.DecodeError:
        return None  # no object: for the provider to refuse
    if options.pop("include_usage", None) is None:
        return None
    _, start, end = peeked.spans()["stream_options"]
    return start, end, msgspec.json.encode(options)
