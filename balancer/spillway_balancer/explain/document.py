"""YAML and JSON files of these commands, read and judged as `spillway lint` judges objects: with line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from spillway_api.files import FileProblem, text_of, with_hint
from spillway_api.problem import Steps, path_of
from spillway_api.schema import schema_of
from spillway_api.validate import checked
from spillway_api.yamldoc import Node, documents

Given = TypeVar("Given", bound=Struct)
Part = TypeVar("Part", bound=Struct)


class Unusable(Exception):
    """What was given cannot be used; the lines say where and why."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Read(NamedTuple, Generic[Given]):
    """A document and where its parts stand."""

    value: Given
    file: str
    root: Node
    steps: Steps = ()
    """The way to the value, where it is a part of the document."""

    def problem(self, steps: Steps, message: str) -> str:
        """What is found to be wrong later, with its place."""
        whole = (*self.steps, *steps)
        return str(FileProblem(self.file, *self.root.place(whole), path_of(whole), message))

    def part(self, value: Part, *steps: str | int) -> Read[Part]:
        """A part of the value, with its place."""
        return Read(value, self.file, self.root, (*self.steps, *steps))


def read(path: Path, kind: type[Given]) -> Read[Given]:
    """The one document of a file. Raises Unusable with every problem that there is."""
    text = text_of(path)
    if isinstance(text, FileProblem):
        raise Unusable(str(text))
    found = [document for document in documents(text) if document.root is not None or document.flaws]
    if len(found) != 1:
        raise Unusable(f"{path}: holds {len(found)} documents; one is wanted")
    root, flaws = found[0]
    lines = [
        str(FileProblem(str(path), flaw.line, flaw.column, "", with_hint(flaw.message, flaw.hint))) for flaw in flaws
    ]
    if root is None:
        raise Unusable(*lines)
    value: Any = root.value
    if not isinstance(value, dict):
        raise Unusable(*lines, f"{path}:{root.line}:{root.column}: not a mapping")
    judged = checked(schema_of(kind), value)
    lines += [
        str(FileProblem(str(path), *root.place(error.steps), error.path, with_hint(error.message, error.hint)))
        for error in judged.errors
    ]
    if lines:
        raise Unusable(*lines)
    return Read(msgspec.convert(judged.document, kind), str(path), root)
