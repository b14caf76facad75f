# SPDX-License-Identifier: LGPL-2.1-or-later
"""The project's packages, as users get them: in a folder, and in a signed repository.

They are built of the tree's last commit. XENAUDIO_DIST names a folder like dist/ that has them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hosts import TREE, run
from published import publish, throwaway_key

SUITE = "bookworm"
NAMES = ("python3-xenaudio", "xenaudio-backend", "xenaudio-guest", "pulseaudio-modules-xen")


@dataclass(frozen=True)
class Repository:
    """A repository in a folder. `url` is what hosts are told, `key` the armoured public key."""

    folder: Path
    url: str
    key: str


def build() -> Path:
    """Build the packages, unless they are there; return the folder like dist/."""
    if "XENAUDIO_DIST" in os.environ:
        return Path(os.environ["XENAUDIO_DIST"])
    run(TREE / "ci/build-packages", "--if-needed", SUITE, limit=1800)
    return TREE / "dist"


def copied(dist: Path, to: Path) -> Path:
    """Return a folder with the packages alone."""
    to.mkdir()
    for name in NAMES:
        (package,) = (dist / SUITE).glob(f"{name}_*.deb")
        shutil.copy(package, to)
    return to


def signed_repository(dist: Path, folder: Path, base_url: str) -> Repository:
    """Publish the packages in a folder that will be served at `base_url`."""
    out = folder / "repository"
    secret_key = throwaway_key(folder / "gnupg")
    done = publish(out, base_url, secret_key, "--dist", dist, SUITE)
    assert done.returncode == 0, done.stdout
    key = (out / "xenaudio.asc").read_text()
    return Repository(out, f"{base_url}/apt", key)


def foreign_key(folder: Path) -> str:
    """Return the public key of somebody else, armoured."""
    throwaway_key(folder)
    return run("gpg", "--homedir", folder, "--batch", "--armor", "--export").stdout
