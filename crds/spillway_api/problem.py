"""An error of one field in Kubernetes' form: where it is, what is wrong, and a hint at what would be right."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}

Steps = tuple[str | int, ...]
"""The way to a value inside a document: names of fields and indices of lists."""


class FieldError(NamedTuple):
    """What is wrong with one field: `message` in the API server's words, `hint` at what would be right.

    `blocking` means that CEL rules which read this field would only repeat the error or fail over it.
    """

    steps: Steps
    message: str
    hint: str = ""
    blocking: bool = False

    @property
    def path(self) -> str:
        return path_of(self.steps)


def path_of(steps: Steps) -> str:
    """`spec.models[0].name`"""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def steps_of(path: str) -> Steps:
    """The inverse of `path_of`."""
    steps: list[str | int] = []
    for part in path.split("."):
        name, *indices = part.split("[")
        steps += [name] if name else []
        steps += [int(index.rstrip("]")) for index in indices]
    return tuple(steps)


def shown(value: Any) -> str:
    """A value as the API server prints it in an error: text in Go's quotes, everything else as JSON.

    Control characters come out escaped, so a file cannot play tricks on the terminal that shows its errors.
    """
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f'"{"".join(_ESCAPES.get(character) or _escaped(character) for character in value)}"'


def _escaped(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint at the nearest of `known`; without a near one, all of them behind the words of `otherwise`."""
    import difflib  # where something is wrong, and only there

    names = list(known)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{lower[near[0]]}"?'
    return f"{otherwise} {', '.join(names)}" if otherwise else ""
