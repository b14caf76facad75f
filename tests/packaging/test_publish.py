# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/publish: repositories that apt and rpm trust by one key, made whole or not at all."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from published import PATH, files, flip, publish, served, throwaway_key

TOOLS = ("apt-ftparchive", "createrepo_c", "dpkg-deb", "gpg", "rpmbuild", "rpmsign")
missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} (ci/setup test)")

SUITE = "bookworm"
URL = "https://packages.example.org/xenaudio"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": PATH, "LC_ALL": "C.UTF-8", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def must(*command: str | Path, **environment: str) -> str:
    done = run(*command, **environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    return throwaway_key(tmp_path_factory.mktemp("key") / "home")


@pytest.fixture(scope="session")
def small_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dist/ with a .deb and an .rpm of nothing."""
    made = tmp_path_factory.mktemp("dist")
    for target in (SUITE, "fedora"):
        (made / target).mkdir()
    control = tmp_path_factory.mktemp("deb") / "nothing/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: nothing\nVersion: 1.0-1\nArchitecture: amd64\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: nothing\n"
    )
    must("dpkg-deb", "--root-owner-group", "--build", control.parents[1], made / SUITE)
    spec = tmp_path_factory.mktemp("rpm") / "nothing.spec"
    spec.write_text(
        "Name: nothing\nVersion: 1.0\nRelease: 1\nSummary: nothing\nLicense: none\n"
        "BuildArch: noarch\n%description\nnothing\n%files\n"
    )
    top = f"_topdir {spec.parent}"
    must("rpmbuild", "-bb", "-D", top, "-D", f"_rpmdir {made / 'fedora'}", spec)
    for package in made.glob("fedora/noarch/*.rpm"):
        package.rename(made / "fedora" / package.name)
    (made / "fedora/noarch").rmdir()
    return made


@pytest.fixture
def dist(small_packages: Path, tmp_path: Path) -> Path:
    """A copy, for the test to change."""
    return Path(shutil.copytree(small_packages, tmp_path / "dist"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "www" / "xenaudio"


def gpgv(out: Path, scratch: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Verify by the published key alone."""
    ring = scratch / "ring.gpg"
    must("gpg", "--homedir", scratch, "--yes", "--output", ring, "--dearmor", out / "xenaudio.asc")
    return run("gpgv", "--keyring", ring, *arguments)


def test_both_repositories_are_signed_by_the_published_key(
    dist: Path, out: Path, key: str, tmp_path: Path
) -> None:
    done = publish(out, URL, key, "--dist", dist)
    assert done.returncode == 0, done.stdout
    named = ("xenaudio.asc", f"xenaudio-{SUITE}.sources", "xenaudio-fedora.repo")
    assert done.stdout.split() == [str(out / name) for name in named]
    assert "PRIVATE" not in (out / "xenaudio.asc").read_text()

    release, repomd = out / f"apt/dists/{SUITE}", out / "rpm/fedora/repodata/repomd.xml"
    scratch = tmp_path / "gpg"
    scratch.mkdir(mode=0o700)
    assert gpgv(out, scratch, release / "InRelease").returncode == 0
    assert gpgv(out, scratch, release / "Release.gpg", release / "Release").returncode == 0
    assert gpgv(out, scratch, f"{repomd}.asc", repomd).returncode == 0

    database = ["--dbpath", tmp_path / "rpmdb"]
    must("rpmkeys", *database, "--import", out / "xenaudio.asc")
    checked = must("rpmkeys", *database, "--checksig", *out.glob("rpm/fedora/*.rpm"))
    assert "signatures OK" in checked


def test_readers_of_the_web_server_may_read_all_of_it(dist: Path, out: Path, key: str) -> None:
    old = os.umask(0o077)
    try:
        assert publish(out, URL, key, "--dist", dist).returncode == 0
    finally:
        os.umask(old)
    for path in (out, *out.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_dnf_is_told_to_check_packages_and_lists(dist: Path, out: Path, key: str) -> None:
    assert publish(out, URL, key, "--dist", dist, "fedora").returncode == 0
    repo = configparser.ConfigParser()
    repo.read(out / "xenaudio-fedora.repo")
    section = repo["xenaudio-fedora"]
    assert (section["gpgcheck"], section["repo_gpgcheck"]) == ("1", "1")
    assert section["baseurl"] == f"{URL}/rpm/fedora"
    assert section["gpgkey"] == f"{URL}/xenaudio.asc"
    assert not (out / "apt").exists(), "one target was named"


class Apt:
    """An apt with a state of its own, whose only source is the published file."""

    def __init__(self, folder: Path, sources: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (folder / name).mkdir(parents=True)
        shutil.copyfile(sources, folder / "parts" / sources.name)
        (folder / "status").touch()
        self.folder, self.configuration = folder, folder / "apt.conf"
        self.configuration.write_text(
            'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{folder}/parts";\n'
            'Dir::Etc::trusted "/dev/null";\nDir::Etc::trustedparts "/dev/null";\n'
            f'Dir::State::lists "{folder}/lists";\n'
            f'Dir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}/cache";\n'
            'APT::Sandbox::User "";\nAPT::Architecture "amd64";\nAcquire::Languages "none";\n'
            'Acquire::http::Proxy "DIRECT";\n'
        )

    def get(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {"APT_CONFIG": str(self.configuration)}
        strict = ["-q", "-o", "APT::Update::Error-Mode=any"]
        return run(*("env", "-C", self.folder, "apt-get"), *strict, *arguments, **settings)


def published_for_apt(dist: Path, out: Path, key: str, url: str) -> Path:
    assert publish(out, f"{url}/{out.name}", key, "--dist", dist, SUITE).returncode == 0
    return out / f"xenaudio-{SUITE}.sources"


def test_apt_takes_a_package_by_the_file_for_users_alone(
    dist: Path, out: Path, key: str, tmp_path: Path
) -> None:
    with served(out.parent.parent / "www") as url:
        apt = Apt(tmp_path / "apt", published_for_apt(dist, out, key, url))
        assert (updated := apt.get("update")).returncode == 0, updated.stdout
        assert (taken := apt.get("download", "nothing")).returncode == 0, taken.stdout
    assert (tmp_path / "apt/nothing_1.0-1_amd64.deb").is_file()


def test_apt_refuses_lists_that_another_key_has_signed(
    dist: Path, out: Path, key: str, tmp_path: Path
) -> None:
    other = throwaway_key(tmp_path / "other", kind="ed25519")
    with served(out.parent.parent / "www") as url:
        sources = published_for_apt(dist, out, key, url)
        apt = Apt(tmp_path / "apt", sources)
        published_for_apt(dist, out, other, url)
        refused = apt.get("update")
    assert refused.returncode != 0
    assert "NO_PUBKEY" in refused.stdout


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        pytest.param(f"dists/{SUITE}/InRelease", "signature", id="signed list"),
        pytest.param(
            f"dists/{SUITE}/main/binary-amd64/Packages.xz", "unexpected size|Hash", id="packages"
        ),
        pytest.param(f"pool/{SUITE}/nothing_1.0-1_amd64.deb", "Hash Sum mismatch", id="package"),
    ],
)
def test_apt_refuses_what_is_damaged(
    dist: Path, out: Path, key: str, tmp_path: Path, damaged: str, said: str
) -> None:
    with served(out.parent.parent / "www") as url:
        apt = Apt(tmp_path / "apt", published_for_apt(dist, out, key, url))
        path = out / "apt" / damaged
        # (In a signed list, what is signed, not how it is wrapped.)
        flip(path, path.read_bytes().find(b"Label") if path.name == "InRelease" else -20)
        steps = [apt.get("update"), apt.get("download", "nothing")]
    assert steps[-1].returncode != 0
    assert any(word in step.stdout for step in steps for word in said.split("|")), steps
    assert not list((tmp_path / "apt").glob("*.deb"))


def test_a_key_with_a_passphrase(dist: Path, out: Path, tmp_path: Path) -> None:
    locked = throwaway_key(tmp_path / "locked", passphrase="open sesame")
    words = {"XENAUDIO_SIGNING_PASSPHRASE": "open sesame"}
    done = publish(out, URL, locked, "--dist", dist, **words)
    assert done.returncode == 0, done.stdout


def test_the_key_is_on_no_disk_afterwards(dist: Path, out: Path, key: str) -> None:
    # (A short name: it becomes part of a socket's.)
    with tempfile.TemporaryDirectory() as scratch:
        done = publish(out, URL, key, "--dist", dist, TMPDIR=scratch)
        assert done.returncode == 0, done.stdout
        assert list(Path(scratch).iterdir()) == []
    assert not any(b"PRIVATE KEY" in text for text in files(out).values())


def test_the_published_tree_is_replaced_in_one_step(dist: Path, out: Path, key: str) -> None:
    assert publish(out, URL, key, "--dist", dist).returncode == 0
    lacking, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            lacking.extend(
                name
                for name in ("xenaudio.asc", "rpm/fedora/repodata/repomd.xml")
                if not (out / name).is_file()
            )

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            assert publish(out, URL, key, "--dist", dist).returncode == 0
    finally:
        stop.set()
        reader.join()
    assert lacking == []
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_what_is_published_no_more_is_gone(dist: Path, out: Path, key: str) -> None:
    assert publish(out, URL, key, "--dist", dist).returncode == 0
    assert publish(out, URL, key, "--dist", dist, SUITE).returncode == 0
    assert not (out / "rpm").exists()
    assert not (out / "xenaudio-fedora.repo").exists()


class TestARefusal:
    """Says what is wrong and what was expected, and leaves all as it was."""

    @pytest.fixture(autouse=True)
    def _published(self, dist: Path, out: Path, key: str) -> None:
        assert publish(out, URL, key, "--dist", dist).returncode == 0
        self.dist, self.out, self.key = dist, out, key

    def refused(self, *arguments: str, key: str | None = None, **environment: str) -> str:
        before = files(self.out)
        key = self.key if key is None else key
        done = publish(self.out, URL, key, "--dist", self.dist, *arguments, **environment)
        assert done.returncode == 1, done.stdout
        assert done.stdout.startswith("ci/publish: ")
        assert len(done.stdout.splitlines()) == 1, done.stdout
        assert files(self.out) == before
        assert [path.name for path in self.out.parent.iterdir()] == [self.out.name]
        return done.stdout

    def test_no_key(self) -> None:
        assert "XENAUDIO_SIGNING_KEY is not set" in self.refused(key="")

    def test_no_key_at_all_in_the_variable(self) -> None:
        assert "XENAUDIO_SIGNING_KEY is not a key" in self.refused(key="hello")

    def test_a_public_key(self) -> None:
        public = (self.out / "xenaudio.asc").read_text()
        assert "holds 0 secret keys, expected one" in self.refused(key=public)

    def test_two_keys(self, tmp_path: Path) -> None:
        other = throwaway_key(tmp_path / "other", kind="ed25519")
        assert "holds 2 secret keys, expected one" in self.refused(key=f"{self.key}\n{other}")

    def test_a_wrong_passphrase(self, tmp_path: Path) -> None:
        locked = throwaway_key(tmp_path / "locked", kind="ed25519", passphrase="open sesame")
        words = {"XENAUDIO_SIGNING_PASSPHRASE": "open barley"}
        assert "XENAUDIO_SIGNING_PASSPHRASE" in self.refused(key=locked, **words)

    def test_an_expired_key(self, tmp_path: Path) -> None:
        expired = throwaway_key(tmp_path / "expired", kind="ed25519", expires="seconds=1")
        listed = ["gpg", "--homedir", tmp_path / "expired", "--with-colons", "--list-keys"]
        while not must(*listed).startswith("pub:e:", must(*listed).index("pub:")):
            time.sleep(0.1)
        assert "cannot sign (expired" in self.refused(key=expired)

    def test_a_target_that_was_not_built(self) -> None:
        assert "ci/build-packages trixie makes it" in self.refused("trixie")

    def test_a_target_without_packages(self) -> None:
        (self.dist / "trixie").mkdir()
        assert f"{self.dist}/trixie has no package" in self.refused("trixie")

    def test_nothing_to_publish(self) -> None:
        shutil.rmtree(self.dist)
        assert f"{self.dist} has no packages" in self.refused()

    def test_a_target_of_both_kinds(self) -> None:
        (package,) = self.dist.glob("fedora/*.rpm")
        shutil.copy(package, self.dist / SUITE)
        assert "has .deb and .rpm files: expected one kind" in self.refused()

    def test_a_deb_that_is_not_what_was_built(self) -> None:
        (package,) = self.dist.glob(f"{SUITE}/*.deb")
        (self.dist / SUITE / "nothing_1.0-1_amd64.changes").write_text(
            f"Format: 1.8\nChecksums-Sha256:\n {'0' * 64} 1 {package.name}\nFiles:\n"
        )
        assert f"{package} is not what was built" in self.refused()

    def test_a_damaged_rpm(self) -> None:
        (package,) = self.dist.glob("fedora/*.rpm")
        flip(package, -1)
        assert package.name in self.refused()

    def test_a_folder_that_is_somebody_elses(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        (home / "letter").write_text("dear")
        done = publish(home, URL, self.key, "--dist", self.dist)
        assert done.returncode == 1
        assert f"{home} was not made by this" in done.stdout
        assert files(home) == {"letter": b"dear"}

    @pytest.mark.parametrize("url", ["packages.example.org", "https://example.org/", "ftp://x/y"])
    def test_an_address_that_is_none(self, url: str) -> None:
        before = files(self.out)
        done = publish(self.out, url, self.key, "--dist", self.dist)
        assert done.returncode == 2
        assert "expected https://..., http://... or file:///..." in done.stdout
        assert files(self.out) == before
