"""Makes an OCI image archive of files of this machine, with no registry, no daemon and no download.

    mkimage.py OUT.tar NAME:TAG --static /path/to/program     one static program
    mkimage.py OUT.tar NAME:TAG --python [options]            this Python, its packages, the libraries that they load

`ctr -n k8s.io images import OUT.tar` brings the archive to containerd; without `ctr`, any tool that reads OCI layouts
does. With --python the image holds the interpreter that runs this script, its standard library without the tests, and
its site-packages: run it with a virtual environment's python and the image has what that environment has. Format:
https://github.com/opencontainers/image-spec.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

SKIPPED = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
# pip and its like have no place in an image that only runs.
INSTALLERS = {"pip", "setuptools", "wheel"}
COMPILED = f".{sys.implementation.cache_tag}.pyc"
USER = 65532
PACKAGES = f"/usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


class Layer:
    """A tar of regular files, links and folders that belong to root."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._seen: set[str] = set()

    def folder(self, dest: str, mode: int = 0o755) -> None:
        dest = dest.strip("/")
        if not dest or dest in self._seen:
            return
        self.folder(os.path.dirname(dest))
        self._seen.add(dest)
        info = tarfile.TarInfo(dest)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def file(self, src: Path, dest: str | None = None, mode: int | None = None) -> None:
        """Copies one file; a link is followed, so that the image needs no other path."""
        stat = src.stat()
        # Python takes compiled code for current by its source's time.
        readable = (stat.st_mode & 0o777) | 0o444
        self._add(dest or str(src), src.read_bytes(), readable if mode is None else mode, int(stat.st_mtime))

    def text(self, dest: str, content: str, mode: int = 0o644) -> None:
        self._add(dest, content.encode(), mode, 0)

    def link(self, dest: str, target: str) -> None:
        info = tarfile.TarInfo(dest.strip("/"))
        self.folder(os.path.dirname(dest))
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def tree(self, src: Path, dest: str) -> None:
        """A folder, or a file; of compiled Python only what this interpreter reads, so that programs start at once."""
        if src.is_file():
            self.file(src, dest)
            return
        for folder, folders, files in os.walk(src, followlinks=True):
            folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("config-"))
            for name in sorted(files):
                path = Path(folder) / name
                other = path.suffix == ".a" or (path.suffix == ".pyc" and not name.endswith(COMPILED))
                if not other and path.is_file():
                    self.file(path, f"{dest}/{path.relative_to(src)}")

    def close(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()

    def _add(self, dest: str, data: bytes, mode: int, time: int) -> None:
        dest = dest.strip("/")
        if dest in self._seen:
            return
        self.folder(os.path.dirname(dest))
        self._seen.add(dest)
        info = tarfile.TarInfo(dest)
        info.size, info.mode, info.mtime = len(data), mode, time
        self._tar.addfile(info, io.BytesIO(data))


def shared_libraries(paths: Iterable[Path]) -> list[Path]:
    """What the dynamic linker loads for these programs and extension modules."""
    done = subprocess.run(["ldd", *map(str, paths)], capture_output=True, text=True)
    found = {line.split("=>")[-1].split()[0] for line in done.stdout.splitlines() if "/" in line and line[0].isspace()}
    return sorted(path for path in map(Path, found) if path.is_absolute() and path.is_file())


def entries_of(distributions: Iterable[str]) -> set[str]:
    """What these distributions have put into site-packages, top names only; those not installed have put nothing."""
    found = set()
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found |= {file.parts[0] for file in metadata.files(name) or ()}
    return found - {"__pycache__"}


def add_python(layer: Layer, without: set[str]) -> None:
    """The interpreter under /usr/local, and the few files of a system that it needs."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    program = base / "bin" / version
    layer.file(program, f"/usr/local/bin/{version}", 0o755)
    layer.link("/usr/local/bin/python3", version)
    layer.link("/usr/local/bin/python", version)
    for entry in sorted(stdlib.iterdir()):
        if entry.name not in SKIPPED | {"site-packages"} and not entry.name.startswith("config-"):
            layer.tree(entry, f"/usr/local/lib/{version}/{entry.name}")
    left_out = entries_of(without | INSTALLERS) | SKIPPED
    for entry in sorted(packages.iterdir()):
        if entry.name not in left_out and entry.suffix != ".pth":
            layer.tree(entry, f"{PACKAGES}/{entry.name}")
    libraries = shared_libraries([program, *stdlib.glob("lib-dynload/*.so"), *packages.rglob("*.so")])
    for library in libraries:
        layer.file(library, mode=0o755)
    # Loaded by name at run time, so that ldd does not show them; they lie beside the C library.
    for folder in {library.parent for library in libraries if library.name.startswith("libc.so")}:
        for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1"):
            if (folder / name).exists():
                layer.file(folder / name, mode=0o755)
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.exists():
        layer.file(authorities)
    nobody = f"nonroot:x:{USER}:"
    layer.text("/etc/passwd", f"root:x:0:0:root:/root:/sbin/nologin\n{nobody}{USER}::/home/nonroot:/sbin/nologin\n")
    layer.text("/etc/group", f"root:x:0:\n{nobody}\n")
    layer.text("/etc/nsswitch.conf", "hosts: files dns\n")
    layer.folder("/tmp", 0o1777)  # noqa: S108
    layer.folder("/app")


def add_script(layer: Layer, entry: str) -> None:
    """A command as pip makes it of an entry point, "name=module:function"."""
    name, _, target = entry.partition("=")
    module, _, function = target.partition(":")
    lines = ["#!/usr/local/bin/python3", "import sys", f"from {module} import {function}", f"sys.exit({function}())"]
    layer.text(f"/usr/local/bin/{name}", "\n".join(lines) + "\n", 0o755)


def descriptor(media_type: str, data: bytes, blobs: dict[str, bytes]) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def write_archive(out: Path, name: str, layer: bytes, config: dict[str, Any]) -> None:
    """An image of one layer, as a tar of the OCI layout."""
    blobs: dict[str, bytes] = {}
    kind = "application/vnd.oci.image"
    machine = platform.machine()
    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    packed = gzip.compress(layer, compresslevel=1, mtime=0)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": descriptor(f"{kind}.config.v1+json", json.dumps(image).encode(), blobs),
        "layers": [descriptor(f"{kind}.layer.v1.tar+gzip", packed, blobs)],
    }
    entry = descriptor(f"{kind}.manifest.v1+json", json.dumps(manifest).encode(), blobs)
    # containerd takes the full name from its own key, other readers take the tag.
    tag = name.rpartition(":")[2]
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "manifests": [entry]}
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    members |= {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
    with tarfile.open(out, "w") as tar:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("name", help="full name and tag, as Pods name it: localhost/spillway:test")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--static", metavar="PROGRAM", type=Path)
    what.add_argument("--python", action="store_true")
    parser.add_argument("--without", nargs="*", default=[], metavar="DISTRIBUTION", help="as pip names them")
    parser.add_argument("--add", nargs="*", default=[], metavar="SRC:DEST", help="files or folders to put in besides")
    parser.add_argument("--script", nargs="*", default=[], metavar="NAME=MODULE:FUNCTION", help="commands")
    options = parser.parse_args()

    layer = Layer()
    config: dict[str, Any]
    if options.static:
        program = f"/{options.static.name}"
        layer.file(options.static, program, 0o755)
        config = {"Entrypoint": [program]}
    else:
        add_python(layer, set(options.without))
        environment = ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"]
        # Named, for Debian's Python looks for packages in folders of other names.
        environment.append(f"PYTHONPATH=/app:{PACKAGES}")
        config = {"Env": environment, "WorkingDir": "/app", "User": f"{USER}:{USER}", "Cmd": ["python3"]}
    for item in options.add:
        src, _, dest = item.rpartition(":")
        layer.tree(Path(src), dest)
    for entry in options.script:
        add_script(layer, entry)
    write_archive(options.out, options.name, layer.close(), config)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
