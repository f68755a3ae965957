"""The expressions of a RoutePolicy: which variables there are, and what is wrong with one before it ever runs.

The operator, `spillway lint` and the balancer compile them here, so all three know the same language. It is CEL
(https://github.com/google/cel-spec), with static types. Every variable is declared by its dotted name, so that a
typo is an error at compile time. Numbers are of CEL's type dyn: `tokens_used > 75` then compares fractions with
integers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from spillway_api.cel import CompileError, EvaluationError, Expression, VariableType, compile_expression
from spillway_api.problem import did_you_mean

__all__ = ["VARIABLES", "Condition", "EvaluationError", "InvalidExpression", "MissingKey", "condition"]

VARIABLES: Final[Mapping[str, VariableType]] = MappingProxyType(
    {
        "headers": "strings",
        "model": "string",
        "path": "string",
        "request.stream": "bool",
        "request.tools": "bool",
        "request.images": "bool",
        "request.json": "bool",
        "request.max_tokens": "dyn",
        "request.user": "string",
        "tokens.input": "dyn",
        "tokens.total": "dyn",
        "tokens_used": "dyn",
        "requests_used": "dyn",
        "budget_used": "dyn",
        "consumer.name": "string",
        "consumer.namespace": "string",
        "consumer.labels": "strings",
        "pools": "map",
        "now": "timestamp",
        "bucket": "dyn",
    }
)
"""What an expression may read. docs/rules.md explains each."""

_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_BEFORE = ("", "(", "[", "{", "!", "&", "|", ",", "?", ":")
_WORD = {name: re.compile(rf"\b{name}\b") for name in ("headers", "pools")}
_ENTRY = {
    name: re.compile(
        rf"""\b{name}\s*\[\s*("[^"\\]*"|'[^'\\]*')\s*\]|("[^"\\]*"|'[^'\\]*')\s*in\s+{name}\b(?!\s*[.\[])"""
    )
    for name in _WORD
}


class InvalidExpression(Exception):
    """The expression does not compile. `line` and `column` are places in it and count from 1; both are 0 where the
    compiler names none."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}" if line else message)
        self.line = line
        self.column = column
        self.message = message


class MissingKey(EvaluationError):
    """It reads an entry that is not there, such as a header that this request does not have."""


class Condition(NamedTuple):
    """A compiled expression whose value is true or false."""

    expression: Expression
    reads: frozenset[str]
    """The variables that it reads; no others need be known."""
    headers: frozenset[str] | None
    """The headers that it reads; None where that is known only when it runs."""
    pools: frozenset[str] | None
    """The pools whose state it reads, in the same way."""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Its value for these values of the variables that it reads. Raises EvaluationError, whose text may quote the
        request and belongs in no log."""
        try:
            return self.expression.evaluate(values) is True
        except EvaluationError as error:
            if str(error).startswith("NOT_FOUND"):
                raise MissingKey(str(error)) from None
            raise


@lru_cache(maxsize=8192)
def condition(source: str) -> Condition:
    """Compile `source`; the same text is compiled once. Raises InvalidExpression."""
    try:
        expression = compile_expression(source, VARIABLES)
    except CompileError as error:
        raise _invalid(str(error)) from None
    if expression.returns != "bool":
        hint = "; compare it with something" if expression.returns == "dyn" else ""
        raise InvalidExpression(0, 0, f"must be true or false, and is of type {expression.returns}{hint}")
    for named in _ENTRY["headers"].finditer(source):
        name = (named[1] or named[2])[1:-1]
        if name != name.lower():
            line = source.count("\n", 0, named.start()) + 1
            column = named.start() - source.rfind("\n", 0, named.start())
            raise InvalidExpression(line, column, f'names of headers are in lower case: "{name.lower()}"')
    reads = frozenset(name for name in VARIABLES if _reads(source, name))
    return Condition(expression, reads, _entries(source, "headers"), _entries(source, "pools"))


def _reads(source: str, name: str) -> bool:
    """Whether the expression needs this variable: without its declaration it does not compile.

    No declared name is the beginning of another, so nothing can stand in for the one that is left out; and a variable
    of a comprehension that has the same name is told from it.
    """
    if name.partition(".")[0] not in source:
        return False
    try:
        compile_expression(source, {each: kind for each, kind in VARIABLES.items() if each != name})
    except CompileError:
        return True
    return False


def _entries(source: str, variable: str) -> frozenset[str] | None:
    """The names in `variable["name"]` and `"name" in variable`, if there are no other places where its word occurs."""
    found = list(_ENTRY[variable].finditer(source))
    if len(found) != len(_WORD[variable].findall(source)):
        return None
    # In `"a" + "b" in headers` and in a text in triple quotes, what stands before `in` is not the whole name.
    if any(each[2] and source[: each.start()].rstrip()[-1:] not in _BEFORE for each in found):
        return None
    return frozenset((each[1] or each[2])[1:-1] for each in found)


def _invalid(text: str) -> InvalidExpression:
    """The first thing that the compiler complains of, with a hint."""
    found = _PLACE.search(text)
    if found is None:
        return InvalidExpression(0, 0, "cannot be compiled; it may be nested too deep")
    message = found[3].removesuffix(" (in container '')")
    undeclared = _UNDECLARED.search(message)
    if undeclared is not None:
        message = f'there is no "{undeclared[1]}"'
        if hint := did_you_mean(undeclared[1], VARIABLES):
            message += f" ({hint})"
    return InvalidExpression(int(found[1]), int(found[2]), message)
