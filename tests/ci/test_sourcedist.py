# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/dist: whose sources it takes, what of the tree, and that bad ones make nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "ci"))

import pulsecore  # noqa: E402

NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
needs_key = pytest.mark.skipif(
    not pulsecore.KEYRING.is_file(), reason=f"{pulsecore.KEYRING} is missing"
)


def git(tree: Path, *arguments: str) -> None:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    dated = {"GIT_AUTHOR_DATE": "@1650000000 +0000", "GIT_COMMITTER_DATE": "@1650000000 +0000"}
    command = ["git", *who, "-C", str(tree), *arguments]
    subprocess.run(command, env={**os.environ, **NOBODY, **dated}, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A committed tree with ci/dist and one module, in which nothing has been made yet."""
    (tmp_path / "ci").mkdir()
    for name in ("dist", "pulsecore.py", "sourcedist.py", "tarball.py"):
        shutil.copy(TREE / "ci" / name, tmp_path / "ci" / name)
    shutil.copy(TREE / "pyproject.toml", tmp_path)
    (tmp_path / "csrc/pulse").mkdir(parents=True)
    (tmp_path / "csrc/pulse/module.c").write_text("#include <pulsecore/sink.h>\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "all")
    return tmp_path


def dist(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "ci/dist", *arguments],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("suite", ["../bookworm", "Bookworm", "a b", "-"])
def test_what_is_no_suite_is_refused_before_anything_is_made(suite: str, tree: Path) -> None:
    done = dist(tree, suite)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"ci/dist: {suite!r} is not a suite's name: bookworm, trixie, sid, ...\n"
    )
    assert not (tree / "build").exists()


def test_a_tree_without_a_commit_is_refused_before_anything_is_made(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    done = dist(tree, "bookworm")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the tree's tarball is made of its last commit, and git says: " in done.stderr
    assert not (tree / "build").exists()


def test_a_time_that_is_none_is_refused(tree: Path) -> None:
    done = dist(tree, "bookworm", SOURCE_DATE_EPOCH="yesterday")
    assert done.returncode == 1
    assert done.stderr == "ci/dist: SOURCE_DATE_EPOCH=yesterday: expected seconds since 1970\n"


@needs_key
def test_a_source_that_the_distribution_has_not_signed_is_refused(tree: Path) -> None:
    mirror = tree / "mirror"
    index = mirror / "dists/bookworm/main/source"
    index.mkdir(parents=True)
    (index / "Sources").write_text("")
    (mirror / "dists/bookworm/Release").write_text(
        "Origin: Debian\nSuite: bookworm\nCodename: bookworm\nComponents: main\n"
        "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
    )
    done = dist(tree, "bookworm", "--mirror", f"file://{mirror}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not signed" in done.stderr
    assert not (tree / "dist").exists()
    assert not list((tree / "build").glob("pulsecore-*"))


@needs_key
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian's apt")
def test_of_one_commit_the_tarballs_are_the_same_every_time(tree: Path) -> None:
    def made(**environment: str) -> dict[str, str]:
        done = dist(tree, "bookworm", **environment)
        assert done.returncode == 0, done.stderr
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (tree / "dist").rglob("*.tar.xz")
        }

    first = made()
    (upstream,) = (tree / "dist").glob("xenaudio-*.tar.xz")
    top = upstream.name.removesuffix(".tar.xz")
    with tarfile.open(upstream) as tar:
        members = {member.name: member for member in tar}
    assert f"{top}/csrc/pulse/module.c" in members
    assert members[f"{top}/ci/dist"].mode == 0o755
    assert {member.mtime for member in members.values()} == {1_650_000_000}
    # What is not committed is not in it.
    (tree / "csrc/pulse/new.c").write_text("")
    (tree / "pyproject.toml").touch()
    assert made() == first
    with_time = made(SOURCE_DATE_EPOCH="1700000000")
    assert [name for name in first if first[name] != with_time[name]] == [upstream.name]
