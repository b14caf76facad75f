# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `lint` part of ci/test: each check of the sources' form is one test."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pulsecore import DistError
from runner import Result, command, tail
from sourcedist import this_suite

TREE = Path(__file__).resolve().parents[1]

# What a build or a test run leaves in the tree: for a tree without git, which would know.
UNTRACKED = {".git", ".venv", "build", "dist", "demo-out", "__pycache__"}

C_FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-DXA_HAVE_XEN=1",
    "-DXA_HAVE_PULSE=1",
    "-Icsrc",
    "-Itests/csrc",
]

PULSE = Path("csrc/pulse")

SPDX = "SPDX-License-Identifier: LGPL-2.1-or-later"

# A tree that names one of these works only where it was written. (The dots are written as classes,
# so that this file passes its own check.)
FOREIGN = {
    "a package registry's host": re.compile(
        r"\b(pypi|pythonhosted|npmjs|crates|rubygems|docker|quay|ghcr)[.](org|io|com)\b"
        r"|\b(deb|security|ftp|snapshot|archive|mirrors?)[.][\w.-]*(debian|ubuntu)[.](org|com)\b"
        r"|\bproxy[.]golang[.]org\b"
    ),
    "a developer's own folder": re.compile(
        r"(?<![\w./~$}-])/(?:work|workspace|home|Users|root)/[\w.]"
    ),
}


def sources() -> list[Path]:
    """Return the tree's files relative to it: git's, or all but what builds leave there."""
    if (TREE / ".git").exists() and shutil.which("git"):
        git = ["git", "-c", "safe.directory=*", "-C", str(TREE)]
        status, listing = command([*git, "ls-files", "-z", "-c", "-o", "--exclude-standard"])
        if status == 0:
            names = (Path(name) for name in listing.split("\0") if name)
            return sorted(name for name in names if (TREE / name).is_file())
    found: list[Path] = []
    folders = [TREE]
    while folders:
        for path in folders.pop().iterdir():
            if path.name in UNTRACKED or path.name.endswith(("_cache", ".egg-info", ".so")):
                continue
            if path.is_dir():
                folders.append(path)
            elif path.relative_to(TREE) != Path("xenaudio/core/_core.c"):
                found.append(path.relative_to(TREE))
    return sorted(found)


def text_of(path: Path) -> str | None:
    """Return a file's text, or None for one that is empty or not text."""
    try:
        return (TREE / path).read_text(encoding="utf-8") or None
    except UnicodeDecodeError:
        return None


# What Debian's tools read, and what a user of the packages does: no room for a licence line.
DEBIAN = Path("packaging/debian")
WITHOUT_LICENCE = {
    Path("LICENSE"),
    *(DEBIAN / name for name in ("changelog", "copyright", "source/format")),
}


def is_data(path: Path) -> bool:
    """Whether a file is test data, which has no room for a licence line."""
    return "corpus" in path.parts or path.suffix in {".json", ".csv", ".wav", ".png"}


def without_licence(paths: list[Path]) -> list[str]:
    """Return the files that do not begin with their licence."""
    return [
        str(path)
        for path in paths
        if not is_data(path)
        and path not in WITHOUT_LICENCE
        and path.suffix != ".Debian"
        and (text := text_of(path)) is not None
        and SPDX not in "\n".join(text.splitlines()[:3])
    ]


def foreign_names(paths: list[Path]) -> list[str]:
    """Return `file:line: what` for each name that only means something on one machine."""
    return [
        f"{path}:{number}: names {what}: {line.strip()}"
        for path in paths
        if not is_data(path) and (text := text_of(path)) is not None
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FOREIGN.items()
        if pattern.search(line)
    ]


def shell_scripts(paths: list[Path]) -> list[str]:
    """Return the files that a shell runs."""
    shebang = re.compile(r"#!\S*(/env )?\S*\b(ba|da)?sh\b")
    return [str(p) for p in paths if (text := text_of(p)) is not None and shebang.match(text)]


def _of_command(name: str, argv: list[str]) -> Result:
    status, output = command(argv)
    if status:
        return Result(name, "failed", f"{argv[0]}: exit status {status}\n{tail(output)}")
    return Result(name, "passed")


def _ansible_lint() -> Result:
    """Check the role by ansible/.ansible-lint: the profile `production`, without a network."""
    program = str(Path(sys.executable).with_name("ansible-lint"))
    keep = f"ANSIBLE_HOME={TREE / 'build/ansible'}"  # not the user's own folder
    return _of_command("ansible-lint", ["env", "-C", "ansible", keep, program, "--nocolor", "."])


def _of_findings(name: str, findings: list[str]) -> Result:
    if findings:
        return Result(name, "failed", f"{len(findings)} found\n" + "\n".join(findings))
    return Result(name, "passed")


def pulse_headers() -> Path | None:
    """Return the folder of PulseAudio's private headers that ci/setup made, if it could."""
    try:
        folder = Path("build") / f"pulsecore-{this_suite()}"
    except (DistError, OSError):
        return None
    return folder if (TREE / folder / "version").is_file() else None


def c_flags(file: str) -> list[str]:
    """Return what a C file is compiled with."""
    path = Path(file)
    headers = pulse_headers()
    if path.parent != PULSE or headers is None:
        return C_FLAGS
    version = (TREE / headers / "version").read_text().strip()
    flags = [f"-I{PULSE}", f"-isystem{headers}", f'-DPACKAGE_VERSION="{version}"']
    return [*C_FLAGS, *flags, f"-DPA_MODULE_NAME={path.stem.replace('-', '_')}"]


def _clang_tidy(files: list[str]) -> Result:
    def check(file: str) -> str:
        status, output = command(["clang-tidy", "--quiet", file, "--", *c_flags(file)])
        return tail(output) if status else ""

    with ThreadPoolExecutor(2) as pool:
        return _of_findings("clang-tidy", [found for found in pool.map(check, files) if found])


def lint() -> Iterator[Result]:
    """Yield one result for each linter."""
    paths = sources()
    c_files = [str(path) for path in paths if path.suffix == ".c"]
    headers = [str(path) for path in paths if path.suffix == ".h"]
    ruff, mypy = (str(Path(sys.executable).with_name(tool)) for tool in ("ruff", "mypy"))
    yield _of_command("ruff check", [ruff, "check", "--output-format=concise", "."])
    yield _of_command("ruff format", [ruff, "format", "--check", "."])
    yield _of_command("mypy --strict", [mypy, "--strict"])
    yield _of_command(
        "clang-format",
        ["clang-format", "--dry-run", "-Werror", "--ferror-limit=3", *c_files, *headers],
    )
    if pulse_headers() is None:
        reason = "PulseAudio's private headers are not here (ci/dist --headers)"
        yield Result(f"clang-tidy of {PULSE}", "skipped", reason)
        c_files = [file for file in c_files if Path(file).parent != PULSE]
    yield _clang_tidy(c_files)
    yield _ansible_lint()
    yield _of_command("shellcheck", ["shellcheck", *shell_scripts(paths)])
    yield _of_findings("licence lines", without_licence(paths))
    yield _of_findings("names of one machine", foreign_names(paths))
