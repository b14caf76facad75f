# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/dist: which of PulseAudio's headers it takes."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "ci"))

import pulsecore  # noqa: E402
import tarball  # noqa: E402
from pulsecore import DistError  # noqa: E402

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


def source(tmp_path: Path) -> tarball.Files:
    with tarfile.open(archive(tmp_path / "source.tar.xz", SOURCE)) as held:
        return tarball.read(held)


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
