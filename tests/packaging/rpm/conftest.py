# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of RPM packages share: one build, one container, one address for repositories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deb.container import Container, container
from published import publish, served, throwaway_key

from .standin import Root, build_image, built

TIMEOUT = 1200
"""Seconds for a test, with its fixtures: building, and the images if they are not there."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    able = os.getuid() == 0 and shutil.which("podman") is not None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT))
            reason = "needs root and podman (ci/setup test)"
            item.add_marker(pytest.mark.skipif(not able, reason=reason))


@dataclass(frozen=True)
class Repository:
    """A published tree, at an address of its own."""

    out: Path
    url: str
    key: str

    def publish(self, packages: Path) -> None:
        """Publish the RPM packages of a folder in place of those before."""
        done = publish(self.out, self.url, self.key, "--dist", packages.parent, packages.name)
        assert done.returncode == 0, done.stdout

    @property
    def for_users(self) -> Path:
        """What a user puts into /etc/yum.repos.d."""
        return self.out / "xenaudio-fedora.repo"

    @property
    def packages(self) -> Path:
        """The folder of the packages and of what is known of them."""
        return self.out / "rpm/fedora"

    def package(self, name: str) -> Path:
        """One of the packages that are installed."""
        (found,) = self.packages.glob(f"{name}-[0-9]*[!c].rpm")
        return found


@pytest.fixture(scope="session")
def key_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GnuPG home that the key is made in."""
    return tmp_path_factory.mktemp("key") / "home"


@pytest.fixture(scope="session")
def key(key_home: Path) -> str:
    return throwaway_key(key_home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the container sees."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def packages() -> Path:
    return built()


@pytest.fixture(scope="session")
def standin(shared: Path, packages: Path) -> Iterator[Container]:
    """A container of the image that the packages were built in."""
    with container(build_image(), [shared, packages, Path(__file__).parent]) as made:
        yield made


@pytest.fixture(scope="session")
def pulse_version(standin: Container) -> str:
    """The PulseAudio that the modules were built for."""
    return standin.must("pkg-config", "--modversion", "libpulse").strip()


@pytest.fixture(scope="session")
def stubs(standin: Container, pulse_version: str, shared: Path) -> dict[str, Path]:
    """Repositories of what our packages need: with that PulseAudio, and with a later one."""
    made = {}
    for name, version in {"stubs": pulse_version, "later-pulseaudio": "99.0"}.items():
        top = ["-D", f"_topdir {shared}/{name}", "-D", f"pulse_version {version}"]
        spec = Path(__file__).with_name("root-standin.spec")
        standin.must("rpmbuild", "--quiet", "-bb", *top, spec)
        made[name] = shared / name / "RPMS"
        standin.must("createrepo_c", "--quiet", made[name])
    return made


@pytest.fixture(scope="session")
def newer(standin: Container, packages: Path, shared: Path) -> Path:
    """A later release of the same, rebuilt from the source package alone."""
    (source,) = packages.glob("*.src.rpm")
    top = ["-D", f"_topdir {shared}/newer", "-D", "dist .standin2"]
    less = ["--nocheck", "-D", "_enable_debug_packages 0", "-D", "build_cflags -O0"]
    standin.must("rpmbuild", "--quiet", "--rebuild", *less, *top, source)
    made = shared / "newer/fedora"
    made.mkdir()
    for package in (shared / "newer/RPMS").rglob("*.rpm"):
        package.rename(made / package.name)
    return made


@pytest.fixture
def repository(tmp_path: Path, key: str, packages: Path) -> Iterator[Repository]:
    """The packages, published."""
    (tmp_path / "www").mkdir()
    with served(tmp_path / "www") as url:
        made = Repository(tmp_path / "www/xenaudio", f"{url}/xenaudio", key)
        made.publish(packages)
        yield made


@pytest.fixture
def root(
    standin: Container, stubs: dict[str, Path], repository: Repository, shared: Path, tmp_path: Path
) -> Iterator[Root]:
    """An empty root, in which a user has put the published file in place."""
    folder = shared / "roots" / tmp_path.name
    made = Root(folder, standin, repository.for_users, stubs)
    yield made
    shutil.rmtree(folder)
