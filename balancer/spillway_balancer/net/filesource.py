"""Snapshots from YAML files: read, judged, compiled; and again when a file changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.files import SUFFIXES, Loaded, load
from spillway_api.prices import BadPrices, read_overlay
from spillway_api.snapshot import Snapshot

from .credentials import Credentials, Values
from .serving import summary
from .watching import POLL_SECONDS, Look, files_under, look

log = logging.getLogger("spillway.config")


@dataclass(frozen=True, slots=True)
class Judged:
    """What the files say: a snapshot when nothing is wrong, and all that is to be said of them."""

    snapshot: Snapshot | None
    errors: tuple[str, ...]
    notes: tuple[str, ...]
    values: Values
    """Of the Secrets that stand in the files."""


def judge(
    paths: Sequence[Path],
    gateway: str,
    credentials: Credentials,
    cluster: Cluster | None = None,
    prices: Path | None = None,
) -> Judged:
    """Read, validate and compile. Never raises for what stands in a file. `prices`: a file with those of providers'
    models, over those that are known."""
    cluster = cluster or Cluster()
    try:
        cluster = cluster if prices is None else cluster._replace(prices=read_overlay(prices))
    except BadPrices as error:
        return Judged(None, (str(error),), (), {})
    loaded = load(paths)
    notes = [f"{skipped.file}:{skipped.line}: skipped: {skipped.message}" for skipped in loaded.skipped]
    if loaded.problems:  # what hangs together with a refused object would only be reported as missing
        return Judged(None, tuple(map(str, loaded.problems)), tuple(notes), {})
    values = {(each.name, key): value for each in loaded.secrets for key, value in each.values.items()}
    for each in loaded.secrets:
        if each.values:
            place = loaded.place_of(f"Secret/{each.name}")
            notes.append(f"{place}: Secret {each.name} holds a value in clear text; --secrets keeps it out of the file")

    def has(secret: str, key: str) -> bool:
        return (secret, key) in values or credentials.has(secret, key)

    compiled = compile_snapshot(loaded.objects, gateway, has, _cluster(loaded, cluster))
    errors: list[str] = []
    for problem in compiled.problems:
        said = loaded.problem_at(problem.object, problem.path, f"{problem.reason}: {problem.message}")
        (errors if problem.fatal else notes).append(str(said))
    if not errors and not compiled.snapshot.routes:
        notes.append(f"no RoutePolicy for gateway {gateway!r}: every request will be answered with 404")
    return Judged(None if errors else compiled.snapshot, tuple(errors), tuple(notes), values)


def _cluster(loaded: Loaded, base: Cluster) -> Cluster:
    """The Secrets and ConfigMaps of the files, in the place of a cluster's."""
    exists = {each.name for each in loaded.secrets}.__contains__
    return base._replace(selected=loaded.selected, exists=exists, config=loaded.config)


class FileSource:
    """Watches files and hands on every good state; a bad one is logged, and the last good one stays in force."""

    def __init__(
        self,
        paths: Sequence[Path],
        gateway: str,
        credentials: Credentials,
        secrets: Path | None,
        take: Callable[[Snapshot], bool],
        reloaded: Callable[[str], None],
        rekeyed: Callable[[], None],
        prices: Path | None = None,
    ) -> None:
        self._paths = paths
        self._gateway = gateway
        self._credentials = credentials
        self._secrets = secrets
        self._take = take
        self._reloaded = reloaded
        self._rekeyed = rekeyed
        self._prices = prices
        self._seen = self._look()

    async def watch(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            seen = self._look()
            if seen == self._seen:
                continue
            # An editor may still be writing: what is judged must have stood still for one round.
            await asyncio.sleep(POLL_SECONDS / 5)
            if self._look() != seen:
                continue
            self._seen = seen
            await self._reload()

    async def _reload(self) -> None:
        self._credentials.refresh()
        judged = await asyncio.to_thread(judge, self._paths, self._gateway, self._credentials, prices=self._prices)
        for note in judged.notes:
            log.warning("%s", note)
        if judged.snapshot is None:
            for error in judged.errors:
                log.error("%s", error)
            log.error("the change is refused; the last good state goes on serving")
            self._reloaded("refused")
            return
        self._credentials.give(judged.values)
        if self._take(judged.snapshot):
            log.info("the change is in force: %s", summary(judged.snapshot))
            self._reloaded("taken")
        else:
            self._reloaded("unchanged")
        self._rekeyed()

    def _look(self) -> Look:
        files = [
            file
            for path in self._paths
            for file in (path.iterdir() if path.is_dir() else (path,))
            if not path.is_dir() or file.suffix in SUFFIXES
        ]
        if self._secrets is not None:
            files += files_under(self._secrets)
        if self._prices is not None:
            files.append(self._prices)
        return look(files)
