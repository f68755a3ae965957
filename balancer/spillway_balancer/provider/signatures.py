"""Signatures of thoughts: every fake Claude, here or behind Bedrock, knows its own again and nobody else's."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

_OWN = b"signs the thoughts of fakes; a secret to nobody"


LENGTH = 344
"""Characters of a signature: the real ones have hundreds."""


def sign(thought: str) -> str:
    said = thought.encode("utf-8", "replace")
    return b64encode(b"".join(hmac.digest(_OWN, bytes([part]) + said, hashlib.sha512) for part in range(4))).decode()


def holds(thought: str, signature: object) -> bool:
    """Whether this is its signature. Of a thought that was not shown nothing but the signature is left, and any will do
    that could be one."""
    if not isinstance(signature, str) or not signature.isascii():
        return False
    return len(signature) == LENGTH if not thought else hmac.compare_digest(signature, sign(thought))
