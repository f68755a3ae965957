"""What is known of a request's body after one look at it, and how the same bytes go on with another model name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from ..core.errors import BadRequest, MissingModel
from .paths import Path
from .prompt_blocks import PromptBlocks

MAX_MODEL_CHARS: Final = 253
"""As long as the longest name that a ModelPool may declare."""

DEFAULT_OUTPUT_TOKENS: Final = 256
"""What a request that sets no limit is taken to generate; a typical chat answer."""


Edit = tuple[int, int, bytes]
"""First byte, the byte after the last, and what stands there instead."""


class Fields(Protocol):
    """Reads further fields of a body, only when they are asked for."""

    def field(self, name: str) -> str | None: ...
    def prefix(self, chars: int | None) -> bytes | None: ...
    def prompt(self, seed: int) -> PromptBlocks | None: ...
    def values(self) -> Mapping[str, msgspec.Raw]: ...
    def spans(self) -> Mapping[str, tuple[int, int, int]]: ...


class Peeked:
    """Facts of one body. The body itself is kept as it came and never copied as a whole."""

    __slots__ = (
        "_body",
        "_cuts",
        "_encode_model",
        "_fields",
        "_model_span",
        "model",
        "output_tokens",
        "path",
        "prompt_tokens",
        "stream",
    )

    def __init__(
        self,
        path: Path,
        model: str,
        stream: bool,
        prompt_tokens: int,
        output_tokens: int,
        body: bytes,
        model_span: tuple[int, int],
        cuts: Sequence[tuple[int, int]],
        encode_model: Callable[[str], bytes],
        fields: Fields,
    ) -> None:
        self.path = path
        self.model = model
        self.stream = stream
        self.prompt_tokens = prompt_tokens
        """An estimate: bytes of text / 4, rounded up, at least 1. Images and audio count a fixed amount each."""
        self.output_tokens = output_tokens
        """The most tokens that may be generated: as the request says, 256 where it does not; 1..131072."""
        self._body = body
        self._model_span = model_span
        self._cuts = cuts
        self._encode_model = encode_model
        self._fields = fields

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self._body)

    def body_field(self, name: str) -> str | None:
        """A string, integer or boolean as text: the top-level key of exactly that name, else the dotted path."""
        return self._fields.field(name)

    def prefix(self, chars: int | None) -> bytes | None:
        """What requests of one conversation have in common; see `wire.canonical`. None where a body has no text."""
        return self._fields.prefix(chars)

    def prompt(self, seed: int) -> PromptBlocks | None:
        """The prompt in hashed blocks, chained from `prompt_blocks.seed_of`; None where no text is generated from one.

        Made anew at each call, in a microsecond for every 800 bytes of text.
        """
        return self._fields.prompt(seed) if self.path.generates else None

    def values(self) -> Mapping[str, msgspec.Raw]:
        """The fields of a JSON body, unread; a form has none."""
        return self._fields.values()

    def spans(self) -> Mapping[str, tuple[int, int, int]]:
        """Where the fields of a JSON body stand: the key's opening quote, the value's first byte and the one behind."""
        return self._fields.spans()

    def forward(self, upstream_model: str, edits: Sequence[Edit] = ()) -> list[bytes | memoryview]:
        """The body to send: the client's bytes with `model` replaced, `edits` made and forbidden fields left out.

        Pieces, to be joined or written one after another; slices of the body are memoryviews. Nothing to change
        gives `[body]`, the very object.
        """
        body = self._body
        if upstream_model == self.model and not self._cuts and not edits:
            return [body]
        view = memoryview(body)
        changes = list(edits)
        if upstream_model != self.model:
            changes.append((*self._model_span, self._encode_model(upstream_model)))
        if self._cuts or edits:
            changes += [(first, last, b"") for first, last in self._cuts]
            changes.sort()
        pieces: list[bytes | memoryview] = []
        at = 0
        for first, last, new in changes:
            if first > at:
                pieces.append(view[at:first])
            if new:
                pieces.append(new)
            at = last
        pieces.append(view[at:])
        return pieces


def checked_model(model: object) -> str:
    """The value of `model`; raises MissingModel or BadRequest."""
    if not isinstance(model, str) or not model:
        what = "is missing" if model is None else "must be a string that is not empty"
        raise MissingModel(f"the field 'model' {what}", param="model")
    if len(model) > MAX_MODEL_CHARS:
        raise BadRequest(f"the field 'model' is longer than {MAX_MODEL_CHARS} characters", param="model")
    if not model.isprintable():
        raise BadRequest("the field 'model' has characters that cannot be printed", param="model")
    return model
