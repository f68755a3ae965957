"""What Anthropic's models take, by their generation: what of it differs is told by no answer until it is refused.

https://platform.claude.com/docs/en/build-with-claude/thinking, …/adaptive-thinking, …/mid-conversation-system-messages,
…/about-claude/models/overview and …/api/versioning. A name that says no generation (an alias of a gateway) is taken for
the newest: what newer models refuse is what older ones can do without.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_NAMED = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
"""claude-3-5-sonnet-20241022, claude-opus-4-20250514, claude-opus-4-6, anthropic.claude-sonnet-4-5-20250929-v1:0"""

NEWEST: Final = (99, 0)


class Model(NamedTuple):
    """What a model takes of what a chat asks for."""

    budgets: bool
    """`thinking.budget_tokens`. Newer ones decide themselves how long to think, after an effort."""
    samples: bool
    """`temperature`, `top_p` and `top_k`."""
    systems: bool
    """Turns of the system's in the middle of a conversation."""
    most_tokens: int
    """An answer where the client sets no limit: as much as all models of the generation may generate."""


def generation(name: str) -> tuple[int, int]:
    found = _NAMED.search(name)
    return (int(found[1]), int(found[2] or 0)) if found else NEWEST


def model(name: str) -> Model:
    """By the provider's name of it."""
    of = generation(name)
    most = 4_096 if of < (3, 5) else 8_192 if of < (3, 7) else 32_000
    return Model(budgets=of < (4, 6), samples=of < (4, 7), systems=of >= (4, 8), most_tokens=most)
