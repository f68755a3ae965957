"""Objects from YAML and JSON files: the source of a balancer without a cluster, and what `spillway lint` checks.

All problems are collected, each with file, line and column, in the words in which a cluster would refuse the
object, and with what would be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from spillway_api.filemaps import FileConfigMap, config_map_of, is_config_map, map_errors
from spillway_api.filesecrets import FileSecret, errors_of, is_secret, secret_of
from spillway_api.labelled import Labelled, has_labels
from spillway_api.problem import FieldError, Steps, did_you_mean, path_of, steps_of
from spillway_api.schema import KINDS, structural
from spillway_api.types import API_VERSION, GROUP, ModelPool, RoutePolicy
from spillway_api.validate import validate
from spillway_api.yamldoc import Document, Node, documents

MAX_BYTES = 4 * 1024 * 1024
SUFFIXES = (".yaml", ".yml", ".json")


class FileProblem(NamedTuple):
    """One thing that is wrong in a file; `str()` is the line that a person reads.

    `line` and `column` count from 1 and are 0 where the file could not be read. `path` is empty where the
    problem is not one of a field; `object` is "Kind/namespace/name" once that is known.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    object: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.object, self.path, self.message) if part)


class Skipped(NamedTuple):
    """A document that is not Spillway's and was left alone, such as a Deployment in the same file."""

    file: str
    line: int
    message: str


class Origin(NamedTuple):
    """Where an object was read."""

    file: str
    root: Node


class Loaded(NamedTuple):
    """What files hold. With problems, `objects` are only those that had none."""

    objects: tuple[ModelPool | RoutePolicy, ...]
    problems: tuple[FileProblem, ...]
    skipped: tuple[Skipped, ...]
    origins: dict[str, Origin]
    secrets: tuple[FileSecret, ...] = ()
    config_maps: tuple[FileConfigMap, ...] = ()

    def config(self, name: str, key: str) -> str | None:
        """What the ConfigMap `namespace/name` has under a key."""
        return next((each.values.get(key) for each in self.config_maps if each.name == name), None)

    def selected(self, namespace: str, labels: Mapping[str, str]) -> list[Labelled]:
        """The Secrets of a namespace that have these labels."""
        own = (each.face for each in self.secrets if each.namespace == namespace)
        return [face for face in own if has_labels(face.labels, labels)]

    def place_of(self, name: str) -> str:
        """`file:line` of the object `Kind/namespace/name`."""
        origin = self.origins[name]
        return f"{origin.file}:{origin.root.line}"

    def problem_at(self, name: str, path: str, message: str) -> FileProblem:
        """A problem that was found later (by compile) in the object `name`, with its place in the files."""
        origin = self.origins[name]
        return FileProblem(origin.file, *origin.root.place(steps_of(path)), path, message, name)


def load(paths: Sequence[Path]) -> Loaded:
    """Reads files, and of folders the *.yaml, *.yml and *.json files in them, by name, hidden ones left out.

    Never raises for what is in the files or for files that cannot be read: that becomes a problem.
    """
    reader = _Reader()
    for path in paths:
        reader.path(path)
    return Loaded(
        tuple(reader.objects),
        tuple(reader.problems),
        tuple(reader.skipped),
        reader.origins,
        tuple(reader.secrets),
        tuple(reader.config_maps),
    )


def name_of(item: ModelPool | RoutePolicy) -> str:
    """`ModelPool/default/llama`, the name of an object in problems."""
    return f"{type(item).__name__}/{item.metadata.namespace}/{item.metadata.name}"


def text_of(path: Path) -> str | FileProblem:
    """The text of a file, or why it has none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return FileProblem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")
    if len(data) > MAX_BYTES:
        return FileProblem(str(path), 0, 0, "", f"is larger than {MAX_BYTES // 2**20} MiB; split it into several files")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        return FileProblem(str(path), line, column, "", "not text in UTF-8")


class _Reader:
    """Collects what a list of files holds."""

    def __init__(self) -> None:
        self.objects: list[ModelPool | RoutePolicy] = []
        self.problems: list[FileProblem] = []
        self.skipped: list[Skipped] = []
        self.secrets: list[FileSecret] = []
        self.config_maps: list[FileConfigMap] = []
        self.origins: dict[str, Origin] = {}
        self._seen: set[Path] = set()

    def path(self, path: Path) -> None:
        if not path.is_dir():
            self._file(path)
            return
        try:
            inside = sorted(path.iterdir())
        except OSError as error:
            self._refuse(str(path), f"cannot be read: {error.strerror}")
            return
        files = [
            file for file in inside if file.suffix in SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        if not files:
            self._refuse(str(path), f"holds no {', '.join('*' + suffix for suffix in SUFFIXES)} file")
        for file in files:
            self._file(file)

    def _file(self, path: Path) -> None:
        shown = str(path)
        try:
            if (real := path.resolve()) in self._seen:
                return
            self._seen.add(real)
        except OSError as error:
            self._refuse(shown, f"cannot be read: {error.strerror}")
            return
        text = text_of(path)
        if isinstance(text, FileProblem):
            self.problems.append(text)
            return
        before = len(self.problems)
        for document in documents(text):
            self._document(shown, document)
        self.problems[before:] = sorted(self.problems[before:], key=lambda problem: problem[1:3])

    def _document(self, file: str, document: Document) -> None:
        root = document.root
        if root is None or not _is_list(root.value):
            self._object(file, root, document)
            return
        # The form in which `kubectl get -o yaml` prints several objects.
        for item in root.parts["items"].node.parts.values():
            self._object(file, item.node, Document(item.node, document.flaws))
            document = document._replace(flaws=())

    def _object(self, file: str, root: Node | None, document: Document) -> None:
        value = None if root is None else root.value
        secret, config_map = is_secret(value), is_config_map(value)
        if isinstance(value, dict) and _is_foreign(value) and not (secret or config_map):
            said = f"{value['apiVersion']} {value['kind']} is not of {GROUP}"
            self.skipped.append(Skipped(file, root.line if root else 0, said))
            return
        before = len(self.problems)
        name = _name(value)
        for flaw in document.flaws:
            message = with_hint(flaw.message, flaw.hint)
            self.problems.append(FileProblem(file, flaw.line, flaw.column, "", message, name))
        if root is None or value is None:
            return
        if secret or config_map:
            for error in errors_of(value) if secret else map_errors(value):
                self._report(file, root, name, error)
            if len(self.problems) > before or not self._is_new(file, root, name):
                return
            if secret:
                self.secrets.append(secret_of(value))
            else:
                self.config_maps.append(config_map_of(value))
            return
        for error in _errors_of_head(value):
            self._report(file, root, name, error)
        if not isinstance(value, dict) or value.get("kind") not in KINDS:
            return
        kind = KINDS[value["kind"]]
        validated = validate(structural(kind.name), value)
        for error in validated.errors:
            self._report(file, root, name, error)
        if len(self.problems) == before:
            self._keep(file, root, msgspec.convert(validated.document, kind.struct))

    def _keep(self, file: str, root: Node, item: ModelPool | RoutePolicy) -> None:
        if self._is_new(file, root, name_of(item)):
            self.objects.append(item)

    def _is_new(self, file: str, root: Node, name: str) -> bool:
        """Whether no object of this name has been read before; one that has been is a problem."""
        if name in self.origins:
            first = self.origins[name]
            line, _ = first.root.place(("metadata", "name"))
            message = f"the same object stands in {first.file}:{line} already (give one of them another name)"
            self._report(file, root, name, FieldError(("metadata", "name"), message))
            return False
        self.origins[name] = Origin(file, root)
        return True

    def _report(self, file: str, root: Node, name: str, error: FieldError) -> None:
        message = with_hint(error.message, error.hint)
        self.problems.append(FileProblem(file, *root.place(error.steps), error.path, message, name))

    def _refuse(self, file: str, message: str) -> None:
        self.problems.append(FileProblem(file, 0, 0, "", message))


def _errors_of_head(value: Any) -> Iterator[FieldError]:
    """What keeps a document from being told apart: its apiVersion and kind."""
    if not isinstance(value, dict):
        yield FieldError((), "not an object", "a document has the fields apiVersion, kind, metadata and spec")
        return
    for field, supported in (("apiVersion", [API_VERSION]), ("kind", list(KINDS))):
        steps: Steps = (field,)
        given = value.get(field)
        listed = ", ".join(f'"{name}"' for name in supported)
        if given is None or given == "":
            yield FieldError(steps, "Required value", f"supported values: {listed}")
        elif not isinstance(given, str):
            yield FieldError(steps, f"Invalid value: {path_of(steps)} in body must be of type string", "quote it")
        elif given not in supported:
            message = f'Unsupported value: "{given}": supported values: {listed}'
            yield FieldError(steps, message, did_you_mean(given, supported))


def _is_foreign(value: dict[Any, Any]) -> bool:
    """Whether a document is plainly of another API. Our kinds under a wrong group are a slip, not foreign."""
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or not version or not kind:
        return False
    return version.partition("/")[0] != GROUP and kind not in KINDS


def _is_list(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("apiVersion") == "v1"
        and value.get("kind") == "List"
        and isinstance(value.get("items"), list)
    )


def _name(value: Any) -> str:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return ""
    return f"{value.get('kind')}/{metadata.get('namespace') or 'default'}/{metadata['name']}"


def with_hint(message: str, hint: str) -> str:
    """A message, and what would be right in brackets behind it."""
    return f"{message} ({hint})" if hint else message
