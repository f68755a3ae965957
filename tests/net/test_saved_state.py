"""The last good state on disk: whole or not there, never in the way of serving."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from pathlib import Path

import pytest
from tests.net.operators import pool, saved, state

from spillway_api import stream
from spillway_balancer.net import saved as saving
from spillway_balancer.net.saved import FILE, Saver, load

ONE, TWO = state(pool("one")), state(pool("two"))


def kept(folder: Path) -> str:
    """The pool that the saved state holds."""
    return stream.unpack((folder / FILE).read_bytes()).snapshot.pools[0].name.removeprefix("default/")


def test_what_is_written_is_read_again_and_leaves_no_other_file(tmp_path: Path) -> None:
    for number, each in enumerate((ONE, TWO)):
        saving.write(tmp_path / "new", saved(each, float(number)))
    assert load(tmp_path / "new", None, "default") == saved(TWO, 1.0)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]


def test_nothing_there_is_nothing_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(None, None, "default") is None
    assert load(tmp_path / "none", tmp_path / "none.gz", "default") is None
    assert not caplog.records


@pytest.mark.parametrize("broken", ["cut", "not gzip", "not ours", "empty", "a folder", "of another gateway"])
def test_a_broken_file_is_logged_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    boot = tmp_path / "boot.gz"
    boot.write_bytes(stream.pack(saved(ONE, 1.0)))
    later = stream.pack(saved(TWO, 2.0))
    place = tmp_path / FILE
    contents = {
        "cut": later[:-9],
        "not gzip": b"{}",
        "not ours": saving.stream.gzip.compress(b'{"digest": 1}'),
        "empty": b"",
        "of another gateway": stream.pack(saved(state(gateway="them"), 3.0)),
    }
    if broken == "a folder":
        place.mkdir()
    else:
        place.write_bytes(contents[broken])
    assert load(tmp_path, boot, "default") == saved(ONE, 1.0)
    assert [str(place) in record.getMessage() for record in caplog.records] == [True]


async def test_of_many_the_last_one_is_written_and_most_are_not(tmp_path: Path, monkeypatch) -> None:
    written: list[float] = []
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(folder: Path, what: stream.Saved) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        written.append(what.at)

    monkeypatch.setattr(saving, "write", slow)
    saver = Saver(tmp_path, pause=0.0)
    saver.put(saved(ONE, 0.0))
    await begun.wait()
    for at in range(1, 100):
        saver.put(saved(ONE, float(at)))  # returns at once, however slow the disk is
    go_on.set()
    await saver.close()
    assert written == [0.0, 99.0]


async def test_the_last_one_is_written_before_the_pause_is_over_when_the_process_ends(tmp_path: Path) -> None:
    saver = Saver(tmp_path, pause=3600.0)
    saver.put(saved(ONE, 1.0))
    async with asyncio.timeout(15):
        while not (tmp_path / FILE).exists():  # noqa: ASYNC110 - a file wakes nobody
            await asyncio.sleep(0.005)
    saver.put(saved(TWO, 2.0))
    await saver.close()
    assert kept(tmp_path) == "two"


async def test_a_disk_that_is_full_is_logged_once_and_written_when_there_is_room(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    caplog.set_level(logging.INFO, "spillway.config")
    real, tried, full = os.replace, asyncio.Event(), True
    loop = asyncio.get_running_loop()
    tries = 0

    def replace(*args: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            loop.call_soon_threadsafe(tried.set)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args)

    monkeypatch.setattr(os, "replace", replace)
    saver = Saver(tmp_path, pause=0.001)
    saver.put(saved(ONE, 1.0))
    async with asyncio.timeout(15):
        await tried.wait()
        full = False
        while not (tmp_path / FILE).exists():  # noqa: ASYNC110 - a file wakes nobody
            await asyncio.sleep(0.005)
    await saver.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "No space left" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [FILE]  # noqa: ASYNC240


async def test_a_folder_that_cannot_be_written_breaks_nothing(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    saver = Saver(tmp_path / "file" / "below", pause=0.0)
    saver.put(saved(ONE, 1.0))
    await saver.close()
    assert "cannot be kept" in caplog.text
