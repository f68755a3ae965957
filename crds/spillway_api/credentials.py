"""Where the value of a Secret's key lies in a folder: one name per key, the same for who writes and who reads.

The operator gathers the Secrets that pools refer to into one Secret per gateway, whose keys become files. A key of
a Secret may hold letters, digits, `-`, `_` and `.` and has at most 253 characters; names of namespaces and Secrets
hold no `_`, so that it parts them from what follows.
"""

from __future__ import annotations

import hashlib

_LONGEST = 253


def file_of(secret: str, key: str) -> str:
    """The file of a key of the Secret `namespace/name`."""
    namespace, name = secret.split("/", 1)
    plain = f"{namespace}_{name}_{key}"
    if len(plain) <= _LONGEST:
        return plain
    return f"{namespace}_{hashlib.sha256(plain.encode()).hexdigest()}"
