"""A request in the APIs of those who serve it: read once, written once for each server's manner and name of the model.

Nobody translates from one API straight into another: what is read becomes a Conversation, and what is written is made
of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from spillway_api.providers import PRESETS

from ...core.errors import BadRequest
from ..names import FORBIDDEN, fold
from . import chat_answers, chat_asks, converse_answers, converse_asks, messages_answers, messages_asks
from .conversation import Conversation
from .dialects import Answering, Api, Asking, Body

_ASKING: Final[dict[Api, Asking]] = {
    "chat": chat_asks.ASKING,
    "messages": messages_asks.ASKING,
    "converse": converse_asks.ASKING,
}

ANSWERING: Final[dict[Api, Answering]] = {
    "chat": chat_answers.ANSWERING,
    "messages": messages_answers.ANSWERING,
    "converse": converse_answers.ANSWERING,
}

Values = Mapping[str, msgspec.Raw]


def asking(api: Api, provider: str | None) -> Asking:
    """How a type of provider is asked; None is an endpoint of our own. What chat completions take differs by type."""
    if api == "chat" and provider is not None and provider in PRESETS:
        return chat_asks.asking_of(PRESETS[provider])
    return _ASKING[api]


class Asked:
    """One client's request, to be said in other APIs."""

    __slots__ = ("_api", "_bodies", "_read", "_uncarried", "_values")

    def __init__(self, api: Api, values: Values) -> None:
        """`values`: the top level of its body, in the client's `api`."""
        self._api = api
        self._values = values
        self._read: Conversation | BadRequest | None = None
        self._uncarried: dict[tuple[Api, str | None, str], tuple[str, ...]] = {}
        self._bodies: dict[tuple[Api, str | None, str], Body] = {}

    def conversation(self) -> Conversation:
        """What is asked. Raises a BadRequest where it cannot be understood."""
        if self._read is None:
            self._read = self._conversation()
        if isinstance(self._read, BadRequest):
            raise self._read
        return self._read

    def _conversation(self) -> Conversation | BadRequest:
        read = _ASKING[self._api].read
        assert read is not None
        try:
            return read({name: raw for name, raw in self._values.items() if fold(name) not in FORBIDDEN})
        except BadRequest as error:
            return error

    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        """Fields that this model of a type of provider cannot be told. Raises as `conversation` does."""
        at = into, provider, model
        if at not in self._uncarried:
            self._uncarried[at] = asking(into, provider).uncarried(self.conversation(), model)
        return self._uncarried[at]

    def body(self, into: Api, provider: str | None, model: str) -> Body:
        """The request as this type of provider takes it, for its name of the model. Only where nothing is `uncarried`;
        raises as `conversation` does."""
        at = into, provider, model
        if at not in self._bodies:
            self._bodies[at] = asking(into, provider).write(self.conversation(), model)
        return self._bodies[at]
