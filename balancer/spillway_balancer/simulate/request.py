"""One request of a simulation, as the engines and the balancers see it: no text, only sizes and hashes."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from .peers.base import View

Follow: TypeAlias = "Callable[[Request, float], Request | None]"
"""Closed loops: given a request and when it was answered, the one that the same user sends next, if any."""

NONE: Final = array("Q")


class Request:
    """The first group is the workload's and never changes in a run; the second is the world's to write.

    `blocks` are chained 64-bit hashes of the prompt's whole blocks of `block_tokens` tokens, `answer_blocks` those
    that the answer completes: equal hashes mean equal text from the very beginning.
    """

    __slots__ = (
        "answer_blocks",
        "at",
        "attempts",
        "balancer",
        "block_tokens",
        "blocks",
        "cached_tokens",
        "dispatched_at",
        "finished_at",
        "first_token_at",
        "follow",
        "history_tokens",
        "hit_predicted",
        "id",
        "output_tokens",
        "prompt_tokens",
        "session",
        "system_key",
        "tenant",
        "ttft_predicted",
        "user_key",
        "view",
    )

    def __init__(
        self,
        id: int,
        at: float,
        prompt_tokens: int,
        output_tokens: int,
        blocks: array[int],
        block_tokens: int,
        *,
        answer_blocks: array[int] = NONE,
        session: int | None = None,
        user_key: int = 0,
        system_key: int = 0,
        tenant: int = 0,
        history_tokens: int = 0,
        follow: Follow | None = None,
    ) -> None:
        self.id = id
        self.at = at  # s: when it arrives
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.answer_blocks = answer_blocks
        self.session = session  # what a session header would say; None when there is none
        self.user_key = user_key  # hash of the start of the first user message
        self.system_key = system_key  # hash of the first 256 tokens
        self.tenant = tenant
        self.history_tokens = history_tokens  # of the prompt: what the prompt of the turn before had
        self.follow = follow

        self.balancer = 0  # index of the balancer that it came to
        self.view: View | None = None  # where it was sent, as that balancer sees it (peers' policies only)
        self.dispatched_at = 0.0  # s: the last attempt
        self.first_token_at: float | None = None  # s: None until there is one
        self.finished_at: float | None = None
        self.cached_tokens = 0  # prompt tokens that the engine had in its cache
        self.attempts = 0
        self.hit_predicted = 0.0  # prompt tokens that the balancer believed cached
        self.ttft_predicted: float | None = None  # s: to the first token, as the balancer said at the last attempt

    def __repr__(self) -> str:
        return f"<request {self.id}: {self.prompt_tokens}+{self.output_tokens} tokens at {self.at:.3f}>"


def session_of(request: Request) -> int:
    """What tells its session from others: its header, else how its first message begins."""
    return request.user_key if request.session is None else request.session
