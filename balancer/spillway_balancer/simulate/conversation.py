"""A conversation as its requests see it: each repeats all that was said so far."""

from __future__ import annotations

from array import array
from random import Random
from typing import Any

from .plan import BLOCK, hashes
from .request import Request


class Conversation:
    """What has been said, in hashes of blocks. It begins with a system prompt."""

    __slots__ = ("_asked", "said", "system", "text")

    def __init__(self, system: array[int], said: int) -> None:
        """`said`: tokens of the system prompt."""
        self.said = said
        self.text = system  # grown by replacing, since requests share it
        self.system = system[0]
        self._asked = 0  # tokens of the prompt of the turn before

    def turn(self, id: int, at: float, prompt: int, output: int, dice: Random, **more: Any) -> Request:
        """The next request: `prompt` tokens in all, `output` of an answer. `more` is of the request."""
        asked, self._asked = self._asked, prompt
        self.said = prompt + output
        self.text = self.text + hashes(dice, self.said // BLOCK - len(self.text))
        whole = prompt // BLOCK
        return Request(
            id,
            at,
            prompt,
            output,
            self.text[:whole],
            BLOCK,
            answer_blocks=self.text[whole:],
            system_key=self.system,
            history_tokens=asked,
            **more,
        )
