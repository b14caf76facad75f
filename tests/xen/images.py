# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes what is booted, from Debian packages and this tree.

    xen, vmlinux   the hypervisor, and the kernel of dom0 and of the guests
    root.ext2      a Debian root, for dom0 and the guests alike
    initramfs      domain/ and the kernel modules it needs, for dom0 and the guests alike
    tree.ext4      the tree being tested (for dom0 and those guests that get it), and what xl boots

Packages come from the machine's own apt sources. What is made of packages is kept, for all clones
of this tree, in ~/.cache/xenaudio (XDG_CACHE_HOME), until nobody has used it for a month; the rest
is made in build/xen each time, which takes seconds.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = TREE / "build/xen"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenaudio"
KEPT = 30 * 86400
"""Seconds after its last use for which a base is kept."""

ROOT_PACKAGES = [
    "python3",  # the agent, and our code
    "python3-cffi-backend",  # our extension's other half
    *("libsndfile1", "libpulse0"),  # our extension
    "alsa-utils",  # aplay and arecord, as the stock guest's user has them
    "kmod",
    "xenstore-utils",
    "pulseaudio",  # our modules' daemon, and its clients
    "pulseaudio-utils",
]
MODULES = [
    # dom0's disk, and what the initramfs puts together
    *("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "overlay"),
    # how the tests reach dom0
    *("virtio_console", "9pnet_virtio", "9p"),
    # Xen
    *("xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs", "xen-blkback", "xen-blkfront"),
    # sound
    "snd_xen_front",
]
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"]


class ImageError(Exception):
    """Something that is needed is missing, or a tool failed."""


@dataclass(frozen=True)
class Images:
    """The files that are booted."""

    xen: Path
    vmlinux: Path
    initramfs: Path
    root: Path
    tree: Path


def run(argv: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a tool. Return what it printed; ImageError with it when it fails."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ImageError(f"{argv[0]} is not installed: run ci/setup test") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise ImageError(f"{' '.join(map(str, argv))}: status {done.returncode}\n{said}")
    return done.stdout


def make() -> Images:
    """Make all images, once for all processes of a test run. ImageError."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    made_for = BUILD / "made-for"
    base = _base()
    with _locked(BUILD / "lock"):
        if not (run_id and made_for.exists() and made_for.read_text() == run_id):
            made_for.unlink(missing_ok=True)
            _make_initramfs(base)
            _make_tree(base)
            made_for.write_text(run_id)
    return Images(
        base / "xen", base / "vmlinux", BUILD / "initramfs", base / "root.ext2", BUILD / "tree.ext4"
    )


def _base() -> Path:
    """Return the folder of what depends on packages only; makes it when it is not there."""
    packages = _packages()
    base = CACHE / _key(packages)
    with _locked(CACHE / "lock"):
        for other in CACHE.glob("base-*"):
            if time.time() - other.stat().st_mtime > KEPT:
                shutil.rmtree(other)
        if not base.exists():
            _make_base(base, packages)
        os.utime(base)
    return base


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Packages:
    kernel: str
    hypervisor: str
    root: list[str]
    versions: str


def _depends(package: str, pattern: str) -> str:
    found = re.search(rf"Depends: ({pattern})", run(["apt-cache", "depends", package]))
    if found is None:
        raise ImageError(f"apt knows no {package} that depends on {pattern}: run apt-get update")
    return found[1]


def _packages() -> _Packages:
    """Find this Debian's packages, by its metapackages, and their versions."""
    kernel = _depends("linux-image-amd64", r"linux-image-\S+")
    hypervisor = _depends("xen-system-amd64", r"xen-hypervisor-\d\S+")
    utils = _depends("xen-system-amd64", r"xen-utils-\d\S+")
    root = [*ROOT_PACKAGES, utils]
    policy = run(["apt-cache", "policy", kernel, hypervisor, "busybox-static", *root])
    versions = "\n".join(re.findall(r"^\S+:$|^ +Candidate: .*", policy, re.MULTILINE))
    return _Packages(kernel, hypervisor, root, versions)


def _key(packages: _Packages) -> str:
    made_by = f"{packages.versions} {LEFT_OUT} {MODULES}"
    return f"base-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}"


def _make_base(base: Path, packages: _Packages) -> None:
    """Make what depends on packages only."""
    print("xen images: from Debian packages, a minute or two", file=sys.stderr, flush=True)
    new = CACHE / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    names = [packages.kernel, packages.hypervisor, "busybox-static"]
    run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", *names], cwd=new)
    for package in new.glob("*.deb"):
        run(["dpkg-deb", "-x", package, new / "unpacked"])
        package.unlink()
    unpacked = new / "unpacked"
    (hypervisor,) = unpacked.glob("boot/xen-*.gz")
    (new / "xen").write_bytes(gzip.decompress(hypervisor.read_bytes()))
    (kernel,) = unpacked.glob("boot/vmlinuz-*")
    (new / "vmlinux").write_bytes(_unpack_kernel(kernel.read_bytes()))
    shutil.copy(unpacked / "bin/busybox", new / "busybox")
    _keep_modules(unpacked, new / "modules", kernel.name.removeprefix("vmlinuz-"))
    shutil.rmtree(unpacked)
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    include = f"--include={','.join(packages.root)}"
    run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=ext2", include, *left_out),
            *("--dpkgopt=force-unsafe-io", *_apt_options()),
            *(_suite(), str(new / "root.ext2"), *map(str, _sources())),
        ]
    )
    new.rename(base)


def _suite() -> str:
    found = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise ImageError("/etc/os-release names no VERSION_CODENAME: this is not a Debian release")
    return found[1]


def _sources() -> list[Path]:
    """Return this machine's apt sources of its own release."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    own = re.compile(rf"^(Suites:|deb\s)(.*\s)?{_suite()}\s", re.MULTILINE)
    found = [f for f in files if f.suffix in (".list", ".sources") and f.exists()]
    return [f for f in found if own.search(f.read_text())]


def _apt_options() -> list[str]:
    """Return apt's settings for reaching them: proxies, TLS, what it makes of old release files."""
    names = "Check-Valid-Until|Check-Date|http|https|ForceIPv4"
    wanted = rf'^(Acquire::(?:{names})[A-Za-z:-]* ".+";)$'
    settings = re.findall(wanted, run(["apt-config", "dump"]), re.MULTILINE)
    return [f"--aptopt={setting}" for setting in settings]


def _unpack_kernel(image: bytes) -> bytes:
    """Return the ELF file in a bzImage, so that no emulated CPU must unpack it at each boot.

    A kernel that is packed otherwise than with xz is left as it is; Xen and xl unpack it.
    """
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    if image[start : start + 6] != b"\xfd7zXZ\0":
        return image
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(image[start : start + length])


def _keep_modules(unpacked: Path, modules: Path, version: str) -> None:
    """Copy the modules that are used, and those that they need, with modprobe's tables."""
    whole = unpacked / "lib/modules" / version
    run(["depmod", "-b", unpacked, version])
    needs = {}
    for line in (whole / "modules.dep").read_text().splitlines():
        path, others = line.split(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = [path, *others.split()]
    kept = modules / "lib/modules" / version
    for name in MODULES:
        if name.replace("-", "_") not in needs:
            raise ImageError(f"the kernel {version} has no module {name}")
        for path in needs[name.replace("-", "_")]:
            (kept / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(whole / path, kept / path)
    for table in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(whole / table, kept / table)
    run(["depmod", "-b", modules, version])


def _make_initramfs(base: Path) -> None:
    stage = BUILD / "initramfs.d"
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(base / "modules", stage)
    shutil.copytree(HERE / "domain", stage / "harness", ignore=_not_source)
    for folder in ("bin", "proc", "sys", "dev"):
        (stage / folder).mkdir()
    shutil.copy(base / "busybox", stage / "bin/busybox")
    (stage / "bin/sh").symlink_to("busybox")
    (stage / "harness/init").rename(stage / "init")
    names = "\n".join(str(path.relative_to(stage)) for path in sorted(stage.rglob("*")))
    made = subprocess.run(
        ["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"],
        cwd=stage,
        input=names.encode(),
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        raise ImageError(f"cpio: {made.stderr.decode()}")
    (BUILD / "initramfs").write_bytes(made.stdout)
    shutil.rmtree(stage)


def _install_modules(root: Path) -> None:
    """Install PulseAudio's modules, as ci/setup has built them, below a folder."""
    built = TREE / "build/modules"
    if not built.exists():
        raise ImageError("PulseAudio's modules are not built: run ci/setup test")
    run(["meson", "install", "-C", built, "--no-rebuild", "--destdir", root])


def _make_tree(base: Path) -> None:
    if not (TREE / "xenaudio/core/_core.abi3.so").exists():
        raise ImageError("the extension is not built: run ci/setup test")
    stage = BUILD / "tree.d"
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(TREE / "xenaudio", stage / "xenaudio", ignore=_not_source)
    _install_modules(stage / "root")
    # The image is read-only, and an emulated CPU compiles slowly.
    where = ["-s", str(stage), "-p", "/opt/xenaudio"]
    python = ["/usr/bin/python3", "-m", "compileall", "-q"]
    run([*python, "--invalidation-mode=unchecked-hash", *where, stage])
    (stage / "boot").mkdir()
    shutil.copy(base / "vmlinux", stage / "boot")
    shutil.copy(BUILD / "initramfs", stage / "boot")
    size = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
    image = BUILD / "tree.ext4"
    image.unlink(missing_ok=True)
    room = f"{size // 1024 * 11 // 10 + 4096}k"
    format = ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal"]
    run([*format, "-d", stage, image, room])
    shutil.rmtree(stage)


def _not_source(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}
