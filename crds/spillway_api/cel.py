"""The one place that knows the CEL library: compile an expression with declared variables, evaluate it.

It speaks the language of https://github.com/google/cel-spec with the functions that Kubernetes adds and the
API's rules use: `isURL`, `url`, `getScheme`, `getHostname`, `getQuery`. The library is native code of some
megabytes, so it is loaded with the first expression and not before: a balancer without expressions, fed by
the operator, never pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from spillway_api import weburl

VariableType = Literal[
    "bool", "int", "double", "string", "bytes", "duration", "timestamp", "list", "map", "strings", "dyn"
]
"""`map` is one of strings to anything, `strings` one of strings to strings."""


class CompileError(Exception):
    """The expression is not valid CEL, or uses what is not declared. The text has line and column."""


class EvaluationError(Exception):
    """The expression has no value for these variables, such as a missing key or a wrong type."""


class Expression:
    """A compiled expression; made by `compile_expression`, free of state, cheap to evaluate again."""

    def __init__(self, source: str, program: Any) -> None:
        self.source = source
        self._program = program

    @property
    def returns(self) -> str:
        """The static type of its value, in CEL's words: `bool`, `dyn`, …"""
        return str(self._program.return_type()).lower()

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value for these variables, as plain Python data. Raises EvaluationError."""
        try:
            result = self._program.eval(data=dict(variables))
        except (RuntimeError, TypeError, ValueError) as error:
            raise EvaluationError(str(error)) from error
        if result.type() == _library().Type.ERROR:
            raise EvaluationError(str(result.value()))
        return result.plain_value()


def compile_expression(source: str, variables: Mapping[str, VariableType]) -> Expression:
    """Compiles `source`, which may use these variables only (name, or dotted name). Raises CompileError."""
    try:
        return Expression(source, _environment(tuple(sorted(variables.items()))).compile(source))
    except RuntimeError as error:
        raise CompileError(str(error)) from error


def _library() -> Any:
    from cel_expr_python import cel

    return cel


@lru_cache(maxsize=64)
def _environment(variables: tuple[tuple[str, VariableType], ...]) -> Any:
    cel = _library()
    types = {
        "bool": cel.Type.BOOL,
        "int": cel.Type.INT,
        "double": cel.Type.DOUBLE,
        "string": cel.Type.STRING,
        "bytes": cel.Type.BYTES,
        "duration": cel.Type.DURATION,
        "timestamp": cel.Type.TIMESTAMP,
        "list": cel.Type.List(cel.Type.DYN),
        "map": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
        "strings": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
        "dyn": cel.Type.DYN,
    }
    # A parsed URL travels through CEL as a map of its parts: the library has no opaque values from Python.
    parts = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
    query = cel.Type.Map(cel.Type.STRING, cel.Type.List(cel.Type.STRING))

    def declare(name: str, takes: Any, gives: Any, work: Any, member: bool = False) -> Any:
        overload = cel.Overload(f"spillway_{name}", return_type=gives, parameters=[takes], is_member=member, impl=work)
        return cel.FunctionDecl(name, [overload])

    return cel.NewEnv(
        variables={name: types[kind] for name, kind in variables},
        functions=[
            declare("isURL", cel.Type.STRING, cel.Type.BOOL, lambda text: weburl.parse(text) is not None),
            declare("url", cel.Type.STRING, parts, _url),
            declare("getScheme", parts, cel.Type.STRING, lambda url: url["scheme"], member=True),
            declare("getHostname", parts, cel.Type.STRING, lambda url: url["host"], member=True),
            declare("getQuery", parts, query, lambda url: weburl.parameters(url["query"]), member=True),
        ],
    )


def _url(text: str) -> dict[str, str]:
    parsed = weburl.parse(text)
    if parsed is None:
        raise ValueError(f"URL parse error during conversion from string: {text!r}")
    return parsed._asdict()
