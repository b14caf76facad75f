# SPDX-License-Identifier: LGPL-2.1-or-later
"""Source tarballs (ci/dist): read, and written so that they are the same octets every time."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One file of an archive: what it says, and when it was last changed (seconds, UTC)."""

    text: bytes
    changed: int
    executable: bool = False


Files = Mapping[str, Entry]
"""Files by their names below an archive's top folder."""


def read(archive: tarfile.TarFile) -> Files:
    """Return an archive's files."""
    files = {}
    for member in archive:
        if member.isfile() and (held := archive.extractfile(member)) is not None:
            name = member.name.removeprefix("./").partition("/")[2]
            files[name] = Entry(held.read(), int(member.mtime), bool(member.mode & 0o100))
    return files


def tar_xz(top: str, files: Files) -> bytes:
    """Return `files` in the folder `top` as a .tar.xz: the same octets whenever it is made."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, entry in sorted(files.items()):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime = len(entry.text), entry.changed
            member.mode = 0o755 if entry.executable else 0o644
            tar.addfile(member, io.BytesIO(entry.text))
    return lzma.compress(plain.getvalue(), preset=9)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.replace(path)


def replace_folder(folder: Path, files: Files) -> None:
    """Write a folder of files whole; what it held before is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        for name, entry in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(entry.text)
            os.utime(new / name, (entry.changed, entry.changed))
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
