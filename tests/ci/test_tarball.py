# SPDX-License-Identifier: LGPL-2.1-or-later
"""Source tarballs come out alike, and what is written is whole."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "ci"))

import tarball  # noqa: E402
from tarball import Entry  # noqa: E402

CHANGED = 1_650_000_000
FILES = {
    "b/script": Entry(b"#!/bin/sh\n", CHANGED, executable=True),
    "a": Entry(b"text\n", CHANGED),
}


def test_the_same_files_are_the_same_octets_in_whatever_order() -> None:
    made = tarball.tar_xz("top-1.0", FILES)
    assert made == tarball.tar_xz("top-1.0", dict(reversed(FILES.items())))
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["top-1.0/a", "top-1.0/b/script"]
    assert [member.mode for member in members] == [0o644, 0o755]
    owners = {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members}
    assert owners == {(0, 0, "", "", CHANGED)}


def test_what_is_written_is_what_is_read() -> None:
    with tarfile.open(fileobj=io.BytesIO(tarball.tar_xz("top-1.0", FILES))) as tar:
        assert tarball.read(tar) == FILES


def test_a_folder_holds_nothing_of_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "build/pulsecore-bookworm"
    tarball.replace_folder(folder, {"pulsecore/old.h": Entry(b"", 1), "version": Entry(b"1", 1)})
    tarball.replace_folder(folder, {"pulsecore/new.h": Entry(b"", 1), "version": Entry(b"2", 1)})
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert held == {"pulsecore/new.h", "version"}
    assert (folder / "version").read_bytes() == b"2"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
