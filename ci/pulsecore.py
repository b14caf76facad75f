# SPDX-License-Identifier: LGPL-2.1-or-later
"""PulseAudio's private headers, from a Debian suite's own PulseAudio source (ci/dist).

No distribution ships the headers that a PulseAudio module is compiled with, and their structures
change between versions. So they are taken from the distribution's own PulseAudio source, whenever a
package or a developer's build is made, and never kept in the tree. Which ones: those that the
tree's #include lines name, and those that these include in their turn.

apt fetches the source with a configuration of its own (nothing of the system's is changed, no root
is needed), from the mirror that the system uses, and verifies it by the distribution's signatures.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tarball import Entry, Files

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Where PulseAudio's source has its headers, and what else of it goes into the component.
HEADERS = "src/"
VERSION = ".tarball-version"
LICENCE = "LGPL"

INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.MULTILINE)


class DistError(Exception):
    """Why there can be no component, for people."""


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
