"""What Anthropic's models take, by their generation: what of it differs is told by no answer until it is refused.

https://platform.claude.com/docs/en/build-with-claude/thinking, …/adaptive-thinking, …/mid-conversation-system-messages,
…/about-claude/models/overview and …/api/versioning. A name that says no generation (an alias of a gateway) is taken for
the newest: what newer models refuse is what older ones can do without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from . import efforts
from .conversation import Conversation, Thought, ToolResult, ToolUse, Turn

_NAMED = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
"""claude-3-5-sonnet-20241022, claude-opus-4-20250514, claude-opus-4-6, anthropic.claude-sonnet-4-5-20250929-v1:0"""

NEWEST: Final = (99, 0)

LEAST_BUDGET: Final = 1_024
"""Tokens. Anthropic takes no smaller budget for thinking, and as many are left to the answer."""

_SIGNED = re.compile(r"[A-Za-z0-9+/=_-]{64,}").fullmatch
_SEALED = re.compile(r"[A-Za-z0-9+/=_-]+").fullmatch


class Model(NamedTuple):
    """What a model takes of what a chat asks for."""

    thinks: bool
    """Whether it can be told to think."""
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
    return Model(thinks=of >= (3, 7), budgets=of < (4, 6), samples=of < (4, 7), systems=of >= (4, 8), most_tokens=most)


def signed(signature: str | None) -> bool:
    """Whether a signature may be Anthropic's, which are hundreds of characters in base64; its models refuse thoughts
    with any other. Other servers sign with nothing, or with a random number."""
    return signature is not None and _SIGNED(signature) is not None


def sealed(data: str | None) -> bool:
    """The same of a thought that nobody but its model can read."""
    return data is not None and _SEALED(data) is not None


def own(thought: Thought) -> bool:
    """Whether a thought may be Claude's, so that it can go on with it."""
    return signed(thought.signature) if thought.sealed is None else sealed(thought.sealed)


def called(name: str) -> bool:
    """Whether an id of a tool's call is Claude's, at Anthropic or at Amazon Bedrock."""
    return name.startswith(("toolu_", "tooluse_"))


class Thinking(NamedTuple):
    """The field `thinking`, and the effort that is said beside it."""

    field: dict[str, Any]
    effort: str | None = None

    @property
    def on(self) -> bool:
        return bool(self.field["type"] != "disabled")


def thinking(asked: Conversation, facts: Model, most: int) -> Thinking | None:
    """What a model is told of thinking; None for nothing. `most` are the tokens that its answer may have.

    It does not think where it could not: a tool is demanded, or its limit leaves no room, or a call of a tool that is
    answered now came without the thought before it. The rest of what is asked for counts for more than how long is
    thought about it."""
    reasoning = asked.reasoning
    if reasoning is None or not facts.thinks:
        return None
    forced = asked.choice is not None and asked.choice.mode in ("any", "named") and bool(asked.tools)
    wanted = efforts.tokens(reasoning)
    if wanted == 0 or forced:
        return Thinking({"type": "disabled"})
    shown = {} if reasoning.shown is None else {"display": "summarized" if reasoning.shown else "omitted"}
    if facts.budgets:
        budget = min(efforts.TOKENS["medium"] if wanted is None else max(wanted, LEAST_BUDGET), most - LEAST_BUDGET)
        if budget < LEAST_BUDGET or _thoughtless(asked.turns):
            return None
        return Thinking({"type": "enabled", "budget_tokens": budget} | shown)
    effort = efforts.effort(reasoning)
    return Thinking({"type": "adaptive"} | shown, "low" if effort == "minimal" else effort)


def _thoughtless(turns: Sequence[Turn]) -> bool:
    """Whether the loop of tools that the conversation ends with began without a thought of Anthropic's, or was gone on
    with elsewhere: its last call is another model's."""
    first: Turn | None = None
    for turn in reversed(turns):
        calls = [part for part in turn.parts if isinstance(part, ToolUse)] if turn.role == "assistant" else []
        if calls:
            if first is None and not _thinks(turn) and not called(calls[0].id):
                return True
            first = turn
        elif turn.role != "user" or not any(isinstance(part, ToolResult) for part in turn.parts):
            break
    return first is not None and not _thinks(first)


def _thinks(turn: Turn) -> bool:
    thought = turn.parts[0]
    return isinstance(thought, Thought) and own(thought)
