"""From the types to structural OpenAPI schemas and CustomResourceDefinitions.

The schema is what the API server enforces, and what `validate` walks for files: both read the same one.
Format: apiextensions.k8s.io/v1, https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/.
"""

from __future__ import annotations

import inspect
import re
import types
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from spillway_api.markup import Cel
from spillway_api.types import GROUP, VERSION, ModelPool, RoutePolicy
from spillway_api.types.status import ModelPoolStatus, RoutePolicyStatus

Schema = dict[str, Any]
"""A structural schema, or a part of one, in the form in which it stands in a CRD."""

_PLAIN = {str: "string", int: "integer", bool: "boolean", float: "number"}
_TEXT_BOUNDS = {"min_length": "minLength", "max_length": "maxLength"}
_MAP_BOUNDS = {"min_length": "minProperties", "max_length": "maxProperties"}
_LIST_BOUNDS = {"min_length": "minItems", "max_length": "maxItems"}
_NUMBER_BOUNDS = {"ge": "minimum", "le": "maximum"}

# A schema is read by people too, so what is short comes first and what is nested last.
_ORDER = (
    "description",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "required",
    "x-kubernetes-validations",
    "items",
    "additionalProperties",
    "properties",
)


class Column(NamedTuple):
    """A column of `kubectl get`; those of priority 1 show with `-o wide`."""

    name: str
    type: str
    json_path: str
    description: str | None = None
    priority: int = 0


class Kind(NamedTuple):
    """One kind of the API and how kubectl names and lists it."""

    struct: type[ModelPool] | type[RoutePolicy]
    status: type[Struct]
    plural: str
    short_name: str
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        return self.struct.__name__


def _condition(name: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{field}'


_AGE = Column("Age", "date", ".metadata.creationTimestamp")
_READY = (
    Column("Ready", "string", _condition("Ready", "status")),
    Column("Reason", "string", _condition("Ready", "reason")),
)

KINDS: dict[str, Kind] = {
    "ModelPool": Kind(
        ModelPool,
        ModelPoolStatus,
        "modelpools",
        "mpool",
        (
            Column("Source", "string", ".status.sourceType"),
            Column("Engine", "string", ".status.engine"),
            Column("Endpoints", "string", ".status.endpointSummary", "ready/total"),
            Column("Metrics", "string", _condition("MetricsHealthy", "status")),
            *_READY,
            Column("Models", "string", ".status.models", priority=1),
            Column("Routes", "integer", ".status.attachedRoutes", priority=1),
            Column("Budget", "string", ".status.budgetSummary", priority=1),
            _AGE,
        ),
    ),
    "RoutePolicy": Kind(
        RoutePolicy,
        RoutePolicyStatus,
        "routepolicies",
        "rpol",
        (
            # A jsonPath with [*] would show the first entry only, so the columns point at the list itself.
            Column("Models", "string", ".spec.models"),
            Column("Tiers", "string", ".status.tierSummary", "each tier with its state, in order"),
            Column("Spilling", "string", _condition("Spilling", "status")),
            *_READY,
            Column("Budget", "string", ".status.budgetSummary", priority=1),
            Column("Gateways", "string", ".spec.gateways", priority=1),
            _AGE,
        ),
    ),
}


def crd(kind: str) -> Schema:
    """The CustomResourceDefinition of a kind of `KINDS`, as kubectl applies it."""
    known = KINDS[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{known.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": known.plural,
                "singular": kind.lower(),
                "shortNames": [known.short_name],
                "categories": ["spillway", "all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in known.columns],
                    "schema": {"openAPIV3Schema": structural(kind)},
                }
            ],
        },
    }


@cache
def structural(kind: str) -> Schema:
    """The schema of a whole object of a kind of `KINDS`. It is shared: do not change it."""
    known = KINDS[kind]
    spec = get_type_hints(known.struct, include_extras=True)["spec"]
    return {
        "description": _about(known.struct),
        "type": "object",
        "required": ["spec"],
        **_rules(_rules_of(known.struct)),
        "properties": {
            "apiVersion": {"description": f"{GROUP}/{VERSION}.", "type": "string"},
            "kind": {"description": f"{kind}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(spec),
            "status": schema_of(known.status),
        },
    }


def schema_of(annotation: Any) -> Schema:
    """The structural schema of one type of the API, with its bounds, list type, rules and nested defaults."""
    base, metas = _unwrap(annotation)
    if isinstance(base, type) and issubclass(base, Struct):
        body = _object(base)
        bounds: dict[str, str] = {}
    elif get_origin(base) is tuple:
        body = {"type": "array", "items": schema_of(get_args(base)[0])}
        bounds = _LIST_BOUNDS
    elif get_origin(base) is dict:
        body = {"type": "object", "additionalProperties": schema_of(get_args(base)[1])}
        bounds = _MAP_BOUNDS
    elif get_origin(base) is Literal:
        body = {"type": "string", "enum": list(get_args(base))}
        bounds = {}
    elif base is Any:
        body = {"x-kubernetes-preserve-unknown-fields": True}
        bounds = {}
    elif base == int | str:
        body = {}  # x-kubernetes-int-or-string says what it is, and allows no type beside it
        bounds = {}
    else:
        body = {"type": _PLAIN[base]}
        bounds = _TEXT_BOUNDS if base is str else _NUMBER_BOUNDS
    rules: tuple[Cel, ...] = ()
    for meta in metas:
        if meta.description is not None:
            body["description"] = meta.description
        body |= {word: getattr(meta, name) for name, word in bounds.items() if getattr(meta, name) is not None}
        body |= meta.extra_json_schema or {}
        rules += (meta.extra or {}).get("rules", ())
    return _ordered(body | _rules(rules))


def _ordered(schema: Schema) -> Schema:
    return {word: schema[word] for word in sorted(schema, key=_ORDER.index)}


def _object(struct: type[Struct]) -> Schema:
    hints = get_type_hints(struct, include_extras=True)
    fields = msgspec.structs.fields(struct)
    properties = {}
    for field in fields:
        default = _default(field)
        schema = schema_of(hints[field.name])
        properties[field.encode_name] = schema if default is None else _ordered(schema | {"default": default})
    required = [field.encode_name for field in fields if field.required]
    return {
        "description": _about(struct),
        "type": "object",
        **({"required": required} if required else {}),
        **_rules(_rules_of(struct)),
        "properties": properties,
    }


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    elif field.default is not msgspec.NODEFAULT:
        value = field.default
    else:
        return None
    if isinstance(value, Struct):
        # The server fills nested defaults by itself, but refuses a CRD whose default cannot pass the rules
        # before they are filled: so the values that the rules compare, and only those, are written out.
        read = {name for rule in _rules_of(type(value)) for name in re.findall(r"self\.(\w+)", rule.rule)}
        plain = without_nulls(msgspec.to_builtins(value))
        return {name: plain[name] for name in plain if name in read}
    return without_nulls(msgspec.to_builtins(value))


def without_nulls(value: Any) -> Any:
    """`value` (plain JSON data) without the entries that are null: in YAML an absent field is not written."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(inner) for inner in value]
    return value


def _unwrap(annotation: Any) -> tuple[Any, list[Meta]]:
    if get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        base, *metas = get_args(annotation)
        inner, before = _unwrap(base)
        return inner, before + metas
    return annotation, []


def _rules_of(struct: type[Struct]) -> tuple[Cel, ...]:
    rules: tuple[Cel, ...] = getattr(struct, "RULES", ())
    return rules


def _rules(rules: tuple[Cel, ...]) -> Schema:
    if not rules:
        return {}
    return {
        "x-kubernetes-validations": [
            {"rule": rule.rule, "message": rule.message}
            | ({} if rule.field_path is None else {"fieldPath": rule.field_path})
            for rule in rules
        ]
    }


def _about(struct: type[Struct]) -> str:
    return " ".join(inspect.cleandoc(struct.__doc__ or "").split("\n\n")[0].split())


def _column(column: Column) -> Schema:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.json_path,
        **({} if column.description is None else {"description": column.description}),
        **({"priority": column.priority} if column.priority else {}),
    }
