# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of the Debian packages takes longer: built twice they are the same, and they leave nothing.

On demand: ci/test deb-more.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from .container import TREE, built, must, run

pytestmark = pytest.mark.on_demand

# What systemd, on which ours depend, makes and leaves when it is purged, below /.
SYSTEMDS = [
    "root/.ssh/",
    "var/cache/private/",
    "var/lib/private/",
    "var/lib/systemd/coredump/",
    "var/lib/systemd/pstore/",
    "var/log/private/",
]

# What tells of the machine and the time, and is meant to.
RECORDS = {".buildinfo", ".changes"}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix not in RECORDS
    }


@pytest.mark.parametrize("suite", ["bookworm"])
def test_built_twice_the_packages_are_the_same_octets(suite: str) -> None:
    before = digests(built(suite))
    assert len(before) >= 8
    must("ci/build-packages", suite)
    assert digests(TREE / "dist" / suite) == before


@pytest.mark.parametrize("suite", ["bookworm"])
def test_piuparts_finds_nothing_left(suite: str, tmp_path: Path) -> None:
    base = Path(must("ci/make-base-image", suite).splitlines()[-1])
    packed = tmp_path / "base.tar.gz"
    with base.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as out:
        shutil.copyfileobj(plain, out)
    packages = [path for path in built(suite).glob("*.deb") if "-dbgsym_" not in path.name]
    # (The base's own apt sources are those of the mirror.)
    options = [f"--basetgz={packed}", f"--distribution={suite}", f"--tmpdir={tmp_path}"]
    options += ["--keep-sources-list", "--no-eatmydata"]
    options += [f"--ignore=/{path}" for path in SYSTEMDS]
    done = run("piuparts", *options, *packages)
    (TREE / f"build/test/piuparts-{suite}.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    # (PulseAudio has a link into /run, which leads nowhere until somebody starts it.)
    ours = {path.name.partition("_")[0] for path in packages}
    broken = re.findall(r"^ +(/\S+ -> \S+) \(([\w.+-]+)\)$", done.stdout, re.MULTILINE)
    assert "/run/pulseaudio" in str(broken), "piuparts tells of broken links in another form"
    assert not [link for link, package in broken if package in ours]
