# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes what is booted, from Debian packages and this tree.

    xen, vmlinux   the hypervisor, and the kernel of dom0 and of the guests
    root.ext2      a Debian root, for dom0 and the guests alike
    initramfs      domain/ and the kernel modules it needs, for dom0 and the guests alike
    ours.ext2      what the installation of our own packages adds to that root, for dom0 and those
                   guests that get it; and what xl boots

Debian's packages come from the machine's own apt sources, ours from ci/build-packages, which builds
them of the tree's last commit. What is made of Debian's alone is kept, for all clones of this tree,
in ~/.cache/xenaudio (XDG_CACHE_HOME), until nobody has used it for a month; the rest is in
build/xen, and made again when a package, or domain/, has changed.
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
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TREE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = TREE / "build/xen"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenaudio"
KEPT = 30 * 86400
"""Seconds after its last use for which a base is kept."""

ROOT_PACKAGES = [
    "python3",  # the agent
    "alsa-utils",  # aplay and arecord, as the stock guest's user has them
    "kmod",
    "xenstore-utils",
    # what our packages depend on (with xen-utils' libraries): they are installed without a network
    *("python3-cffi-backend", "libsndfile1", "libpulse0"),
    *("udev", "systemd-standalone-sysusers", "pulseaudio"),
    "pulseaudio-utils",  # PulseAudio's clients
]
OUR_PACKAGES = [
    *("python3-xenaudio", "xenaudio-backend"),
    *("xenaudio-guest", "pulseaudio-modules-xen"),
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
    ours: Path


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
            _make_ours(base)
            made_for.write_text(run_id)
    return Images(
        base / "xen", base / "vmlinux", BUILD / "initramfs", base / "root.ext2", BUILD / "ours.ext2"
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
            *("mmdebstrap", "--quiet", "--variant=minbase", include, *left_out),
            *("--dpkgopt=force-unsafe-io", *_apt_options()),
            *(_suite(), str(new / "root.tar"), *map(str, _sources())),
        ]
    )
    _make_file_system(new / "root.tar", new / "root.ext2")
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


def _make_ours(base: Path) -> None:
    """Make the file system of what our packages add, if they are others, and of what xl boots."""
    packages = _our_packages()
    made_of = hashlib.sha256(b"".join(package.read_bytes() for package in packages))
    added = BUILD / f"{base.name}-{made_of.hexdigest()[:16]}.tar"
    if not added.exists():
        for other in BUILD.glob("base-*.tar"):
            other.unlink()
        _install(base, packages, added)
    whole = BUILD / "ours.tar"
    shutil.copy(added, whole)
    with tarfile.open(whole, "a") as tar:
        tar.add(base / "vmlinux", "./boot/vmlinux")
        tar.add(BUILD / "initramfs", "./boot/initramfs")
    _make_file_system(whole, BUILD / "ours.ext2")
    whole.unlink()


def _our_packages() -> list[Path]:
    """Return our packages of this Debian release, of the tree's last commit."""
    run([TREE / "ci/build-packages", "--if-needed", _suite()])
    folder = TREE / "dist" / _suite()
    return [package for name in OUR_PACKAGES for package in folder.glob(f"{name}_*.deb")]


def _install(base: Path, packages: Sequence[Path], added: Path) -> None:
    """Have apt install packages in the Debian root; `added` becomes what that adds or changes."""
    changed = r"find . -xdev -path ./tmp -prune -o \( -type d -o -cnewer tmp/before \) -print0"
    script = f"""
        touch /tmp/before && sleep 1 && apt-get -q -y install /tmp/*.deb &&
        {changed} |
        tar --no-recursion --null -T - -cf /tmp/changed.tar
    """
    changed_tar = BUILD / "changed.tar"
    run(
        [
            *("mmdebstrap", "--quiet", "--variant=custom", "--format=null", "--skip=update"),
            *("--dpkgopt=force-unsafe-io", f"--setup-hook=tar-in {base}/root.tar /"),
            f"--customize-hook=copy-in {' '.join(map(str, packages))} /tmp",
            f"--customize-hook=chroot $1 sh -c '{script}'",
            f"--customize-hook=download /tmp/changed.tar {changed_tar}",
            *(_suite(), "-", "deb file:/nowhere ./"),
        ]
    )
    with tarfile.open(changed_tar) as tar:
        members = [(PurePosixPath(member.name), member) for member in tar]
        # A folder that a layer has no file in is one more to look into, at each path through it.
        kept = {PurePosixPath("boot")}
        kept.update(*([path, *path.parents] for path, member in members if not member.isdir()))
        with tarfile.open(BUILD / "added.tar", "w") as new:
            for path, member in members:
                if path in kept:
                    new.addfile(member, tar.extractfile(member) if member.isreg() else None)
    changed_tar.unlink()
    (BUILD / "added.tar").rename(added)


def _make_file_system(archive: Path, image: Path) -> None:
    """Make an ext2 file system of a tar archive."""
    with tarfile.open(archive) as tar:
        sizes = [member.size for member in tar]
    blocks = sum(size // 1024 + 1 for size in sizes) * 21 // 20 + 4096
    size = ["-B", "1024", "-b", str(blocks), "-N", str(len(sizes) + 1024)]
    image.unlink(missing_ok=True)
    said = run(["sh", "-c", 'exec genext2fs "$@" 2>&1', "sh", *size, "-a", archive, image])
    if "genext2fs:" in said:  # of a file that it leaves out it only tells
        raise ImageError(f"{image}:\n{said[-3000:]}")


def _not_source(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}
