"""A request in the APIs of those who serve it: read once, written once for each API and model.

Nobody translates from one API straight into another: what is read becomes a Conversation, and what is written is made
of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ...core.errors import BadRequest
from ..names import FORBIDDEN, fold
from .conversation import Conversation
from .dialects import Answering, Api, Asking, Body

ASKING: Final[dict[Api, Asking]] = {}
ANSWERING: Final[dict[Api, Answering]] = {}

Values = Mapping[str, msgspec.Raw]


class Asked:
    """One client's request, to be said in other APIs."""

    __slots__ = ("_api", "_bodies", "_read", "_uncarried", "_values")

    def __init__(self, api: Api, values: Values) -> None:
        """`values`: the top level of its body, in the client's `api`."""
        self._api = api
        self._values = values
        self._read: Conversation | BadRequest | None = None
        self._uncarried: dict[Api, tuple[str, ...]] = {}
        self._bodies: dict[tuple[Api, str], Body] = {}

    def conversation(self) -> Conversation:
        """What is asked. Raises a BadRequest where it cannot be understood."""
        if self._read is None:
            self._read = self._conversation()
        if isinstance(self._read, BadRequest):
            raise self._read
        return self._read

    def _conversation(self) -> Conversation | BadRequest:
        read = ASKING[self._api].read
        assert read is not None
        try:
            return read({name: raw for name, raw in self._values.items() if fold(name) not in FORBIDDEN})
        except BadRequest as error:
            return error

    def uncarried(self, into: Api) -> tuple[str, ...]:
        """Fields that this API has no words for. Raises as `conversation` does."""
        if self._api not in ASKING or into not in ASKING:
            return (f"what is asked in {self._api}",)
        if into not in self._uncarried:
            self._uncarried[into] = ASKING[into].uncarried(self.conversation())
        return self._uncarried[into]

    def body(self, into: Api, model: str) -> Body:
        """The request in this API, for the provider's name of the model. Only where nothing is `uncarried`."""
        if (into, model) not in self._bodies:
            self._bodies[into, model] = ASKING[into].write(self.conversation(), model)
        return self._bodies[into, model]
