# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts of ci/test: what is built and run for each, and how its tests are counted.

Everything that a part writes goes to build/ (logs and reports to build/test/).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lint import lint, pulse_headers, sources
from runner import Part, Result, command, require, run, tail

TREE = Path(__file__).resolve().parents[1]
BUILD = Path("build")
LOGS = BUILD / "test"

COVERAGE_FLOOR = 95  # per cent of the lines of csrc/sndif

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@functools.cache
def steady_layout() -> list[str]:
    """Return the command prefix under which these compilers' sanitizers start reliably.

    Their shadow memory collides now and then with a strongly randomised layout, so it is made a
    fixed one where the system allows that (some containers do not).
    """
    fixed = ["setarch", platform.machine(), "-R"]
    try:
        works = subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        works = False
    return fixed if works else []


def meson_build(name: str, compiler: str, *options: str) -> Path:
    """Configure and build the C tests in build/NAME; returns that folder."""
    folder = BUILD / name
    again = ["--reconfigure"] if (folder / "meson-private/coredata.dat").exists() else []
    require(
        [
            "meson",
            "setup",
            *again,
            "--buildtype=debugoptimized",
            *options,
            folder.as_posix(),
        ],
        log=LOGS / f"{name}-setup.log",
        env={"CC": compiler},
    )
    require(["meson", "compile", "-C", str(folder)], log=LOGS / f"{name}-compile.log")
    return folder


def meson_test(folder: Path, *options: str) -> Iterator[Result]:
    """Run the C tests built in `folder`; one result for each."""
    log = folder / "meson-logs/testlog.json"
    log.unlink(missing_ok=True)
    test = ["meson", "test", "-C", str(folder), "--no-rebuild", "--print-errorlogs", *options]
    status, output = command(
        [*steady_layout(), *test], log=LOGS / f"{folder.name}-test.log", env=SANITIZERS
    )
    results = [
        meson_result(folder.name, json.loads(line))
        for line in (log.read_text().splitlines() if log.exists() else [])
    ]
    yield from results
    if not results or (status != 0 and all(r.outcome != "failed" for r in results)):
        yield Result(
            f"{folder.name}: meson test", "failed", f"exit status {status}\n{tail(output)}"
        )


def meson_result(build: str, entry: dict[str, str]) -> Result:
    """Turn an entry of meson's testlog.json into a result."""
    said = tail(entry.get("stdout", "") + entry.get("stderr", ""))
    name = f"{build}: {entry['name'].split(' / ')[-1]}"
    if entry["result"] in {"OK", "EXPECTEDFAIL"}:
        return Result(name, "passed")
    if entry["result"] == "SKIP":
        return Result(name, "skipped", said.splitlines()[-1] if said else "exit status 77")
    return Result(name, "failed", f"{entry['result']}\n{said}")


def c() -> Iterator[Result]:
    """Yield the C tests' results under both compilers, with ASan and UBSan."""
    for compiler in ("gcc", "clang"):
        folder = meson_build(f"c-{compiler}", compiler, "-Db_sanitize=address,undefined")
        yield from meson_test(folder)


def tsan() -> Iterator[Result]:
    """Yield the results of the tests with threads under ThreadSanitizer."""
    folder = meson_build("tsan", "clang", "-Db_sanitize=thread")
    yield from meson_test(folder, "--suite", "threads")


def coverage() -> Iterator[Result]:
    """Yield one result: whether the tests reach enough of the ring core's lines."""
    folder = meson_build("coverage", "gcc", "-Db_coverage=true", "--optimization=0")
    for counters in folder.rglob("*.gcda"):
        counters.unlink()
    yield from (r for r in meson_test(folder) if r.outcome == "failed")
    report = LOGS / "coverage.json"
    report_on = ["--root", ".", "--filter", "csrc/sndif/", "--object-directory", str(folder)]
    printed = require(
        ["gcovr", *report_on, "--json-summary", str(report), "--txt"], log=LOGS / "coverage.txt"
    )
    percent = float(json.loads(report.read_text())["line_percent"])
    figure = f"{percent:.1f}% of the lines of csrc/sndif (at least {COVERAGE_FLOOR}%)"
    if percent < COVERAGE_FLOOR:
        yield Result("line coverage", "failed", f"{figure}\n{printed}")
    else:
        yield Result("line coverage", "passed", figure)


def fuzz() -> Iterator[Result]:
    """Yield a result for each fuzz target, run for FUZZ_SECONDS (30), two at a time."""
    folder = meson_build("fuzz", "clang", "-Dfuzz=true")
    targets = sorted(p for p in folder.rglob("fuzz_*") if p.is_file() and os.access(p, os.X_OK))
    if not targets:
        yield Result("fuzz", "failed", f"no fuzz target was built in {folder}")
    targets += sorted(Path("tests/xenaudio").rglob("fuzz_*.py"))
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(fuzz_target, targets)


def fuzz_target(target: Path) -> Result:
    """Run one libFuzzer target from its seeds: in tests/csrc/corpus/, or beside one in Python."""
    seconds = int(os.environ.get("FUZZ_SECONDS", "30"))
    in_python = target.suffix == ".py"
    found = LOGS / "fuzz" / target.stem
    found.mkdir(parents=True, exist_ok=True)
    corpus = BUILD / "fuzz-corpus" / target.stem
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = (target.parent if in_python else Path("tests/csrc")) / "corpus" / target.stem
    if not seeds.is_dir():
        return Result(target.name, "failed", f"no seeds: {seeds} is missing")
    program = [sys.executable, str(target)] if in_python else [*steady_layout(), str(target)]
    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024"]
    reports = ["-print_final_stats=1", f"-artifact_prefix={found}/"]
    status, output = command(
        [*program, *limits, *reports, str(corpus), str(seeds)],
        log=found / "log",
        env={**SANITIZERS, "PYTHONPATH": str(TREE)},
        timeout=seconds + 120,
    )
    executions = re.search(r"number_of_executed_units: (\d+)", output)
    if status != 0 or executions is None:
        return Result(target.name, "failed", f"exit status {status}, see {found}/\n{tail(output)}")
    return Result(target.name, "passed", f"{int(executions[1]):,} executions in {seconds} s")


def python() -> Iterator[Result]:
    """Yield the results of pytest: first of what plays sound, which compilers must not hold up."""
    for name in ("xenaudio", "packaging", "docs", "ci"):
        yield from run_pytest(name, "-n", "2", "--dist", "loadgroup", f"tests/{name}", *APART)


def deb() -> Iterator[Result]:
    """Yield the results of the Debian packages: built, checked, installed and heard."""
    yield from run_pytest("deb", *DEB, "-m", "not on_demand")


def rpm() -> Iterator[Result]:
    """Yield the results of the RPM packages: built on a stand-in for Fedora, and installed."""
    yield from run_pytest("rpm", "tests/packaging/rpm")


def deb_more() -> Iterator[Result]:
    """Yield the results of what takes longer."""
    yield from run_pytest("deb-more", *DEB, "-m", "on_demand")


def pulse() -> Iterator[Result]:
    """Yield the results of PulseAudio's modules in a real PulseAudio."""
    if pulse_headers() is None:
        reason = "PulseAudio's private headers are not here (ci/dist --headers)"
        yield Result("PulseAudio's modules", "skipped", reason)
        return
    options = ["-Dpulse=enabled", "-Dtests=disabled", "-Db_sanitize=address,undefined"]
    checked = meson_build("pulse-asan", "gcc", *options)
    modules = {"XENAUDIO_PULSE_MODULES_ASAN": str(TREE / checked / "csrc/pulse")}
    # One after the other: they are about when sound is heard.
    yield from run_pytest("pulse", "tests/pulse", env=modules)


def ansible() -> Iterator[Result]:
    """Yield the results of the role on two hosts, and of its modules beside that."""
    yield from run_pytest("ansible", "-n", "2", "--dist", "loadfile", "tests/ansible")


def xen() -> Iterator[Result]:
    """Yield the results of the scenarios on a real Xen, with the seconds that each took."""
    # Two machines, each with one processor's worth of work.
    yield from run_pytest("xen", "-n", "2", "--dist", "loadgroup", "tests/xen")


def run_pytest(
    name: str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Result]:
    """Run pytest; its report and its output are NAME.xml and NAME.log."""
    report = LOGS / f"{name}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    status, output = command(
        [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *arguments],
        log=LOGS / f"{name}.log",
        env={"PYTHONPATH": str(TREE), **built_modules(), **(env or {})},
        timeout=2400,
    )
    results = list(pytest_results(report)) if report.exists() else []
    yield from results
    if status != 0 and all(result.outcome != "failed" for result in results):
        yield Result("pytest", "failed", f"exit status {status}\n{tail(output)}")


def built_modules() -> dict[str, str]:
    """Name the folder of PulseAudio's modules, if ci/setup could build them."""
    folder = TREE / "build/modules/csrc/pulse"
    return {"XENAUDIO_PULSE_MODULES": str(folder)} if folder.is_dir() else {}


def pytest_results(report: Path) -> Iterator[Result]:
    """Read pytest's report in JUnit's form."""
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("::")
        bad = [child for kind in ("failure", "error") for child in case.findall(kind)]
        skip = case.find("skipped")
        if bad:
            yield Result(name, "failed", f"{bad[0].get('message', '')}\n{bad[0].text or ''}")
        elif skip is not None:
            yield Result(name, "skipped", skip.get("message", ""))
        else:
            figures = [
                f"{figure.get('name')}: {figure.get('value')}"
                for figure in case.findall("properties/property")
            ]
            seconds = f"{float(case.get('time', 0)):.1f} s"
            yield Result(name, "passed", "; ".join([seconds, *figures]))


def package() -> Iterator[Result]:
    """Yield results for the source distribution and the wheel: content, tag, fresh install."""
    with tempfile.TemporaryDirectory(prefix="xenaudio-package-") as scratch:
        out = Path(scratch) / "dist"
        require(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)],
            log=LOGS / "package.log",
        )
        sdist, wheel = next(out.glob("*.tar.gz")), next(out.glob("*.whl"))
        with tarfile.open(sdist) as archive:
            held = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
        left_out = [str(path) for path in sources() if path not in held]
        yield Result(
            f"{sdist.name} holds the tree",
            "failed" if left_out else "passed",
            f"not in it: {', '.join(left_out)}" if left_out else "",
        )
        tagged = re.search(r"-cp310-abi3-linux_\w+\.whl$", wheel.name)
        yield Result(f"{wheel.name} is abi3", "passed" if tagged else "failed")
        fresh = Path(scratch) / "venv"
        require(["/usr/bin/python3", "-m", "venv", str(fresh)])
        pins = str(TREE / "ci/requirements-run.txt")
        require([str(fresh / "bin/python"), "-m", "pip", "install", "-q", "-c", pins, str(wheel)])
        for name, argv in {
            "installed command": [str(fresh / "bin/xenaudio"), "--help"],
            "installed extension": [
                *(str(fresh / "bin/python"), "-c"),
                "import os; os.chdir('/'); from xenaudio.core import _core; _core.lib",
            ],
        }.items():
            status, output = command(argv)
            yield Result(name, "failed" if status else "passed", tail(output) if status else "")


# What of tests/packaging is a part of its own: for it, packages are built.
APART = ("--ignore=tests/packaging/deb", "--ignore=tests/packaging/rpm")
DEB = ("-n", "2", "--dist", "loadgroup", "tests/packaging/deb")

PARTS = (
    Part("lint", "form and static checks of every source file", lint),
    Part("c", "C tests under gcc and clang, with ASan and UBSan", c),
    Part("tsan", "C tests with threads, under ThreadSanitizer", tsan),
    Part("coverage", "line coverage of the ring core", coverage),
    Part("fuzz", "libFuzzer and atheris targets, FUZZ_SECONDS (30) each", fuzz),
    Part(
        "python",
        "pytest: tests/xenaudio, tests/packaging, tests/docs and tests/ci",
        python,
        terse=True,
    ),
    Part("deb", "Debian packages, in containers: tests/packaging/deb", deb),
    Part(
        "deb-more",
        "Debian packages: built twice, and piuparts; only when named",
        deb_more,
        on_demand=True,
    ),
    Part("rpm", "RPM packages, on a stand-in for Fedora: tests/packaging/rpm", rpm),
    Part("pulse", "modules in a real PulseAudio: tests/pulse", pulse, terse=True),
    Part("xen", "scenarios on a real Xen, emulated by QEMU: tests/xen", xen),
    Part("ansible", "the role, on two hosts over ssh: tests/ansible", ansible, terse=True),
    Part("package", "source distribution and wheel", package),
)


def main(names: list[str]) -> int:
    """Run the named parts, or all that are not on demand; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ci/test", description="Run the tests.")
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    parser.add_argument("part", nargs="*", help="what to run (all, when none is named)")
    args = parser.parse_args(names)
    if args.list:
        for part in PARTS:
            print(f"{part.name:<10} {part.doc}")
        return 0
    known = {part.name: part for part in PARTS}
    unknown = [name for name in args.part if name not in known]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join(known)}")
    os.chdir(TREE)
    return run(
        [known[name] for name in args.part] or [part for part in PARTS if not part.on_demand]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
