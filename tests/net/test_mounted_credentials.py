"""Credentials as kubelet mounts a Secret: links into a folder whose name changes, swapped in one step."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

from spillway_api.credentials import file_of
from spillway_api.snapshot import Credential, Endpoint
from spillway_balancer.core.grants import AwsKeys
from spillway_balancer.net.credentials import Credentials

KEY = Credential("team/cloud", "api.key", "Authorization", "Bearer ")
OTHER = Credential("team/other", "k", "x-api-key", "")


class Mount:
    """What kubelet's AtomicWriter makes: `..data` -> `..2024_…`, and a link through it for every key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()

    def write(self, **values: str) -> None:
        self._number += 1
        data = self.folder / "..data"
        old = data.resolve() if data.exists() else None
        new = self.folder / f"..2026_11_21_{self._number}"
        new.mkdir()
        for name, value in values.items():
            (new / name).write_text(value)
        temporary = self.folder / "..data_tmp"
        temporary.symlink_to(new.name)
        os.replace(temporary, data)
        for name in values:
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data", name))
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and link.name not in values:
                link.unlink()
        if old is not None:
            shutil.rmtree(old)


NAME, OTHER_NAME = file_of("team/cloud", "api.key"), file_of("team/other", "k")


async def until(condition: Any) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - credentials are read when they are needed, and tell nobody
            await asyncio.sleep(0.01)


async def test_a_rotated_key_is_in_force_after_kubelets_swap(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "credentials")
    mount.write(**{NAME: "first\n"})
    credentials = Credentials(mount.folder, {})
    changed: list[None] = []
    task = asyncio.get_running_loop().create_task(credentials.watch(lambda: changed.append(None)))
    assert credentials.header(KEY) == b"Authorization: Bearer first\r\n"
    assert credentials.header(OTHER) == b""
    for value in ("second", "third"):
        mount.write(**{NAME: value, OTHER_NAME: "other"})
        await until(lambda value=value: credentials.header(KEY) == f"Authorization: Bearer {value}\r\n".encode())
    assert changed
    assert credentials.header(OTHER) == b"x-api-key: other\r\n"
    mount.write(**{OTHER_NAME: "other"})
    await until(lambda: credentials.header(KEY) == b"")
    shutil.rmtree(mount.folder)
    await until(lambda: credentials.header(OTHER) == b"")
    mount = Mount(tmp_path / "credentials")
    mount.write(**{NAME: "back"})
    await until(lambda: credentials.header(KEY) == b"Authorization: Bearer back\r\n")
    assert not task.done()
    task.cancel()


async def test_a_folder_that_is_mounted_later_is_seen(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "credentials", {})
    task = asyncio.get_running_loop().create_task(credentials.watch(lambda: None))
    assert credentials.header(KEY) == b""
    await asyncio.sleep(0)
    Mount(tmp_path / "credentials").write(**{NAME: "first"})
    await until(lambda: credentials.header(KEY))
    task.cancel()


def test_a_gathered_key_goes_before_one_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "team" / "cloud").mkdir(parents=True)
    (tmp_path / "team" / "cloud" / "api.key").write_text("by hand")
    credentials = Credentials(tmp_path, {})
    assert credentials.header(KEY) == b"Authorization: Bearer by hand\r\n"
    (tmp_path / NAME).write_text("gathered")
    credentials.refresh()
    assert credentials.header(KEY) == b"Authorization: Bearer gathered\r\n"


def test_a_key_with_a_long_name_is_found_by_its_hash(tmp_path: Path) -> None:
    key = "k" * 253
    (tmp_path / file_of("team/cloud", key)).write_text("value")
    assert Credentials(tmp_path, {}).has("team/cloud", key)


def test_keys_for_aws_are_read_in_several_lines_and_never_sent_as_a_header(tmp_path: Path) -> None:
    spec = Endpoint("main", "https://bedrock-runtime.us-east-1.amazonaws.com", credential=KEY)
    credentials = Credentials(tmp_path, {})
    assert not credentials.keyed(spec)
    (tmp_path / NAME).write_text("[default]\naws_access_key_id = AKIA1\naws_secret_access_key = hidden\n")
    credentials.refresh()
    assert credentials.keyed(spec)
    assert credentials.aws_keys(spec) == AwsKeys("AKIA1", "hidden")
    assert credentials.header(KEY) == b""
    (tmp_path / NAME).write_text("a-bearer-key")
    credentials.refresh()
    assert credentials.keyed(spec)
    assert credentials.aws_keys(spec) is None
    (tmp_path / NAME).write_text("two\nlines")
    credentials.refresh()
    assert not credentials.keyed(spec)
