"""A token that kubelet keeps in a file, and puts a new one in its place before it ends."""

from __future__ import annotations

import logging
import os
from math import inf
from pathlib import Path

from spillway_api.tokens import LONGEST, end_of

log = logging.getLogger("spillway.config")


class TokenFile:
    """The token that stands there now. It is read again when the file is another one: kubelet moves a link, so that
    what is read is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token: str | None = None
        self._failed = False
        self._ends = inf

    def in_force(self, now: float) -> str | None:
        """None where it has ended too, as after an hour without an API server that gives the kubelet another: then it
        says less than none. `now`: seconds of Unix time."""
        token = self.token()
        return token if now < self._ends else None

    def token(self) -> str | None:
        """None where there never was one. What was read last stays as long as nothing newer can be read."""
        try:
            at = os.stat(self._path)
            seen = (at.st_ino, at.st_mtime_ns, at.st_size)
            if seen != self._seen:
                token = self._path.read_text(encoding="ascii").strip()
                if not token or len(token) > LONGEST or not token.isprintable() or " " in token:
                    raise ValueError("no token")
                self._token, self._seen, self._ends = token, seen, end_of(token)
            self._failed = False
        except (OSError, ValueError) as error:  # never the error's text: it may quote what was read
            if not self._failed:
                log.warning("the token file %s cannot be read: %s", self._path, type(error).__name__)
            self._failed = True
        return self._token
