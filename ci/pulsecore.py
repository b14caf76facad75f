# SPDX-License-Identifier: LGPL-2.1-or-later
"""The component tarball of PulseAudio's private headers, for one Debian suite (ci/dist).

No distribution ships the headers that a PulseAudio module is compiled with, and their structures
change between versions. So they are taken from the distribution's own PulseAudio source, whenever a
package or a developer's build is made, and never kept in the tree. Which ones: those that the
tree's #include lines name, and those that these include in their turn.

apt fetches the source with a configuration of its own (nothing of the system's is changed, no root
is needed), from the mirror that the system uses, and verifies it by the distribution's signatures.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import lzma
import os
import posixpath
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Where PulseAudio's source has its headers, and what else of it goes into the component.
HEADERS = "src/"
VERSION = ".tarball-version"
LICENCE = "LGPL"

INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.MULTILINE)


class DistError(Exception):
    """Why there can be no component, for people."""


@dataclass(frozen=True)
class Entry:
    """One file of an archive: what it says, and when it was last changed (seconds, UTC)."""

    text: bytes
    changed: int


Files = Mapping[str, Entry]


def included(text: bytes) -> Iterator[tuple[str, bool]]:
    """Yield each name that a C source includes, and whether in quotes."""
    for bracket, name in INCLUDE.findall(text):
        yield name.decode(), bracket == b'"'


def wanted(folder: Path) -> set[str]:
    """Return the headers of pulsecore that the C sources in `folder` include."""
    return {
        name
        for path in sorted(folder.glob("*.[ch]"))
        for name, _ in included(path.read_bytes())
        if name.startswith("pulsecore/")
    }


def closure(roots: Iterable[str], files: Files) -> list[str]:
    """Return `roots` and all of pulsecore that they include, sorted; DistError for a lacking one.

    What else they include is public, of libpulse's or the system's.
    """
    found: set[str] = set()
    waiting = [(root, "a module") for root in sorted(roots)]
    while waiting:
        name, by = waiting.pop()
        if name in found:
            continue
        if HEADERS + name not in files:
            raise DistError(f"{by} includes {name}, which is not in this PulseAudio's source")
        found.add(name)
        for other, quoted in included(files[HEADERS + name].text):
            beside = posixpath.normpath(posixpath.join(posixpath.dirname(name), other))
            if quoted and HEADERS + beside in files:
                waiting.append((beside, name))
            elif other.startswith("pulsecore/"):
                waiting.append((other, name))
    return sorted(found)


def read_source(archive: Path) -> Files:
    """Return the files of a source archive by their names below its top folder."""
    files = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and (held := tar.extractfile(member)) is not None:
                name = member.name.removeprefix("./").partition("/")[2]
                files[name] = Entry(held.read(), int(member.mtime))
    return files


def component(files: Files, roots: Iterable[str]) -> Files:
    """Return the component's files: the headers, their version and their licence."""
    for name in (VERSION, LICENCE):
        if name not in files:
            raise DistError(f"this is not a released PulseAudio source: it has no {name}")
    version = files[VERSION]
    return {
        "version": Entry(version.text.strip() + b"\n", version.changed),
        LICENCE: files[LICENCE],
        **{name: files[HEADERS + name] for name in closure(roots, files)},
    }


def tarball(files: Files) -> bytes:
    """Return `files` as a .tar.xz: the same octets whenever and by whomever it is made."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, entry in sorted(files.items()):
            member = tarfile.TarInfo(f"pulsecore/{name}")
            member.size, member.mtime, member.mode = len(entry.text), entry.changed, 0o644
            tar.addfile(member, io.BytesIO(entry.text))
    return lzma.compress(plain.getvalue(), preset=9)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.replace(path)


def replace_folder(folder: Path, files: Files) -> None:
    """Write a folder of files whole; what it held before is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pulsecore-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        for name, entry in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(entry.text)
            os.utime(new / name, (entry.changed, entry.changed))
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def run_apt(
    arguments: list[str], configuration: Path | None = None, folder: Path | None = None
) -> str:
    """Run one of apt's programs, in `folder`; returns what it printed. DistError if it fails."""
    setting = {"APT_CONFIG": str(configuration)} if configuration else {}
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env={**os.environ, **setting, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise DistError(f"{arguments[0]} is missing: this needs Debian's apt") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
        raise DistError(f"{shlex.join(arguments)}: {' '.join(said) or done.stderr.strip()}")
    return done.stdout


def mirror() -> str:
    """Return the address of the Debian archive that the system installs from."""
    form = "$(ORIGIN) $(COMPONENT) $(REPO_URI)"
    for line in run_apt(["apt-get", "indextargets", "--format", form]).splitlines():
        origin, _, rest = line.partition(" ")
        section, _, address = rest.partition(" ")
        if origin == "Debian" and section == "main" and "security" not in address:
            return address
    raise DistError("apt has no Debian archive here (apt-get update not run yet?): give --mirror")


def fetch(suite: str, address: str, folder: Path) -> Path:
    """Fetch a suite's PulseAudio source archive into `folder`; returns its path.

    Only the upstream archive: Debian's patches have no part in the headers' layout, and a mirror
    that has moved on has them no longer, while the archive stays.
    """
    if not KEYRING.is_file():
        raise DistError(f"{KEYRING} is missing: install debian-archive-keyring")
    for name in ("lists/partial", "cache/archives/partial", "source"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(f"deb-src [signed-by={KEYRING}] {address} {suite} main\n")
    (folder / "status").touch()
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list";\n'
        'Dir::Etc::sourceparts "-";\n'
        f'Dir::State::lists "{folder}/lists";\n'
        f'Dir::State::status "{folder}/status";\n'
        f'Dir::Cache "{folder}/cache";\n'
        # apt's own user may not write here.
        'APT::Sandbox::User "";\n'
        'APT::Get::AllowUnauthenticated "false";\n'
        'Acquire::AllowInsecureRepositories "false";\n'
        'Acquire::Retries "3";\n'
    )
    run_apt(["apt-get", "-q", "-y", "-o", "APT::Update::Error-Mode=any", "update"], configuration)
    source = ["apt-get", "-q", "-y", "source", "--only-source", "--tar-only"]
    listed = run_apt([*source, "--print-uris", "pulseaudio"], configuration)
    archives: list[str] = re.findall(
        r"^'[^']+' (\S+[.]orig[.]tar[.]\w+) \d+ \w+:\w+$", listed, re.MULTILINE
    )
    if len(archives) != 1:
        raise DistError(f"{suite}: {len(archives)} PulseAudio source archives, expected one")
    run_apt([*source, "--download-only", "pulseaudio"], configuration, folder / "source")
    return folder / "source" / archives[0]


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep others out of `folder` meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def this_suite() -> str:
    """Return the codename of this machine's Debian."""
    system = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    name = system.get("VERSION_CODENAME", "").strip('"')
    if not name:
        raise DistError("/etc/os-release names no VERSION_CODENAME: say which SUITE is meant")
    return name


def project_version() -> str:
    """Return the version of xenaudio."""
    found = re.search(r'^version = "(.*)"$', (TREE / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        raise DistError('pyproject.toml: no line of the form: version = "1.2.3"')
    return found[1]


def installed_libpulse() -> str:
    """Return the version of libpulse that a build here would use, or an empty string."""
    asked = ["pkg-config", "--modversion", "libpulse"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main(arguments: list[str]) -> int:
    """Make what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ci/dist",
        description="Make dist/SUITE/xenaudio_VERSION.orig-pulsecore.tar.xz, PulseAudio's private "
        "headers for the source package, from that Debian suite's own PulseAudio source; and a "
        "copy in build/pulsecore-SUITE, where a developer's build finds it.",
    )
    parser.add_argument(
        "suite", nargs="?", metavar="SUITE", help="bookworm, trixie, sid, ... (this machine's)"
    )
    parser.add_argument(
        "--mirror", metavar="URL", help="Debian archive to use (the one of this machine's apt)"
    )
    parser.add_argument(
        "--headers",
        action="store_true",
        help="only the copy, and nothing when it is there for the installed libpulse",
    )
    args = parser.parse_args(arguments)
    try:
        suite = args.suite or this_suite()
        if not re.fullmatch(r"[a-z][a-z0-9-]*", suite):
            raise DistError(f"{suite!r} is not a suite's name: bookworm, trixie, sid, ...")
        build = TREE / "build"
        state, copy = build / "dist" / suite, build / f"pulsecore-{suite}"
        roots = wanted(TREE / "csrc/pulse")
        wish = "\n".join([installed_libpulse(), *sorted(roots), Path(__file__).read_text()])
        stamp, mark = state / "made-for", hashlib.sha256(wish.encode()).hexdigest()
        with only_one(state):
            done = copy.is_dir() and stamp.is_file() and stamp.read_text() == mark
            if args.headers and done:
                return 0
            print(f"dist: taking PulseAudio's headers from the source of {suite}", file=sys.stderr)
            source = fetch(suite, args.mirror or mirror(), state)
            files = component(read_source(source), roots)
            replace_folder(copy, files)
            stamp.write_text(mark)
            for old in (state / "source").iterdir():
                if old != source:
                    old.unlink()
            if args.headers:
                return 0
            path = TREE / "dist" / suite / f"xenaudio_{project_version()}.orig-pulsecore.tar.xz"
            content = tarball(files)
            replace_file(path, content)
    except (DistError, OSError, tarfile.TarError, lzma.LZMAError) as error:
        print(f"ci/dist: {error}", file=sys.stderr)
        return 1
    version = files["version"].text.decode().strip()
    print(path.relative_to(TREE))
    print(f"PulseAudio {version}, {len(files) - 2} headers")
    print(f"sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
