"""Says of a document what the API server would say: fills in defaults, then reports every error in its words.

It walks the generated structural schema, the very one that stands in the CRD, and evaluates the CEL rules
found there; no rule is written a second time. Wording and order of checks follow
k8s.io/apiextensions-apiserver (v1.34). Two things are kinder than the server: unknown fields do not hide other
errors, and an error silences only the rules that read what is in error, not all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from spillway_api import cel
from spillway_api.metadata import check_metadata
from spillway_api.problem import FieldError, Steps, did_you_mean, shown
from spillway_api.schema import Schema
from spillway_api.types.fields import IN_WORDS

_INT64 = range(-(2**63), 2**63)


class Validated(NamedTuple):
    """A document with its defaults filled in, and all that is wrong with it; without errors it converts."""

    document: dict[str, Any]
    errors: tuple[FieldError, ...]


def validate(schema: Schema, document: dict[str, Any]) -> Validated:
    """Checks a whole object against the schema of its kind (`schema.structural`). Never raises on bad input.

    `document` is plain JSON data and is left as it is. A `status` is dropped unread, as the server does when
    an object is created.
    """
    given = {key: value for key, value in document.items() if key != "status"}
    if isinstance(given.get("metadata"), dict):
        # Written by kubectl as null or empty; the server reads both as absent.
        metadata = {key: value for key, value in given["metadata"].items() if value is not None}
        given["metadata"] = {key: value for key, value in metadata.items() if key != "namespace" or value != ""}
    filled: dict[str, Any] = defaulted(schema, given)
    errors = [*check_metadata(filled), *_structure(schema, filled, ())]
    errors += _rules(schema, filled, (), [error.steps for error in errors if error.blocking])
    return Validated(filled, tuple(errors))


def checked(schema: Schema, document: dict[str, Any]) -> Validated:
    """Checks any other document in the same words: one that is no object of Kubernetes and has no metadata."""
    filled: dict[str, Any] = defaulted(schema, document)
    errors = [*_structure(schema, filled, ())]
    errors += _rules(schema, filled, (), [error.steps for error in errors if error.blocking])
    return Validated(filled, tuple(errors))


def defaulted(schema: Schema, value: Any) -> Any:
    """A copy of `value` with defaults filled in and nulls of objects dropped, as the server stores it."""
    if isinstance(value, dict) and not schema.keys().isdisjoint(("properties", "additionalProperties")):
        properties: dict[str, Schema] = schema.get("properties", {})
        others: Schema = schema.get("additionalProperties", {})
        present = {name: inner for name, inner in value.items() if inner is not None}
        for name, inner in properties.items():
            if name not in present and "default" in inner:
                present[name] = inner["default"]
        return {name: defaulted(properties.get(name, others), inner) for name, inner in present.items()}
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), inner) for inner in value]
    if isinstance(value, float) and _takes_integers(schema) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value not in _INT64:
        # A JSON number beyond 64 bits is a float to the server, and to CEL.
        return float(value) if abs(value) < 2**1023 else math.inf
    return value


def _structure(schema: Schema, value: Any, steps: Steps) -> Iterator[FieldError]:
    """Errors of types, bounds, enumerations, patterns, required and unknown fields, in document order."""
    if "x-kubernetes-preserve-unknown-fields" in schema:
        return
    found = _type_of(value)
    expected: str = schema.get("type", "integer,string")  # without a type it is x-kubernetes-int-or-string
    if found not in expected.split(",") and not (found == "integer" and expected == "number"):
        path = FieldError(steps, "").path
        yield FieldError(
            steps,
            f'Invalid value: "{found}": {path} in body must be of type {expected}: "{found}"',
            _retype(schema, found),
            blocking=True,
        )
    elif isinstance(value, dict):
        yield from _object(schema, value, steps)
    elif isinstance(value, list):
        yield from _list(schema, value, steps)
    elif isinstance(value, str):
        yield from _text(schema, value, steps)
    elif not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield _invalid(steps, value, f"should be greater than or equal to {schema['minimum']}")
        if value > schema.get("maximum", value):
            yield _invalid(steps, value, f"should be less than or equal to {schema['maximum']}")


def _object(schema: Schema, value: dict[str, Any], steps: Steps) -> Iterator[FieldError]:
    properties: dict[str, Schema] | None = schema.get("properties")
    if properties is None:
        if len(value) > schema.get("maxProperties", len(value)):
            most = schema["maxProperties"]
            yield FieldError(steps, f"Too many: {len(value)}: must have at most {most} items", blocking=True)
        if len(value) < schema.get("minProperties", 0):
            yield _invalid(steps, len(value), f"should have at least {schema['minProperties']} properties")
        for name, inner in value.items():
            if "additionalProperties" in schema:
                yield from _structure(schema["additionalProperties"], inner, (*steps, name))
        return
    if len(value) < schema.get("minProperties", 0):
        yield _invalid(steps, len(value), f"should have at least {schema['minProperties']} properties")
    for name, inner in value.items():
        if name in properties:
            yield from _structure(properties[name], inner, (*steps, name))
        else:
            unknown = FieldError((*steps, name), "")
            yield unknown._replace(
                message=f'unknown field "{unknown.path}"', hint=did_you_mean(name, properties, "the fields here are")
            )
    for name in schema.get("required", ()):
        if name not in value:
            about = properties[name].get("description", "")
            yield FieldError((*steps, name), "Required value", about.partition(". ")[0].rstrip("."), blocking=True)


def _list(schema: Schema, value: list[Any], steps: Steps) -> Iterator[FieldError]:
    if len(value) > schema.get("maxItems", len(value)):
        yield FieldError(steps, f"Too many: {len(value)}: must have at most {schema['maxItems']} items", blocking=True)
    if len(value) < schema.get("minItems", 0):
        yield _invalid(steps, len(value), f"should have at least {schema['minItems']} items")
    for index, inner in enumerate(value):
        yield from _structure(schema["items"], inner, (*steps, index))
    kind = schema.get("x-kubernetes-list-type", "atomic")
    if kind == "atomic":
        return
    keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
    times: dict[str, int] = {}
    for index, inner in enumerate(value):
        identity = inner
        if kind == "map":
            if not isinstance(inner, dict) or not all(key in inner for key in keys):
                continue
            identity = {key: inner[key] for key in keys}
        text = shown(identity)
        times[text] = times.get(text, 0) + 1
        if times[text] == 2:
            yield FieldError((*steps, index), f"Duplicate value: {text}")


def _text(schema: Schema, value: str, steps: Steps) -> Iterator[FieldError]:
    if len(value) > schema.get("maxLength", len(value)):
        # The server counts characters and says bytes.
        yield FieldError(steps, f"Too long: may not be more than {schema['maxLength']} bytes", blocking=True)
    elif len(value) < schema.get("minLength", 0):
        yield _invalid(steps, value, f"should be at least {schema['minLength']} chars long")
    elif (pattern := schema.get("pattern")) is not None and not _re2(pattern).search(value):
        error = _invalid(steps, value, f"should match '{pattern}'")
        yield error._replace(hint=IN_WORDS.get(pattern, ""), blocking=True)
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(f'"{name}"' for name in schema["enum"])
        near = did_you_mean(value, schema["enum"])
        message = f"Unsupported value: {shown(value)}: supported values: {supported}"
        yield FieldError(steps, message, near, blocking=True)


def _rules(schema: Schema, value: Any, steps: Steps, broken: list[Steps]) -> Iterator[FieldError]:
    """Errors of the CEL rules, from the outside in; rules over what is `broken` are left out."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if any(_reads(rule["rule"], value, steps, bad) for bad in broken):
            continue
        message = rule["message"]
        try:
            if _compiled(rule["rule"]).evaluate({"self": value}):
                continue
        except cel.EvaluationError as error:
            message = f"{error} evaluating rule: {message}"
        shown_at = (*steps, *(step for step in rule.get("fieldPath", "").split(".") if step))
        yield FieldError(shown_at, f'Invalid value: "{schema.get("type", "")}": {message}')
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, inner in value.items():
            yield from _rules(properties.get(name, others), inner, (*steps, name), broken)
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from _rules(schema["items"], inner, (*steps, index), broken)


def _reads(rule: str, value: Any, steps: Steps, broken: Steps) -> bool:
    """Whether a rule at `steps` reads what is broken there: the place itself, or below a field that it names."""
    if broken[: len(steps)] != steps:
        return steps[: len(broken)] == broken
    if len(broken) == len(steps) or not isinstance(value, dict):
        return True
    return str(broken[len(steps)]) in re.findall(r"self\.(\w+)", rule)


@lru_cache(maxsize=256)
def _compiled(rule: str) -> cel.Expression:
    return cel.compile_expression(rule, {"self": "dyn"})


@lru_cache(maxsize=64)
def _re2(pattern: str) -> re.Pattern[str]:
    """A pattern of the API, read by `re` as RE2 reads it: `$` is the end of the text, `\\s` is ASCII."""
    ascii_only = pattern.replace("\\s", "\\t\\n\\f\\r ")
    return re.compile(ascii_only[:-1] + "\\Z" if ascii_only.endswith("$") else ascii_only)


def _invalid(steps: Steps, value: Any, demand: str) -> FieldError:
    path = FieldError(steps, "").path
    return FieldError(steps, f"Invalid value: {shown(value)}: {path} in body {demand}")


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if value is None:
        return "null"
    names = {str: "string", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def _takes_integers(schema: Schema) -> bool:
    return schema.get("type") == "integer" or "x-kubernetes-int-or-string" in schema


def _retype(schema: Schema, found: str) -> str:
    expected = schema.get("type")
    if expected is None:
        return "write a whole number, or a name"
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if expected == "string" and found in ("boolean", "integer", "number"):
        return f"put it in quotes; unquoted, YAML reads it as {'an' if found == 'integer' else 'a'} {found}"
    if expected in ("boolean", "integer") and found == "string":
        return f"write {'a whole number' if expected == 'integer' else 'true or false'}, without quotes"
    if expected == "array":
        return "write it as a list: each entry on a line that begins with -"
    if expected == "object":
        return "write it as fields, one name: value on a line"
    return ""
