"""What a model of Amazon Bedrock takes beside what Converse has for all of them: told by the family in its id.

Ids are `anthropic.claude-sonnet-4-5-20250929-v1:0`, with a geography before them in a cross-region profile
(`eu.amazon.nova-2-lite-v1:0`), or ARNs that hold one. An ARN of an application's own profile or of bought throughput
(`…:application-inference-profile/a1b2c3`) names no family: it is asked for nothing that is not common to all, but for
what a client says in the words of Anthropic's API, who will know whom it speaks with.

- Claude, beside what `claude` knows: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
- Nova: https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
- gpt-oss: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

from . import claude, efforts
from .conversation import Conversation, Effort

Name = Literal["claude", "nova", "gpt-oss", "other", "unknown"]

_FAMILY = re.compile(r"(?:^|[./])(anthropic\.claude|amazon\.nova|openai\.gpt-oss)[-.:]?(.*)").search
_OTHER = re.compile(r"(?:^|[./])[a-z0-9]+\.[a-z]").search
_MODEL_OF_ARN = re.compile(r"^arn:.*?:(?:foundation-model|inference-profile)/").sub

_NOVA_EFFORTS: Final[dict[Effort, str]] = {"minimal": "low", "low": "low", "medium": "medium"}
_OSS_EFFORTS: Final[dict[Effort, str]] = {"none": "low", "minimal": "low", "low": "low", "medium": "medium"}


class Family(NamedTuple):
    name: Name
    claude: claude.Model | None = None
    generation: tuple[int, int] = (0, 0)
    """Of a Claude model."""
    reasons: bool = False
    """Whether a Nova model can be told to think."""

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

    @property
    def takes_failures(self) -> bool:
        """Whether a result of a tool may say by its status that it has failed; others are told in words."""
        return self.name in ("claude", "nova", "unknown")

    @property
    def strict(self) -> bool:
        """Whether tools may be `strict`; others refuse it, which is what many clients say without a need.
        https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html"""
        return self.name != "nova" and (self.claude is None or self.generation >= (4, 5))

    @property
    def one_by_one(self) -> bool:
        """Whether it can be told to ask for one tool at a time. Claude takes its own word for it from 4.5 on."""
        return self.generation >= (4, 5)


def family_of(model: str) -> Family:
    bare = _MODEL_OF_ARN("", model)
    if bare.startswith("arn:"):
        return Family("unknown")
    found = _FAMILY(bare)
    if found is None:
        return Family("other" if _OTHER(bare) else "unknown")
    name, rest = found.groups()
    if name == "amazon.nova":
        return Family("nova", reasons=rest.startswith("2-"))
    if name == "openai.gpt-oss":
        return Family("gpt-oss")
    own = "claude-1" if rest.startswith(("v", "instant")) else bare
    return Family("claude", claude.model(own), claude.generation(own))


class Extra(NamedTuple):
    """`fields` are the body's `additionalModelRequestFields`, `effort` stands in its `outputConfig`. `samples`: numbers
    by which words are chosen can be sent; `limited`: so can a limit on the answer."""

    fields: dict[str, Any]
    effort: str | None = None
    samples: bool = True
    limited: bool = True


def extra(asked: Conversation, family: Family) -> Extra:
    """What is asked of this model alone: how much it thinks, and from how many words it chooses."""
    reasoning = asked.reasoning
    if family.claude is not None:
        return _of_claude(asked, family.claude)
    if family.name == "unknown" and reasoning is not None and (reasoning.tokens is not None or reasoning.adaptive):
        return _of_claude(asked, claude.model("claude-4-5" if reasoning.tokens is not None else "claude"))
    fields: dict[str, Any] = {}
    highest = False
    if family.reasons and reasoning is not None and efforts.tokens(reasoning) != 0:
        word = _NOVA_EFFORTS.get(efforts.effort(reasoning) or "medium", "high")
        if word == "high" and asked.max_tokens is not None:
            word = "medium"  # `high` is refused with a limit on the answer, which holds whoever set it
        fields["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": word}
        highest = word == "high"
    if family.name == "nova" and asked.top_k is not None and not highest:
        fields["inferenceConfig"] = {"topK": asked.top_k}
    if family.name == "gpt-oss" and reasoning is not None and (said := efforts.effort(reasoning)) is not None:
        fields["reasoning_effort"] = _OSS_EFFORTS.get(said, "high")
    return Extra(fields, None, not highest, not highest)


def _of_claude(asked: Conversation, facts: claude.Model) -> Extra:
    """Not to think is what its models do that are told nothing, and `disabled` is an error to some."""
    fields: dict[str, Any] = {}
    thinking = claude.thinking(asked, facts, asked.max_tokens or facts.most_tokens)
    if thinking is None or not thinking.on:
        samples = facts.samples
        if samples and asked.top_k is not None:
            fields["top_k"] = asked.top_k
        return Extra(fields, samples=samples)
    fields["thinking"] = thinking.field
    if facts.budgets:
        thinking.field.pop("display", None)
        return Extra(fields, samples=False)
    # Without an effort nothing of an adaptive thought is told; this is the one that Anthropic takes for none.
    return Extra(fields, thinking.effort or "high", samples=False)
