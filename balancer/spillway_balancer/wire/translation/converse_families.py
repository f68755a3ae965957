"""What a model of Amazon Bedrock takes beside what Converse has for all of them: told by the family in its id.

Ids are `anthropic.claude-sonnet-4-5-20250929-v1:0`, with a geography before them in a cross-region profile
(`eu.amazon.nova-2-lite-v1:0`), or ARNs that hold one. An ARN of an application's own profile or of bought throughput
(`…:application-inference-profile/a1b2c3`) names no family: it is asked for nothing that is not common to all.

- Claude: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html and, from 4.6 on,
  https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
- Nova: https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
- gpt-oss: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

from . import efforts
from .conversation import Conversation, Effort, Reasoning, Thought, ToolUse

Name = Literal["claude", "nova", "gpt-oss", "other", "unknown"]

LEAST_BUDGET: Final = 1024
"""Tokens; Anthropic takes no smaller thinking budget. As many are left to an answer beside its thinking."""

_FAMILY = re.compile(r"(?:^|[./])(anthropic\.claude|amazon\.nova|openai\.gpt-oss)[-.:]?(.*)").search
_OTHER = re.compile(r"(?:^|[./])[a-z0-9]+\.[a-z]").search
_CLAUDE = re.compile(r"(?:(?:opus|sonnet|haiku)-(\d+)|(3))(?:-(\d{1,2})(?!\d))?").match
_MODEL_OF_ARN = re.compile(r"^arn:.*?:(?:foundation-model|inference-profile)/").sub

_NOVA_EFFORTS: Final[dict[Effort, str]] = {"minimal": "low", "low": "low", "medium": "medium"}
_OSS_EFFORTS: Final[dict[Effort, str]] = {"none": "low", "minimal": "low", "low": "low", "medium": "medium"}
_CLAUDE_EFFORTS: Final[dict[Effort, str]] = {"minimal": "low"}


class Family(NamedTuple):
    """`version` is that of a Claude model: (4, 5); (99, 0) where its name has none of the old form."""

    name: Name
    version: tuple[int, int] = (0, 0)

    @property
    def caches(self) -> bool:
        """Whether marks of what to cache can be handed on. With an unknown family the client's word is taken."""
        return self.name in ("claude", "nova", "unknown")

    @property
    def caches_all(self) -> bool:
        """Whether tools can be marked, too, and for how long."""
        return self.name in ("claude", "unknown")

    @property
    def keeps_thoughts(self) -> bool:
        """Whether signed reasoning of earlier turns can be its own."""
        return self.name in ("claude", "unknown")


def family_of(model: str) -> Family:
    bare = _MODEL_OF_ARN("", model)
    if bare.startswith("arn:"):
        return Family("unknown")
    found = _FAMILY(bare)
    if found is None:
        return Family("other" if _OTHER(bare) else "unknown")
    name, rest = found.groups()
    if name == "amazon.nova":
        return Family("nova", (2, 0) if rest.startswith("2-") else (1, 0))
    if name == "openai.gpt-oss":
        return Family("gpt-oss")
    version = _CLAUDE(rest)
    if version is not None:
        return Family("claude", (int(version[1] or version[2]), int(version[3] or 0)))
    return Family("claude", (2, 0) if rest.startswith(("v", "instant")) else (99, 0))


class Extra(NamedTuple):
    """`fields` are the body's `additionalModelRequestFields`, `effort` stands in its `outputConfig`. `thinks`: numbers
    by which words are chosen are not to be sent."""

    fields: dict[str, Any]
    effort: str | None = None
    thinks: bool = False


def extra(asked: Conversation, family: Family) -> Extra:
    """What is asked of this model alone: how much it thinks, and from how many words it chooses."""
    fields: dict[str, Any] = {}
    effort: str | None = None
    thinks = False
    reasoning = asked.reasoning
    if reasoning is not None and efforts.tokens(reasoning) != 0:
        if family.name == "claude":
            thinking, effort = _claude(asked, reasoning, family)
            thinks = thinking is not None
            if thinking is not None:
                fields["thinking"] = thinking
        elif family == Family("nova", (2, 0)):
            word = _NOVA_EFFORTS.get(efforts.effort(reasoning) or "medium", "high")
            if word == "high" and asked.max_tokens is not None:
                word = "medium"  # `high` is refused with a limit on the answer, which holds whoever set it
            fields["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": word}
            thinks = word == "high"
    if reasoning is not None and family.name == "gpt-oss":
        said = efforts.effort(reasoning)
        if said is not None:
            fields["reasoning_effort"] = _OSS_EFFORTS.get(said, "high")
    if asked.top_k is not None and not thinks:
        if family.name == "claude":
            fields["top_k"] = asked.top_k
        elif family.name == "nova":
            fields["inferenceConfig"] = {"topK": asked.top_k}
    return Extra(fields, effort, thinks)


def _claude(asked: Conversation, reasoning: Reasoning, family: Family) -> tuple[dict[str, Any] | None, str | None]:
    """Claude's `thinking`, and the effort beside it. A tool that has to be asked for excludes thinking."""
    if asked.choice is not None and asked.choice.mode in ("any", "named"):
        return None, None
    if family.version >= (4, 6):
        said = efforts.effort(reasoning)
        if said == "xhigh" and family.version == (4, 6):
            said = "high"
        return {"type": "adaptive"}, None if said is None else _CLAUDE_EFFORTS.get(said, said)
    if family.version < (3, 7) or _amid_tools_without_thoughts(asked):
        return None, None
    budget = efforts.tokens(reasoning)
    limit = efforts.TOKENS["high"] if asked.max_tokens is None else asked.max_tokens - LEAST_BUDGET
    if reasoning.tokens is not None and asked.max_tokens is not None:
        limit = asked.max_tokens - 1
    budget = min(efforts.TOKENS["high"] if budget is None else budget, limit)
    return ({"type": "enabled", "budget_tokens": budget}, None) if budget >= LEAST_BUDGET else (None, None)


def _amid_tools_without_thoughts(asked: Conversation) -> bool:
    """Whether the model has asked for tools and is handed their results without what it had thought: with a thinking
    budget that is an error to Claude, and clients of OpenAI's API have no thoughts to repeat."""
    for turn in reversed(asked.turns):
        if turn.role == "assistant":
            parts = turn.parts
            thought = any(isinstance(part, Thought) and (part.signature or part.sealed) for part in parts)
            return any(isinstance(part, ToolUse) for part in parts) and not thought
    return False
