"""Requests of the simulator as chats: what is only sizes and hashes there is said in so many words here.

The text is made so that it has the structure of the request in both places that look at it. In the engine's rendering
(engine/text.py) the prompt has exactly the tokens of the request, and any two prompts have as many leading bytes in
common as their requests have equal leading blocks, up to the next block. In the balancer's (wire/canonical.py) the
same holds, but for the markers around messages, which are shorter there.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from spillway_balancer.city.load import prose
from spillway_balancer.engine.text import TOKEN_BYTES, render_chat
from spillway_balancer.simulate.request import Request

Message = dict[str, str]

MODEL: Final = "bench"
SYSTEM_BYTES: Final = 192
"""Of a first prompt that its system message has; within the first block, whatever follows."""


class Chat:
    """One session of the simulator: its requests in order, each made of what was really answered before."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def ask(self, request: Request) -> dict[str, Any]:
        """The body of the next request. ValueError for one that is too short to be a chat."""
        if self.messages:
            self._user(_text(f"turn {request.id}", request.prompt_tokens * TOKEN_BYTES), request)
        else:
            self._begin(request)
        return {
            "model": MODEL,
            "messages": self.messages,
            "max_tokens": request.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def answered(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def _begin(self, request: Request) -> None:
        """A text that follows from the blocks alone; what stands behind the last whole one is this session's own.

        The markers of the canonical text stand in the place of some of it, so that its blocks are those of the request
        to the byte. The engine's markers before the text are 15 bytes longer, less than the smallest block.
        """
        size = request.block_tokens * TOKEN_BYTES
        text = "".join(_text(f"block {each}", size) for each in request.blocks)
        text += _text(f"session {request.session}", request.prompt_tokens * TOKEN_BYTES)
        begin = len("system\n")
        self.messages.append({"role": "system", "content": text[begin:SYSTEM_BYTES]})
        self._user(text[SYSTEM_BYTES + len("\nuser\n") :], request)

    def _user(self, text: str, request: Request) -> None:
        """As much of the text as makes the prompt as long as it should be; at least a letter, that next turns level."""
        message = {"role": "user", "content": ""}
        room = request.prompt_tokens * TOKEN_BYTES - len(render_chat([*self.messages, message]))
        if room < 1 and len(self.messages) < 2:
            raise ValueError(f"{request!r} is too short for a chat with a system prompt")
        message["content"] = text[: max(1, room)]
        self.messages.append(message)


def _text(seed: str, size: int) -> str:
    """So many bytes of prose."""
    return prose(Random(seed), size // TOKEN_BYTES + 1)[:size]
