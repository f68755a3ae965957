"""Fields that a provider calls by another name: the key is changed where it stands, and its value stays as it came."""

from __future__ import annotations

from spillway_api.providers import Preset

from ..peeked import Edit, Peeked


def renamed(peeked: Peeked, preset: Preset) -> tuple[Edit, ...]:
    """What to change in a chat completion for this provider. One that is there by both names is for it to refuse."""
    if not preset.renames or peeked.path.path != "/v1/chat/completions":
        return ()
    spans = peeked.spans()
    edits: list[Edit] = []
    for old, new in preset.renames:
        if old in spans and new not in spans and bytes(peeked.values()[old]) != b"null":
            opening, value, _ = spans[old]
            edits.append((opening, value, b'"%b":' % new.encode()))
    return tuple(edits)
