# SPDX-License-Identifier: LGPL-2.1-or-later
"""Source tarballs of packages (ci/dist): the tree's, and PulseAudio's headers for a Debian suite.

Made twice of the same commit and the same PulseAudio, they are the same octets.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import lzma
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pulsecore
from pulsecore import DistError
from tarball import Entry, Files, read, replace_file, replace_folder, tar_xz

TREE = Path(__file__).resolve().parents[1]


def git(*arguments: str) -> bytes:
    """Run git in the tree; return what it printed. DistError if it fails."""
    command = ["git", "-c", "safe.directory=*", "-C", str(TREE), *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise DistError("git is missing: the tree's tarball is made of its last commit") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise DistError(f"the tree's tarball is made of its last commit, and git says: {said}")
    return done.stdout


def source_date() -> int:
    """Return the time that the tree's files get: SOURCE_DATE_EPOCH's, or the last commit's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return int(git("log", "-1", "--format=%ct"))
    if not re.fullmatch(r"[0-9]+", given):
        raise DistError(f"SOURCE_DATE_EPOCH={given}: expected seconds since 1970")
    return int(given)


def upstream() -> Files:
    """Return the files of the last commit. DistError where there is none."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--prefix=tree/", "HEAD"))) as archive:
        held = read(archive)
    changed = source_date()
    if left_out := git("status", "--porcelain", "--untracked-files=no").decode().splitlines():
        print(f"dist: {len(left_out)} changed files are not committed: as in HEAD", file=sys.stderr)
    return {name: Entry(file.text, changed, file.executable) for name, file in held.items()}


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


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep others out of `folder` meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def headers(suite: str, mirror: str | None, only_if_new: bool) -> Files | None:
    """Take a suite's private headers, and leave a copy in build/pulsecore-SUITE.

    None when `only_if_new` and the copy is there for the installed libpulse. DistError.
    """
    state, copy = TREE / "build/dist" / suite, TREE / "build" / f"pulsecore-{suite}"
    roots = pulsecore.wanted(TREE / "csrc/pulse")
    made_by = Path(pulsecore.__file__).read_text()
    wish = "\n".join([installed_libpulse(), *sorted(roots), made_by])
    stamp, mark = state / "made-for", hashlib.sha256(wish.encode()).hexdigest()
    with only_one(state):
        if only_if_new and copy.is_dir() and stamp.is_file() and stamp.read_text() == mark:
            return None
        print(f"dist: taking PulseAudio's headers from the source of {suite}", file=sys.stderr)
        source = pulsecore.fetch(suite, mirror or pulsecore.mirror(), state)
        with tarfile.open(source) as archive:
            files = pulsecore.component(read(archive), roots)
        replace_folder(copy, files)
        stamp.write_text(mark)
        for old in (state / "source").iterdir():
            if old != source:
                old.unlink()
    return files


def write(path: Path, content: bytes, what: str) -> None:
    """Write a tarball, and say so."""
    replace_file(path, content)
    print(f"{path.relative_to(TREE)}: {what}, sha256 {hashlib.sha256(content).hexdigest()}")


def main(arguments: list[str]) -> int:
    """Make what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ci/dist",
        description="Make the tarballs that packages are built from: "
        "dist/xenaudio-VERSION.tar.xz of the tree's last commit, and "
        "dist/SUITE/xenaudio_VERSION.orig-pulsecore.tar.xz, PulseAudio's private headers from that "
        "Debian suite's own PulseAudio source; and a copy of these in build/pulsecore-SUITE, where "
        "a developer's build finds them. Files have the time of the commit, or SOURCE_DATE_EPOCH.",
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
        version, tree = project_version(), {} if args.headers else upstream()
        component = headers(suite, args.mirror, only_if_new=args.headers)
        if args.headers or component is None:
            return 0
        write(
            TREE / f"dist/xenaudio-{version}.tar.xz",
            tar_xz(f"xenaudio-{version}", tree),
            f"{len(tree)} files",
        )
        pulse = component["version"].text.decode().strip()
        write(
            TREE / f"dist/{suite}/xenaudio_{version}.orig-pulsecore.tar.xz",
            tar_xz("pulsecore", component),
            f"PulseAudio {pulse}, {len(component) - 2} headers",
        )
    except (DistError, OSError, tarfile.TarError, lzma.LZMAError) as error:
        print(f"ci/dist: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
