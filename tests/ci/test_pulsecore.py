# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/dist: which of PulseAudio's headers it takes, from whom, and that they come out alike."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "ci"))

import pulsecore  # noqa: E402
from pulsecore import DistError, Entry  # noqa: E402

SOURCE = {
    ".tarball-version": "16.1\n",
    "LGPL": "the licence\n",
    "meson.build": "project()\n",
    "src/pulsecore/sink.h": (
        "#include <inttypes.h>\n#include <pulse/proplist.h>\n"
        '#include <pulsecore/core.h>\n#include "macro.h"\n'
    ),
    "src/pulsecore/core.h": "#  include <pulsecore/sink.h>\n#include <pulsecore/filter/lfe.h>\n",
    "src/pulsecore/macro.h": "#define MACRO\n",
    "src/pulsecore/filter/lfe.h": '#include "biquad.h"\n',
    "src/pulsecore/filter/biquad.h": "",
    "src/pulsecore/cli.h": "#include <pulsecore/core.h>\n",
    "src/pulsecore/sink.c": "#include <pulsecore/sink.h>\n",
    "src/pulse/proplist.h": "",
}


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pulseaudio-16.1/{name}")
            member.size, member.mtime = len(text), 1_650_000_000
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def source(tmp_path: Path, **changed: str) -> pulsecore.Files:
    return pulsecore.read_source(archive(tmp_path / "source.tar.xz", {**SOURCE, **changed}))


def test_the_component_is_what_the_modules_include_and_what_that_includes(tmp_path: Path) -> None:
    taken = pulsecore.component(source(tmp_path), {"pulsecore/sink.h"})
    assert sorted(taken) == [
        "LGPL",
        "pulsecore/core.h",
        "pulsecore/filter/biquad.h",
        "pulsecore/filter/lfe.h",
        "pulsecore/macro.h",
        "pulsecore/sink.h",
        "version",
    ]
    assert taken["version"].text == b"16.1\n"
    assert taken["pulsecore/macro.h"].text == b"#define MACRO\n"


def test_what_the_modules_include_is_read_from_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('#include "config.h"\n#include <pulsecore/sink.h>\n')
    (tmp_path / "b.h").write_text("#include <pulse/def.h>\n # include <pulsecore/card.h> /* x */\n")
    (tmp_path / "c.txt").write_text("#include <pulsecore/not.h>\n")
    assert pulsecore.wanted(tmp_path) == {"pulsecore/sink.h", "pulsecore/card.h"}


def test_a_header_that_is_there_no_longer_is_named_with_who_includes_it(tmp_path: Path) -> None:
    files = dict(source(tmp_path))
    with pytest.raises(DistError, match=r"a module includes pulsecore/gone[.]h"):
        pulsecore.component(files, {"pulsecore/gone.h"})
    del files["src/pulsecore/filter/lfe.h"]
    with pytest.raises(DistError, match=r"pulsecore/core[.]h includes pulsecore/filter/lfe[.]h"):
        pulsecore.component(files, {"pulsecore/sink.h"})


@pytest.mark.parametrize("name", [".tarball-version", "LGPL"])
def test_a_source_without_version_or_licence_is_refused(name: str, tmp_path: Path) -> None:
    files = dict(source(tmp_path))
    del files[name]
    with pytest.raises(DistError, match=f"no {name}"):
        pulsecore.component(files, {"pulsecore/sink.h"})


def test_the_tarball_is_the_same_octets_every_time(tmp_path: Path) -> None:
    files = pulsecore.component(source(tmp_path), {"pulsecore/sink.h"})
    made = pulsecore.tarball(files)
    assert made == pulsecore.tarball(dict(reversed(list(files.items()))))
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [f"pulsecore/{name}" for name in sorted(files)]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mode, m.mtime) for m in members} == {
        (0, 0, "", "", 0o644, 1_650_000_000)
    }


def test_the_copy_for_a_developer_holds_nothing_of_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "build/pulsecore-bookworm"
    pulsecore.replace_folder(folder, {"pulsecore/old.h": Entry(b"", 1), "version": Entry(b"1", 1)})
    pulsecore.replace_folder(folder, {"pulsecore/new.h": Entry(b"", 1), "version": Entry(b"2", 1)})
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert held == {"pulsecore/new.h", "version"}
    assert (folder / "version").read_bytes() == b"2"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with ci/dist and one module, in which nothing has been made yet."""
    (tmp_path / "ci").mkdir()
    for name in ("ci/dist", "ci/pulsecore.py", "pyproject.toml"):
        shutil.copy(TREE / name, tmp_path / name)
    (tmp_path / "csrc/pulse").mkdir(parents=True)
    (tmp_path / "csrc/pulse/module.c").write_text("#include <pulsecore/sink.h>\n")
    return tmp_path


def dist(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "ci/dist", *arguments],
        cwd="/",
        env={},
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


@pytest.mark.skipif(not pulsecore.KEYRING.is_file(), reason=f"{pulsecore.KEYRING} is missing")
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
