# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in for a Fedora: its image (Containerfile), and roots of stubs for dnf."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deb.container import TREE, Container, must
from deb.container import build_image as debian_build_image

HERE = Path(__file__).resolve().parent
IMAGE = "localhost/xenaudio-standin:fedora"
REPOS = "etc/yum.repos.d"


@functools.cache
def image() -> str:
    """Make the image that stands in for a Fedora's, if it is not there; return its name."""
    # (Of Debian's own builds, because that has most of what is needed already.)
    base = f"BASE={debian_build_image('bookworm')}"
    must("podman", "build", "--isolation=chroot", "--build-arg", base, "--tag", IMAGE, HERE)
    return IMAGE


@functools.cache
def build_image() -> str:
    """Make the image that packages are built in, if it is not there; return its name."""
    return must("ci/build-packages", "--base", image(), "--image", "fedora").splitlines()[-1]


@functools.cache
def built() -> Path:
    """Build the packages of the last commit, if they are not there; return their folder."""
    must("ci/build-packages", "--base", image(), "--if-needed", "fedora")
    return TREE / "dist/fedora"


class Root:
    """A root that nothing but dnf writes to. Its repositories: the stubs', and the published one.

    Of the stubs' the first is enabled.
    """

    def __init__(
        self, folder: Path, container: Container, published: Path, stubs: Mapping[str, Path]
    ) -> None:
        self.folder, self.container = folder, container
        (folder / REPOS).mkdir(parents=True)
        shutil.copyfile(published, folder / REPOS / published.name)
        with (folder / REPOS / "stubs.repo").open("w") as file:
            for enabled, (name, packages) in zip("10", stubs.items(), strict=True):
                file.write(f"[{name}]\nname={name}\nbaseurl=file://{packages}\n")
                file.write(f"enabled={enabled}\ngpgcheck=0\n")

    def dnf(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run dnf on the root, as Fedora has it set: the best version, or none."""
        where = [f"--installroot={self.folder}", f"--setopt=reposdir={self.folder}/{REPOS}"]
        return self.container.run("dnf", "-y", "--best", "--refresh", *where, *arguments)

    def must_dnf(self, *arguments: str) -> str:
        """Run dnf on the root, which must succeed; return what it wrote."""
        done = self.dnf(*arguments)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def rpm(self, *arguments: str) -> str:
        """Ask the root's rpm."""
        return self.container.must("rpm", f"--root={self.folder}", *arguments)

    def installed(self) -> set[str]:
        """Return the names of the packages in it that are ours."""
        names = self.rpm("-qa", "--queryformat=%{NAME}\\n").split()
        return {name for name in names if "xen" in name}

    def called(self) -> list[str]:
        """Return what commands the packages' scripts have called since the last time."""
        log = self.folder / "var/log/called"
        said = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.strip() for line in said]

    def path(self, name: str) -> Path:
        """Return where a file of the root is on this machine."""
        return self.folder / name.lstrip("/")
