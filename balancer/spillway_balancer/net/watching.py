"""Seeing that files have changed, on every system and mount, also where kubelet swaps a link to a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

POLL_SECONDS = 0.5
"""How often files are looked at. Polling works where notifications do not."""

Look = frozenset[tuple[str, int, int, int]]


def look(files: Iterable[Path]) -> Look:
    """Identity, size and time of every file that there is; equal looks are equal contents, as far as can be told."""
    seen = set()
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            continue
        seen.add((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return frozenset(seen)


def files_under(folder: Path) -> Iterator[Path]:
    """All files in a folder and those below. Folders that vanish meanwhile, as kubelet's do, are passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith("..")]  # kubelet's; links lead into them
        for name in files:
            yield Path(place, name)
