"""Signatures of thoughts: every fake Claude, here or behind Bedrock, knows its own again and nobody else's."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

_OWN = b"signs the thoughts of fakes; a secret to nobody"


def sign(thought: str) -> str:
    return b64encode(hmac.digest(_OWN, thought.encode("utf-8", "replace"), hashlib.sha256)).decode()


def holds(thought: str, signature: object) -> bool:
    """Whether this is its signature. Of a thought that was not shown nothing but the signature is left, and any will do
    that could be one."""
    if not isinstance(signature, str) or not signature.isascii():
        return False
    return len(signature) == 44 if not thought else hmac.compare_digest(signature, sign(thought))
