"""YAML text to plain values that know their line and column, read as kubectl reads it.

PyYAML's own composer loses positions of values, follows YAML 1.1 where kubectl does not (sexagesimal numbers,
dates), keeps the last of two equal keys, and recurses as deep as the file says. This one builds on its event
stream instead (the parser of libyaml where there is one). Plain scalars are resolved as Go's yaml does for
kubectl: https://github.com/kubernetes-sigs/yaml (goyaml.v2/resolve.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from spillway_api.problem import Steps

MAX_DEPTH = 64
MAX_VALUES = 200_000
"""Values in one document, each alias counted as all that it stands for: no anchor can make a file explode."""

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_TAG = "tag:yaml.org,2002:"
_TAGGED: dict[str, Any] = {"int": int, "float": int | float, "bool": bool, "null": type(None)}


class Node:
    """A value and where it stands; line and column count from 1. `parts` leads to the values inside it."""

    __slots__ = ("column", "is_merge", "line", "parts", "size", "value")

    def __init__(self, value: Any, line: int, column: int) -> None:
        self.value = value
        self.line = line
        self.column = column
        self.parts: dict[str | int, Part] = {}
        self.size = 1
        self.is_merge = False

    def place(self, steps: Steps) -> tuple[int, int]:
        """Line and column of what `steps` lead to: a field's key, a list's entry, else the nearest around."""
        node, line, column = self, self.line, self.column
        for step in steps:
            if step not in node.parts:
                break
            node, line, column = node.parts[step]
        return line, column


class Part(NamedTuple):
    """A value inside another: of a mapping, with the place of its key; of a list, with its own."""

    node: Node
    line: int
    column: int


class Flaw(NamedTuple):
    """What is wrong with the text itself; `hint` says what would be right."""

    line: int
    column: int
    message: str
    hint: str = ""


class Document(NamedTuple):
    """One document of a file. `root` is None where a flaw left nothing to read."""

    root: Node | None
    flaws: tuple[Flaw, ...]


class _Refused(Exception):
    def __init__(self, place: tuple[int, int], message: str, hint: str = "") -> None:
        super().__init__(message)
        self.flaw = Flaw(*place, message, hint)


def documents(text: str) -> Iterator[Document]:
    """The documents of a text. A flaw of syntax ends the text; other flaws end nothing. Never raises."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.DocumentEndEvent):
                yield composer.finish()
                composer = _Composer()
            else:
                composer.take(event)
    except _Refused as refused:
        yield Document(None, (*composer.flaws, refused.flaw))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        reason = " ".join(" ".join(part for part in (error.context, error.problem) if part).split())
        yield Document(None, (*composer.flaws, Flaw(line, column, f"not YAML: {reason}", _advice(reason))))
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        yield Document(None, (*composer.flaws, Flaw(line, 1, f"not YAML: {' '.join(str(error).split())}")))


class _Open:
    """A mapping or list whose end has not come yet."""

    __slots__ = ("anchor", "key", "merges", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        self.merges: list[tuple[Node, Node]] = []


class _Composer:
    """Builds one document from events, without recursion."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self._root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def finish(self) -> Document:
        return Document(self._root, tuple(self.flaws))

    def take(self, event: Any) -> None:
        mark = event.start_mark
        place = (mark.line + 1, mark.column + 1)
        kind = type(event)
        if kind is yaml.ScalarEvent:
            node = self._scalar(event, place)
            if event.anchor is not None:
                self._anchors[event.anchor] = node
            self._add(node, place)
        elif kind is yaml.AliasEvent:
            if event.anchor not in self._anchors:
                hint = f"its anchor &{event.anchor} must stand before it, in the same document and not around it"
                raise _Refused(place, f"unknown alias *{event.anchor}", hint)
            self._add(self._anchors[event.anchor], place)
        elif kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
            if len(self._open) == MAX_DEPTH:
                raise _Refused(place, f"nested deeper than {MAX_DEPTH} levels")
            empty: Any = {} if kind is yaml.MappingStartEvent else []
            self._open.append(_Open(Node(empty, *place), event.anchor))
        elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
            done = self._open.pop()
            self._merge(done)
            # Known only now, so that an alias inside its own anchor is an unknown one.
            if done.anchor is not None:
                self._anchors[done.anchor] = done.node
            self._add(done.node, (done.node.line, done.node.column))

    def _add(self, node: Node, place: tuple[int, int]) -> None:
        if not self._open:
            self._root = node
            return
        inside = self._open[-1]
        outer = inside.node
        outer.size += node.size
        if outer.size > MAX_VALUES:
            raise _Refused(
                place,
                f"more than {MAX_VALUES} values in one document, each alias counted in full",
                "split the file, or use fewer aliases",
            )
        if isinstance(outer.value, list):
            outer.parts[len(outer.value)] = Part(node, *place)
            outer.value.append(node.value)
        elif inside.key is None:
            inside.key = node
        else:
            key, inside.key = inside.key, None
            self._entry(inside, key, node)

    def _entry(self, inside: _Open, key: Node, node: Node) -> None:
        outer, name = inside.node, key.value
        if key.is_merge:
            inside.merges.append((key, node))
        elif not isinstance(name, str):
            nested = isinstance(name, dict | list)
            shown = "a list or mapping" if nested else json.dumps(name)
            hint = "keys are plain names" if nested else "quote it"
            self._flaw((key.line, key.column), f"a key that is not text: YAML reads it as {shown}", hint)
        elif name in outer.value:
            hint = f"it stands in line {outer.parts[name].line} already"
            self._flaw((key.line, key.column), f'duplicate key "{name}"', hint)
        else:
            outer.value[name] = node.value
            outer.parts[name] = Part(node, key.line, key.column)

    def _merge(self, done: _Open) -> None:
        """Takes over what `<<` names: own keys win, then the first of several mappings."""
        for key, source in done.merges:
            several = [part.node for part in source.parts.values()] if isinstance(source.value, list) else [source]
            for one in several:
                if not isinstance(one.value, dict):
                    self._flaw((key.line, key.column), "<< must name a mapping", "such as <<: *anchor")
                    continue
                for name, part in one.parts.items():
                    if name not in done.node.parts:
                        done.node.parts[name] = part
                        done.node.value[name] = part.node.value

    def _scalar(self, event: Any, place: tuple[int, int]) -> Node:
        tag = (event.tag or "").removeprefix(_TAG)
        node = Node(event.value, *place)
        if event.implicit[0] or tag in _TAGGED:
            node.value = resolve(event.value)
            node.is_merge = event.value == "<<" and event.implicit[0]
            if not isinstance(node.value, _TAGGED.get(tag, object)):
                self._flaw(place, f"a value that is not of the type that its tag !!{tag} says")
        elif tag not in ("", "!", "str"):
            shown = event.tag.replace(_TAG, "!!")
            self._flaw(place, f"unknown tag {shown}", "write the value without a tag")
        return node

    def _flaw(self, place: tuple[int, int], message: str, hint: str = "") -> None:
        self.flaws.append(Flaw(*place, message, hint))


def resolve(text: str) -> Any:
    """What a plain scalar stands for: null, a boolean, a number (whole ones as int) or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        sign = -1 if digits.startswith("-") else 1
        bare = digits.lstrip("+-").lower()
        octal = len(bare) > 1 and bare[0] == "0" and bare[1] in "01234567o"
        return sign * (int(bare.replace("o", ""), 8) if octal else int(bare, 0))
    if _FLOAT.fullmatch(digits):
        number = float(digits)
        # kubectl hands numbers on as JSON, where 1e3 and 1000 are the same.
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    special = _SPECIAL.get(text.lower())
    return float(special) if special is not None else text


def _advice(reason: str) -> str:
    if "cannot start any token" in reason:
        return "indent with spaces, not tabs, and quote text that begins with a special character"
    if "mapping values are not allowed" in reason:
        return "quote text that holds a colon and a space, or mend the indentation"
    return ""
