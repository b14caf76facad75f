# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/build-packages: what it builds is what Debian asks of packages, and fits one PulseAudio."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .container import base_image, build_image, built, container, must, run

SUITES = ("bookworm", "trixie")
RELEASES = {"bookworm": "deb12", "trixie": "deb13"}
PACKAGES = ["pulseaudio-modules-xen", "python3-xenaudio", "xenaudio-backend", "xenaudio-guest"]

each_suite = pytest.mark.parametrize("suite", SUITES)


def field(package: Path, name: str) -> str:
    return must("dpkg-deb", "--field", package, name).strip()


def package(suite: str, name: str) -> Path:
    (found,) = built(suite).glob(f"{name}_*.deb")
    return found


def content(package: Path) -> set[str]:
    """The paths of a package's files."""
    listed = must("dpkg-deb", "--contents", package).splitlines()
    return {line.split(maxsplit=5)[5].removeprefix(".") for line in listed if line[0] == "-"}


@each_suite
def test_a_source_package_and_four_binary_packages_are_built(suite: str) -> None:
    folder = built(suite)
    binaries = [path for path in folder.glob("*.deb") if "-dbgsym_" not in path.name]
    assert sorted(path.name.split("_")[0] for path in binaries) == PACKAGES
    (changes,) = folder.glob("*.changes")
    assert f"Distribution: {suite}\n" in changes.read_text()
    for path in folder.iterdir():
        assert path == changes or path.name in changes.read_text(), path
    (version,) = {field(path, "Version") for path in binaries}
    assert re.fullmatch(rf"\d+[.]\d+[.]\d+-\d+~{RELEASES[suite]}[+]1", version)


@each_suite
def test_every_feature_is_in(suite: str) -> None:
    needed = field(package(suite, "python3-xenaudio"), "Depends")
    for library in ("libxengnttab1", "libxenevtchn1", "libpulse0", "libsndfile1"):
        assert re.search(rf"\b{library}\b", needed), needed
    modules = {
        Path(path).name
        for path in content(package(suite, "pulseaudio-modules-xen"))
        if Path(path).parent.name == "modules"
    }
    assert modules > {f"module-xenpv-{kind}.so" for kind in ("detect", "sink", "source")}
    assert "libxengnttab1" in field(package(suite, "pulseaudio-modules-xen"), "Depends")


@each_suite
def test_the_modules_ask_for_the_pulseaudio_that_they_were_built_with(suite: str) -> None:
    query = ["dpkg-query", "--show", "--showformat", "${source:Upstream-Version}", "pulseaudio"]
    with container(build_image(suite)) as builder:
        version = builder.must(*query)
    modules = package(suite, "pulseaudio-modules-xen")
    needed = field(modules, "Depends").split(", ")
    assert f"pulseaudio (>= {version})" in needed
    assert f"pulseaudio (<< {version}.0~)" in needed
    # It is the folder's name, too.
    assert f"/usr/lib/pulse-{version}/modules/module-xenpv-detect.so" in content(modules)


@each_suite
def test_the_files_are_where_the_others_look_for_them(suite: str) -> None:
    backend = content(package(suite, "xenaudio-backend"))
    assert {
        "/etc/xenaudio/xenaudio.toml",
        "/usr/lib/sysusers.d/xenaudio-backend.conf",
        "/usr/lib/modules-load.d/xenaudio-backend.conf",
    } < backend
    # (Below /lib in bookworm, which is the same folder.)
    assert {
        "/lib/systemd/system/xenaudiod.service",
        "/lib/udev/rules.d/60-xenaudio-backend.rules",
    } <= {path.removeprefix("/usr") for path in backend}
    guest = content(package(suite, "xenaudio-guest"))
    assert {
        "/lib/systemd/system/xenaudio-guestd.service",
        "/lib/systemd/system/xenaudio-guestd.socket",
        "/lib/modprobe.d/xenaudio-guest.conf",
        "/lib/modules-load.d/xenaudio-guest.conf",
    } <= {path.removeprefix("/usr") for path in guest}
    command = content(package(suite, "python3-xenaudio"))
    assert {"/usr/bin/xenaudio", "/usr/share/man/man1/xenaudio.1.gz"} < command


@each_suite
def test_lintian_finds_no_error_and_no_warning(suite: str) -> None:
    # Of the suite's own lintian, without what is overridden (each with its reason).
    (changes,) = built(suite).glob("*.changes")
    options = ["--network=none", "--rm", f"--volume={built(suite)}:{built(suite)}:ro"]
    command = ["lintian", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=0"]
    done = run("podman", "run", *options, build_image(suite), *command, changes)
    assert done.returncode == 0, done.stdout


@each_suite
def test_autopkgtest_hears_sound_through_the_installed_packages(suite: str, tmp_path: Path) -> None:
    (changes,) = built(suite).glob("*.changes")
    command = ["autopkgtest", "-U", f"--output-dir={tmp_path / 'out'}", changes]
    done = run(*command, "--", "podman", base_image(suite))
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"^sound +PASS$", (tmp_path / "out/summary").read_text(), re.MULTILINE)
    said = (tmp_path / "out/sound-stdout").read_text()
    for way in ("played", "recorded"):
        assert re.search(rf"^{way}: \d+ frames, bit for bit$", said, re.MULTILINE), said


def test_both_suites_packages_are_made_of_one_upstream_tarball() -> None:
    ((one,), (other,)) = (built(suite).glob("*.orig.tar.xz") for suite in SUITES)
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
