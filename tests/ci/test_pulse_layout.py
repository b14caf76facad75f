# SPDX-License-Identifier: LGPL-2.1-or-later
"""PulseAudio's modules are built with the headers of the very PulseAudio that is installed.

The build's layout check (csrc/pulse/layout.c) is given headers that differ from the installed
library in one thing each.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
PULSE = TREE / "csrc/pulse"
sys.path.insert(0, str(TREE / "ci"))

from lint import pulse_headers  # noqa: E402

FOUND = pulse_headers()
pytestmark = pytest.mark.skipif(
    FOUND is None or shutil.which("pulseaudio") is None,
    reason="PulseAudio, or its private headers (ci/dist --headers), are not here",
)
HEADERS = TREE / (FOUND or "")
OTHER_SUITE = "bookworm" if HEADERS.name == "pulsecore-trixie" else "trixie"
LAYOUT = sorted(PULSE.glob("layout*.c"))


def ask(*question: str) -> str:
    done = subprocess.run(["pkg-config", *question, "libpulse"], capture_output=True, text=True)
    return done.stdout.strip()


def run(*argv: str | Path, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **changed},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def version_of(headers: Path) -> str:
    return (headers / "version").read_text().strip()


def flags(headers: Path) -> list[str]:
    return [
        *("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
        *(f"-I{TREE / 'csrc'}", f"-I{PULSE}", "-isystem", str(headers)),
        f'-DPACKAGE_VERSION="{version_of(headers)}"',
    ]


def check(headers: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Build the layout check with these headers and hold it against the installed library."""
    folder = Path(ask("--variable=libdir")) / "pulseaudio"
    libraries = [folder / f"lib{n}-{ask('--modversion')}.so" for n in ("pulsecore", "pulsecommon")]
    program = scratch / "layout"
    built = run(
        *("gcc", *flags(headers), *LAYOUT, "-o", program, *shlex.split(ask("--libs"))),
        *(*libraries, f"-Wl,-rpath,{folder}", "-lltdl", "-pthread"),
    )
    assert built.returncode == 0, built.stderr
    return run(program, ask("--variable=modlibexecdir"))


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """A copy of the installed PulseAudio's headers, to spoil."""
    copy: Path = shutil.copytree(HEADERS, tmp_path / "headers")
    return copy


@pytest.fixture(scope="session")
def other_headers() -> Path:
    """The headers of another PulseAudio than the installed one."""
    # The environment may say how to reach the archive.
    made = run(TREE / "ci/dist", "--headers", OTHER_SUITE, **os.environ)
    folder = TREE / "build" / f"pulsecore-{OTHER_SUITE}"
    if not folder.is_dir():
        pytest.skip(f"no headers of {OTHER_SUITE} to be had here: {made.stderr}")
    assert version_of(folder) != version_of(HEADERS)
    return folder


def test_headers_of_the_installed_pulseaudio_fit(tmp_path: Path) -> None:
    done = check(HEADERS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^pa_sink +\d+ octets$", done.stdout, re.M)


def test_headers_of_another_pulseaudio_do_not_fit(other_headers: Path, tmp_path: Path) -> None:
    done = check(other_headers, tmp_path)
    assert done.returncode == 1
    assert re.search(
        r"^layout: pa_core is \d+ octets in the installed library, \d+ in the headers$",
        done.stderr,
        re.M,
    )
    assert f"the headers of PulseAudio {version_of(other_headers)} do not fit" in done.stderr


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "complaint"),
    [
        # sizes
        (
            "core",
            r"(?=    char \*configured_default_sink;)",
            "char *new;",
            r"pa_core is \d+ octets .*",
        ),
        ("sink", r"(?=    void \*userdata;)", "void *new;", r"pa_sink is \d+ octets .*"),
        ("source", r"(?=    bool muted:1;)", "uint64_t new;", r"pa_source is \d+ octets .*"),
        ("card", r"(?=    bool namereg_fail:1;)", "void *new;", r"pa_card_new_data is \d+ .*"),
        ("module", r"(?=    pa_dynarray \*hooks;)", "void *new;", r"pa_module is \d+ octets .*"),
        ("thread-mq", r"(?=    pa_io_event)", "void *new;", r"pa_thread_mq is \d+ octets .*"),
        # order, in structures of the same size
        (
            "sink",
            r"(pa_sink_cb_t) request_rewind;(.*?)pa_sink_cb_t update_requested_latency;",
            r"\1 update_requested_latency;\2 \1 request_rewind;",
            r"pa_sink[.]update_requested_latency is not at offset \d+ .*",
        ),
        (
            "sink",
            r"size_t max_rewind;(.*?)size_t max_request;",
            r"size_t max_request;\1size_t max_rewind;",
            r"pa_sink[.]thread_info[.]max_rewind is not at offset \d+ .*",
        ),
        (
            "source",
            r"pa_usec_t min_latency;(.*?)pa_usec_t max_latency;",
            r"pa_usec_t max_latency;\1pa_usec_t min_latency;",
            r"pa_source[.]thread_info[.]min_latency is not at offset \d+ .*",
        ),
        (
            "card",
            r"unsigned n_sinks;(\s+)unsigned n_sources;",
            r"unsigned n_sources;\1unsigned n_sinks;",
            r"pa_card_profile[.]n_sinks is not at offset \d+ .*",
        ),
        (
            "module",
            r"char \*name, \*argument;",
            "char *argument, *name;",
            r"(pa_module[.]name is not at|the installed libpulsecore crashes).*",
        ),
        # numbers
        (
            "sink",
            r"PA_SINK_MESSAGE_SET_MUTE,\s+PA_SINK_MESSAGE_GET_LATENCY,",
            "PA_SINK_MESSAGE_GET_LATENCY, PA_SINK_MESSAGE_SET_MUTE,",
            r"PA_SINK_MESSAGE_GET_LATENCY: .*",
        ),
        (
            "core",
            r"PA_CORE_HOOK_SINK_FIXATE,\s+PA_CORE_HOOK_SINK_PUT,",
            "PA_CORE_HOOK_SINK_PUT, PA_CORE_HOOK_SINK_FIXATE,",
            r"PA_CORE_HOOK_SINK_PUT: .*",
        ),
    ],
)
def test_one_difference_is_named(
    name: str, pattern: str, replacement: str, complaint: str, headers: Path, tmp_path: Path
) -> None:
    header = headers / f"pulsecore/{name}.h"
    changed, times = re.subn(pattern, replacement, header.read_text(), count=1, flags=re.S)
    assert times == 1
    header.write_text(changed)
    done = check(headers, tmp_path)
    assert done.returncode == 1
    assert re.search(f"^layout: {complaint}$", done.stderr, re.M), done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_one_source_compiles_for_both_pulseaudios(compiler: str, other_headers: Path) -> None:
    for headers in (HEADERS, other_headers):
        for source in sorted(PULSE.glob("*.c")):
            done = run(compiler, *flags(headers), "-fsyntax-only", source)
            assert (done.returncode, done.stderr) == (0, ""), f"{source}, {headers}"


def members(headers: Path) -> set[str]:
    """The members of those structures of pulsecore that a module has to do with."""
    found: set[str] = set()
    for name in (
        "card",
        "core",
        "device-port",
        "memchunk",
        "module",
        "sink",
        "source",
        "thread-mq",
    ):
        text = re.sub(r"/[*].*?[*]/", "", (headers / f"pulsecore/{name}.h").read_text(), flags=re.S)
        for body in re.findall(r"^(?:typedef )?struct (?:\w+ )?{\n(.*?)^}", text, re.M | re.S):
            for declaration in body.replace("}", ";").split(";"):
                if pointer := re.search(r"[(][*](\w+)[)]", declaration):
                    found.add(pointer[1])
                else:
                    found.update(re.findall(r"(\w+)(?::1|\[\w+\])?\s*(?=,|$)", declaration))
    return found


def test_the_layout_check_looks_at_every_member_that_a_module_uses() -> None:
    known = members(HEADERS)
    assert {"asyncmsgq", "set_profile", "hooks", "muted", "rewind_requested"} <= known
    looked_at = set(
        re.findall(r"\w+", " ".join(re.findall(r"XA_M\w+[(]([^;]*);", "".join(map(text, LAYOUT)))))
    )
    unseen = {
        f"{source.name}: {member}"
        for source in PULSE.glob("*.[ch]")
        if not source.name.startswith("layout")
        for member in re.findall(r"(?:->|[.])(\w+)", text(source))
        if member in known - looked_at
    }
    assert not unseen


def text(path: Path) -> str:
    return path.read_text()


def configure(build: Path, headers: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    options = [f"-Dpulsecore={headers}", "-Dpulse=enabled", "-Dtests=disabled"]
    return run("meson", "setup", *options, build, TREE, **changed)


def test_the_build_does_not_begin_with_headers_of_another_version(
    headers: Path, tmp_path: Path
) -> None:
    (headers / "version").write_text("15.0\n")
    done = configure(tmp_path / "build", headers)
    assert done.returncode != 0
    assert (
        f"the headers in {headers} are those of PulseAudio 15.0, "
        f"installed is {version_of(HEADERS)}: run ci/dist" in done.stdout
    )


def test_the_build_fails_where_the_layout_check_does(other_headers: Path, tmp_path: Path) -> None:
    headers = shutil.copytree(other_headers, tmp_path / "headers")
    shutil.copy(HEADERS / "version", headers)
    build = tmp_path / "build"
    done = configure(build, headers)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^ +PulseAudio +: .*" + re.escape(version_of(HEADERS)), done.stdout, re.M)
    done = run("ninja", "-C", build, "csrc/pulse/layout.txt")
    assert done.returncode != 0
    assert re.search(r"layout: pa_core is \d+ octets in the installed library", done.stdout)


def test_what_is_missing_is_named_with_its_package(other_headers: Path, tmp_path: Path) -> None:
    version = version_of(other_headers)
    pc = (Path(ask("--variable=pcfiledir")) / "libpulse.pc").read_text()
    (tmp_path / "libpulse.pc").write_text(re.sub("(?m)^Version:.*", f"Version: {version}", pc))
    done = configure(tmp_path / "build", other_headers, PKG_CONFIG_PATH=str(tmp_path))
    assert done.returncode != 0
    assert f"missing libpulsecore-{version} (pulseaudio)" in done.stdout
