# SPDX-License-Identifier: LGPL-2.1-or-later
"""apt installs the packages from a signed repository into fresh roots, and sound passes there."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from published import flip, publish, served, throwaway_key

from .container import TREE, Container, base_image, built, container

SUITES = ("bookworm", "trixie")
SOUND = TREE / "packaging/debian/tests/sound"

each_suite = pytest.mark.parametrize("suite", SUITES)


@dataclass(frozen=True)
class Repository:
    """What ci/publish made, and where apt finds it."""

    folder: Path
    url: str

    def sources(self, suite: str) -> str:
        """Return what a user puts into sources.list.d."""
        return (self.folder / f"xenaudio-{suite}.sources").read_text()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Give a repository of both suites' packages, signed with a key of its own."""
    folder = tmp_path_factory.mktemp("repository") / "public"
    folder.mkdir()
    for suite in SUITES:
        built(suite)
    key = throwaway_key(tmp_path_factory.mktemp("key") / "home")
    with served(folder) as url:
        done = publish(folder, url, key, *SUITES)
        assert done.returncode == 0, done.stdout
        yield Repository(folder, url)


@dataclass(frozen=True)
class Root:
    """A fresh root, with what apt-get said when it installed the packages from the repository."""

    machine: Container
    said: str


Roots = Callable[[str, str], Root]


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """Give a folder that all roots have. (Of a short path, for it holds sockets.)"""
    with tempfile.TemporaryDirectory(prefix="roots-") as name:
        Path(name).chmod(0o755)
        shutil.copy(SOUND, name)
        yield Path(name)


@pytest.fixture(scope="module")
def roots(repository: Repository, shared: Path) -> Iterator[Roots]:
    """Give what makes the root of a suite with a package: dom0's or a guest's."""
    made: dict[tuple[str, str], Root] = {}
    with ExitStack() as stack:

        def root(suite: str, package: str) -> Root:
            if (suite, package) not in made:
                machine = stack.enter_context(container(base_image(suite), [shared]))
                source = "/etc/apt/sources.list.d/xenaudio.sources"
                machine.write(source, repository.sources(suite))
                machine.must("apt-get", "-q", "update")
                said = machine.install(package, *CLIENTS.get(package, ()))
                made[suite, package] = Root(machine, said)
            return made[suite, package]

        yield root


DOM0, GUEST = "xenaudio-backend", "pulseaudio-modules-xen"
CLIENTS = {GUEST: ("pulseaudio-utils",)}


@pytest.mark.parametrize(
    ("suite", "guests"),
    [
        pytest.param(*SUITES, id="bookworm-dom0-and-trixie-guest"),
        pytest.param(*SUITES[::-1], id="trixie-dom0-and-bookworm-guest"),
    ],
)
def test_sound_passes_between_two_fresh_roots(
    suite: str, guests: str, roots: Roots, shared: Path
) -> None:
    dom0, guest = roots(suite, DOM0).machine, roots(guests, GUEST).machine
    folder = shared / f"{suite}-{guests}"
    folder.mkdir()
    with dom0.running(shared / SOUND.name, "dom0", folder) as backend:
        while not (folder / "guest").exists():
            assert backend.poll() is None
            time.sleep(0.1)
        said = guest.must(shared / SOUND.name, "guest", folder)
    assert re.search(r"^played: \d+ frames, bit for bit$", said, re.MULTILINE), said
    assert re.search(r"^recorded: \d+ frames, bit for bit$", said, re.MULTILINE), said


@each_suite
def test_a_user_is_told_what_the_service_is_to_guests(suite: str, roots: Roots) -> None:
    root = roots(suite, DOM0)
    warning = 'a guest with "vsnd" in its configuration does not start'
    assert warning in root.said
    dom0 = root.machine
    dom0.write("/etc/xen/desk.cfg", "name = 'desk'\nvsnd = [[ 'CARD' ]]\n")
    dom0.write("/etc/xen/quiet.cfg", "name = 'quiet'\n")
    removal = dom0.apt_get("purge", DOM0)
    assert removal.returncode == 0
    assert warning in removal.stdout
    assert "these have it: /etc/xen/desk.cfg" in removal.stdout
    assert "quiet.cfg" not in removal.stdout
    left = dom0.must("find", "/etc", "/var/lib", "-path", "*xenaudio*", "-not", "-name", "*.list*")
    # (What apt knows of the repository, what the user wrote, and the dpkg data of other packages.)
    kept = ("/etc/apt/", "/var/lib/apt/", "/var/lib/dpkg/")
    assert [path for path in left.splitlines() if not path.startswith(kept)] == []
    assert warning in dom0.install(DOM0)


@each_suite
def test_modules_for_another_pulseaudio_are_refused_with_the_reason(
    suite: str, roots: Roots, shared: Path
) -> None:
    (other,) = (each for each in SUITES if each != suite)
    (package,) = built(other).glob(f"{GUEST}_*.deb")
    shutil.copy(package, shared)
    guest = roots(suite, GUEST).machine
    done = guest.apt_get("install", "--allow-downgrades", str(shared / package.name))
    assert done.returncode != 0
    reason = r"Depends: pulseaudio \((<|>=) \S+\) but \S+ is (installed|to be installed)"
    assert re.search(reason, done.stdout), done.stdout
    # And what was there still is.
    assert guest.must("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}", GUEST) == "ii "


def nothing_but(machine: Container, sources: str) -> list[str]:
    """Return the options with which apt-get knows these sources only, and has no lists of them."""
    folder = machine.must("mktemp", "-d").strip()
    machine.write(f"{folder}/only.sources", sources)
    machine.must("mkdir", "-p", f"{folder}/lists/partial")
    settings = {
        "Dir::Etc::SourceList": f"{folder}/only.sources",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": f"{folder}/lists",
        # (apt's own user may not read a folder of root's.)
        "APT::Sandbox::User": "root",
    }
    return [f"--option={key}={value}" for key, value in settings.items()]


@each_suite
def test_a_repository_with_another_key_is_refused(
    suite: str, roots: Roots, repository: Repository, tmp_path: Path
) -> None:
    key = throwaway_key(tmp_path / "home")
    other = tmp_path / "other"
    other.mkdir()
    assert publish(other, repository.url, key, suite).returncode == 0
    dom0 = roots(suite, DOM0).machine
    only = nothing_but(dom0, (other / f"xenaudio-{suite}.sources").read_text())
    done = dom0.apt_get("update", *only, "-o", "APT::Update::Error-Mode=any")
    assert done.returncode != 0
    # bookworm's apt asks gpgv, trixie's sqv.
    assert re.search("NO_PUBKEY|Missing key .* needed to verify signature", done.stdout), (
        done.stdout
    )


@each_suite
def test_a_damaged_package_is_refused(
    suite: str, roots: Roots, repository: Repository, tmp_path: Path
) -> None:
    damaged = shutil.copytree(repository.folder, tmp_path / "damaged")
    for package in damaged.rglob("xenaudio-guest_*.deb"):
        flip(package, 200)
    dom0 = roots(suite, DOM0).machine
    with served(damaged) as url:
        only = nothing_but(dom0, repository.sources(suite).replace(repository.url, url))
        assert dom0.apt_get("update", *only).returncode == 0
        done = dom0.apt_get("install", *only, "xenaudio-guest")
    assert done.returncode != 0
    assert "Hash Sum mismatch" in done.stdout
    assert dom0.run("dpkg-query", "--show", "xenaudio-guest").returncode != 0
