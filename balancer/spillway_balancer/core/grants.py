"""What an account shows a provider that is more than the words of a Secret: keys to sign with, or a token that ends.

Values only; who fetches them is `net/identities.py`. None of them shows itself in a log.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Keys that AWS requests are signed with (Signature Version 4)."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """Sent along with the signature; None for keys of a user, which do not end."""
    expires: float | None = None
    """Seconds of Unix time; None where they do not end."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that is sent as `Authorization: Bearer`."""

    token: str = field(repr=False)
    expires: float
    """Seconds of Unix time."""


Grant = AwsKeys | Bearer
