"""Content-Type and Content-Disposition values: strict, because two readers must not see two things in one."""

from __future__ import annotations

import re

from ..core.errors import ProtocolError

_HEAD = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z/-]*)[ \t]*")
_PARAMETER = re.compile(
    r"""[ \t]*;[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))[ \t]*)?""",
    re.DOTALL,
)


def parse_value(value: str) -> tuple[str, dict[str, str]]:
    """A media type or disposition in lower case, and its parameters with lower-case names (RFC 9110, 5.6.6).

    Raises ProtocolError for what does not parse and for a parameter that comes twice.
    """
    head = _HEAD.match(value)
    assert head is not None  # the pattern matches the empty string
    parameters: dict[str, str] = {}
    at = head.end()
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            raise ProtocolError("a header's parameters do not parse")
        at = found.end()
        if found[1] is None:  # empty, as a stray semicolon makes it
            continue
        name = found[1].lower()
        if name in parameters:
            raise ProtocolError(f"a header gives the parameter {name[:32]!r} twice")
        quoted = found[2]
        parameters[name] = found[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
    return head[1].lower(), parameters
