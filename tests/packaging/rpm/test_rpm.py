# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM packages: built, checked, signed, installed, upgraded, removed, and refused when damaged.

On a stand-in for Fedora: docs/packaging.md says what that proves.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from deb.container import TREE, Container
from published import flip, throwaway_key

from .conftest import Repository
from .standin import Root

SPEC = TREE / "packaging/rpm/pulseaudio-modules-xen.spec"
OURS = {"pulseaudio-modules-xen", "python3-xenaudio", "xenaudio-backend", "xenaudio-guest"}
UNITS = "usr/lib/systemd/system"


def package(packages: Path, name: str) -> Path:
    (found,) = packages.glob(f"{name}-[0-9]*[!c].rpm")
    return found


def test_the_spec_is_of_this_version() -> None:
    said = re.search(r'^version = "(.*)"$', (TREE / "pyproject.toml").read_text(), re.MULTILINE)
    assert said is not None
    assert re.findall(r"^Version: +(\S+)$", SPEC.read_text(), re.MULTILINE)[0] == said[1]


def test_four_packages_and_their_source_are_built(packages: Path) -> None:
    names = {re.sub(r"-\d.*", "", path.name) for path in packages.glob("*[!c].rpm")}
    assert names - {f"pulseaudio-modules-xen-debug{kind}" for kind in ("info", "source")} == OURS
    assert len(list(packages.glob("*.src.rpm"))) == 1


def test_rpmlint_finds_no_error(
    standin: Container, repository: Repository, shared: Path, tmp_path: Path
) -> None:
    # (Signed ones: that a package is not is an error to it. Not those of debug information: that
    # they have no program is one too.)
    seen = shared / tmp_path.name
    seen.mkdir()
    for path in repository.packages.glob("*.rpm"):
        if "-debug" not in path.name:
            (seen / path.name).write_bytes(path.read_bytes())
    (seen / SPEC.name).write_bytes(SPEC.read_bytes())
    (seen / "key").write_bytes((repository.out / "xenaudio.asc").read_bytes())
    standin.must("rpmkeys", "--import", seen / "key")
    done = standin.run("sh", "-c", 'rpmlint "$1"/*.rpm "$1"/*.spec', "sh", str(seen))
    assert "5 packages and 1 specfiles checked; 0 errors" in done.stdout, done.stdout


@pytest.mark.parametrize("name", sorted(OURS))
def test_each_package_has_the_licence(standin: Container, packages: Path, name: str) -> None:
    listed = standin.must("rpm", "-qp", "--licensefiles", package(packages, name))
    assert [Path(path).name for path in listed.split()] == ["LICENSE"]


def test_the_modules_are_for_one_pulseaudio(
    standin: Container, packages: Path, pulse_version: str
) -> None:
    modules = package(packages, "pulseaudio-modules-xen")
    required = standin.must("rpm", "-qp", "--requires", modules).splitlines()
    assert f"pulseaudio(x86-64) = {pulse_version}" in required
    given = standin.must("rpm", "-qp", "--provides", modules)
    assert "libxenpv" not in given + "".join(required), "that library is nobody else's"


def test_pulseaudio_loads_the_packaged_modules(standin: Container, packages: Path) -> None:
    unpack = 'rpm2cpio "$1" | cpio -id --quiet -D / "./usr/lib*/*"'
    standin.must("sh", "-c", unpack, "sh", package(packages, "pulseaudio-modules-xen"))
    described = standin.must("pulseaudio", "--dump-modules")
    for kind, text in {"detect": "Sinks and sources", "sink": "Sink", "source": "Source"}.items():
        assert re.search(rf"^module-xenpv-{kind} +{text}\b", described, re.MULTILINE), described


def test_everything_optional_is_in_the_packages(standin: Container, packages: Path) -> None:
    required = standin.must("rpm", "-qp", "--requires", package(packages, "python3-xenaudio"))
    for library in ("libpulse.so.0", "libsndfile.so.1", "libxengnttab.so.1", "libxenevtchn.so.1"):
        assert f"{library}()(64bit)" in required


def test_the_command_asks_for_what_its_metadata_names(standin: Container, packages: Path) -> None:
    required = standin.must("rpm", "-qp", "--requires", package(packages, "python3-xenaudio"))
    assert re.search(r"^python3[.\d]*dist\(cffi\) >= 1\.15$", required, re.MULTILINE), required


def test_a_guest_and_a_dom0_are_installed(root: Root) -> None:
    said = root.must_dnf("install", "pulseaudio-modules-xen", "xenaudio-backend")
    assert "Key imported successfully" in said
    assert root.installed() == OURS
    assert root.rpm("-Va") == "", "each file is as it was packed"
    called = root.called()
    assert "systemctl --no-reload preset xenaudiod.service" in called
    assert "systemctl --no-reload preset xenaudio-guestd.socket xenaudio-guestd.service" in called
    assert "modprobe -qa xen-gntalloc xen-evtchn" in called
    for file in ("etc/xenaudio/xenaudio.toml", f"{UNITS}/xenaudiod.service", "usr/bin/xenaudio"):
        assert root.path(file).is_file()


def test_devices_get_their_owner_after_the_user_is_there(root: Root) -> None:
    root.must_dnf("install", "xenaudio-backend")
    wanted = (
        "systemd-sysusers",
        "udevadm control --reload",
        "modprobe -qa xen-evtchn xen-gntdev",
        "udevadm trigger --subsystem-match=misc --settle",
    )
    assert [line for line in root.called() if line in wanted] == list(wanted)


def test_the_command_runs_from_its_package(root: Root) -> None:
    root.must_dnf("install", "xenaudio-backend")
    (library,) = root.path("usr/lib64").glob("python3.*/site-packages")
    here = ["env", f"PYTHONPATH={library}", "python3", root.path("usr/bin/xenaudio")]
    assert root.container.must(*here, "--version").startswith("xenaudio ")
    shipped = root.path("etc/xenaudio/xenaudio.toml")
    checked = root.container.run(*here, "check", shipped)
    assert checked.returncode == 0, checked.stdout


def test_an_upgrade_restarts_what_runs_and_keeps_the_configuration(
    root: Root, repository: Repository, newer: Path
) -> None:
    root.must_dnf("install", "pulseaudio-modules-xen", "xenaudio-backend")
    configuration = root.path("etc/xenaudio/xenaudio.toml")
    configuration.write_text("# mine\n")
    root.called()
    repository.publish(newer)
    root.must_dnf("upgrade")
    releases = root.rpm("-q", "--queryformat=%{RELEASE}\\n", *sorted(OURS)).split()
    assert releases == ["1.standin2"] * len(OURS)
    called = root.called()
    assert "systemctl try-restart xenaudiod.service" in called
    assert "systemctl try-restart xenaudio-guestd.service" in called
    assert not [line for line in called if "disable" in line or "preset" in line]
    assert configuration.read_text() == "# mine\n"


def test_removal_stops_the_services_and_keeps_what_is_the_users(root: Root) -> None:
    root.must_dnf("install", "pulseaudio-modules-xen", "xenaudio-backend")
    configuration = root.path("etc/xenaudio/xenaudio.toml")
    configuration.write_text("# mine\n")
    root.called()
    root.must_dnf("remove", *sorted(OURS))
    assert root.installed() == set()
    called = root.called()
    assert "systemctl --no-reload disable --now xenaudiod.service" in called
    assert (
        "systemctl --no-reload disable --now xenaudio-guestd.socket xenaudio-guestd.service"
        in called
    )
    left = [path for path in root.folder.rglob("*xenaudio*") if not path.is_dir()]
    kept = configuration.with_name("xenaudio.toml.rpmsave")
    published = root.path("etc/yum.repos.d/xenaudio-fedora.repo")
    in_cache = root.path("var")
    assert {path for path in left if in_cache not in path.parents} == {kept, published}
    assert kept.read_text() == "# mine\n"


def test_a_configuration_that_nobody_changed_is_removed(root: Root) -> None:
    root.must_dnf("install", "xenaudio-backend")
    root.must_dnf("remove", "xenaudio-backend")
    assert not root.path("etc/xenaudio").exists()


LATER = "--enablerepo=later-pulseaudio"


def test_a_later_pulseaudio_is_refused_with_the_reason(root: Root, pulse_version: str) -> None:
    root.must_dnf("install", "pulseaudio-modules-xen")
    refused = root.dnf(LATER, "upgrade", "pulseaudio")
    assert refused.returncode != 0
    assert f"requires pulseaudio(x86-64) = {pulse_version}" in refused.stdout
    assert root.rpm("-q", "--queryformat=%{VERSION}", "pulseaudio") == pulse_version


def test_modules_for_another_pulseaudio_are_refused_with_the_reason(
    root: Root, pulse_version: str
) -> None:
    root.must_dnf(LATER, "install", "pulseaudio-99.0")
    # (Else it would go back to the one that they are for.)
    lacking = f"--exclude=pulseaudio-{pulse_version}-1"
    refused = root.dnf("install", lacking, "pulseaudio-modules-xen")
    assert refused.returncode != 0
    assert f"requires pulseaudio(x86-64) = {pulse_version}" in refused.stdout
    assert root.installed() == set()


class TestARefusal:
    """Nothing is installed from a repository that is not as it was signed."""

    @staticmethod
    def refused(root: Root) -> str:
        done = root.dnf("install", "xenaudio-backend")
        assert done.returncode != 0, done.stdout
        assert root.installed() == set()
        return done.stdout

    def test_a_damaged_package(self, root: Root, repository: Repository) -> None:
        flip(repository.package("xenaudio-backend"), -1)
        assert "checksum doesn't match" in self.refused(root)

    def test_damaged_lists(self, root: Root, repository: Repository) -> None:
        (lists,) = repository.packages.glob("repodata/*-primary.xml.gz")
        flip(lists, -1)
        assert "checksum doesn't match" in self.refused(root)

    def test_a_damaged_package_in_lists_that_were_made_anew(
        self, root: Root, repository: Repository, anew: Path, standin: Container
    ) -> None:
        flip(repository.package("xenaudio-backend"), -1)
        self.list_anew(repository, anew, standin)
        assert "GPG signature verification error: Bad GPG signature" in self.refused(root)

    def test_a_package_that_nobody_signed_in_signed_lists(
        self,
        root: Root,
        repository: Repository,
        packages: Path,
        anew: Path,
        standin: Container,
        key_home: Path,
    ) -> None:
        signed = repository.package("xenaudio-backend")
        signed.write_bytes((packages / signed.name).read_bytes())
        self.list_anew(repository, anew, standin)
        repomd = repository.packages / "repodata/repomd.xml"
        gpg = ["gpg", "--homedir", str(key_home), "--batch", "--yes", "--armor"]
        try:
            subprocess.run([*gpg, "--detach-sign", str(repomd)], check=True)
        finally:
            subprocess.run(["gpgconf", "--homedir", str(key_home), "--kill", "all"], check=False)
        said = self.refused(root)
        assert f"Package {signed.name} is not signed" in said
        assert "GPG check FAILED" in said

    def test_another_key(self, root: Root, repository: Repository, tmp_path: Path) -> None:
        home = tmp_path / "key" / "other"
        throwaway_key(home)
        public = ["gpg", "--homedir", str(home), "--armor", "--export"]
        exported = subprocess.run(public, check=True, capture_output=True)
        (repository.out / "xenaudio.asc").write_bytes(exported.stdout)
        assert "GPG signature verification error" in self.refused(root)

    @pytest.fixture
    def anew(self, shared: Path, tmp_path: Path) -> Path:
        """A folder that the container sees."""
        (shared / "anew" / tmp_path.name).mkdir(parents=True)
        return shared / "anew" / tmp_path.name

    @staticmethod
    def list_anew(repository: Repository, copy: Path, standin: Container) -> None:
        """Make the lists of what is there now; their signature stays the old one."""
        for path in repository.packages.glob("*.rpm"):
            (copy / path.name).write_bytes(path.read_bytes())
        standin.must("createrepo_c", "--quiet", "--no-database", copy)
        for path in (copy / "repodata").iterdir():
            (repository.packages / "repodata" / path.name).write_bytes(path.read_bytes())
