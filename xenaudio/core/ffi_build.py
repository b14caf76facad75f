# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds xenaudio.core._core, the cffi (API mode) extension around the C core.

The declarations are those of the C headers themselves, between `cffi: begin` and `cffi: end`, so
there is one description of the interface. What is optional is found with pkg-config; with
XENAUDIO_FEATURES=enabled (package builds) anything missing is an error instead.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
CSRC = Path("csrc")

# Headers in the order in which a declaration may use an earlier one.
HEADERS = [
    "sndif/format.h",
    "hv/store.h",
    "hv/hv.h",
    "frontend/config.h",
    "frontend/stream.h",
    "frontend/card.h",
    "backend/caps.h",
    "backend/endpoint.h",
    "backend/engine.h",
    "bench/pulse_bench.h",
    "bench/ring_bench.h",
    "soundfile/soundfile.h",
]

# Python functions that C calls: (result, name, arguments).
CALLBACKS = """
extern "Python" void xa_py_store_reply(void *user, int error, const char *data, size_t length);
extern "Python" void xa_py_store_watch(void *user, const char *path, const char *token);
extern "Python" void xa_py_card(void *user, enum xa_card_state state, int reason,
                                const char *text);
extern "Python" void xa_py_stream(void *user, struct xa_stream *stream, enum xa_stream_event event,
                                  int error);
"""

# The protocol itself, of which we keep no copy (package libxen-dev).
PROTOCOL = "xen/io/sndif.h"

# pkg-config module -> (what it is for, macro that compiles it in)
REQUIRED = {"sndfile": "WAV and FLAC files"}
OPTIONAL = {
    "xengnttab": ("grants on a real Xen", "XA_HAVE_XEN"),
    "xenevtchn": ("event channels on a real Xen", "XA_HAVE_XEN"),
    "libpulse": ("playing on PulseAudio", "XA_HAVE_PULSE"),
}


def declarations(header: str) -> str:
    """Return the parts of a header that are meant for cffi."""
    text = (ROOT / CSRC / header).read_text()
    parts = re.findall(r"/\* cffi: begin \*/(.*?)/\* cffi: end \*/", text, re.DOTALL)
    if not parts:
        raise SystemExit(f"csrc/{header}: no part between 'cffi: begin' and 'cffi: end'")
    return "\n".join(parts)


def pkg_config(module: str, option: str) -> list[str] | None:
    """Return pkg-config's answer for a module, or None when it is not installed."""
    if shutil.which("pkg-config") is None:
        raise SystemExit("pkg-config is missing: install the package pkg-config")
    answer = subprocess.run(
        ["pkg-config", option, module], capture_output=True, text=True, check=False
    )
    return answer.stdout.split() if answer.returncode == 0 else None


def has_header(header: str) -> bool:
    """Say whether the C compiler finds a header."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    test = f'#if !__has_include("{header}")\n#error missing\n#endif\n'
    answer = subprocess.run(
        [*compiler, "-E", "-x", "c", "-"], input=test, capture_output=True, text=True, check=False
    )
    return answer.returncode == 0


def features() -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Find the libraries: (compile flags, link flags, macros). Prints a table of what was found."""
    strict = os.environ.get("XENAUDIO_FEATURES") == "enabled"
    cflags: list[str] = []
    libs: list[str] = []
    missing: dict[str, list[str]] = {}
    macros: set[str] = set()
    rows: list[tuple[str, str, str]] = []
    wanted = [(m, what, "") for m, what in REQUIRED.items()]
    wanted += [(m, what, macro) for m, (what, macro) in OPTIONAL.items()]
    found: dict[str, tuple[list[str], list[str]]] = {}
    for module, what, macro in wanted:
        flags = pkg_config(module, "--cflags")
        if flags is None:
            rows.append((module, what, "missing"))
            missing.setdefault(macro, []).append(module)
        else:
            rows.append((module, what, "found"))
            found[module] = (flags, pkg_config(module, "--libs") or [])
    for module, _what, macro in wanted:
        if module in found and macro not in missing:
            cflags += found[module][0]
            libs += found[module][1]
            if macro:
                macros.add(macro)
    protocol = has_header(PROTOCOL)
    rows.insert(0, (PROTOCOL, "Xen's sound protocol", "found" if protocol else "missing"))
    print("xenaudio: configuration of the C core", file=sys.stderr)
    for module, what, state in rows:
        print(f"  {module:<14} {what:<32} {state}", file=sys.stderr)
    if not protocol:
        raise SystemExit(f"<{PROTOCOL}> is not found: install the package libxen-dev")
    refused = missing.get("", []) if not strict else [m for ms in missing.values() for m in ms]
    if refused:
        raise SystemExit("not found by pkg-config: " + ", ".join(refused))
    return cflags, libs, [(m, "1") for m in sorted(macros)]


def sources() -> list[str]:
    """Return the C files of the core, relative to the source tree."""
    return sorted(
        str(path.relative_to(ROOT))
        for layer in ("sndif", "hv", "soundfile", "frontend", "backend", "bench")
        for path in (ROOT / CSRC / layer).glob("*.c")
    )


def make() -> FFI:
    """Describe the extension to cffi."""
    builder = FFI()
    for header in HEADERS:
        builder.cdef(declarations(header))
    builder.cdef(CALLBACKS)
    cflags, libs, macros = features()
    builder.set_source(
        "xenaudio.core._core",
        "\n".join(f'#include "{header}"' for header in HEADERS),
        sources=sources(),
        include_dirs=[str(CSRC)],
        define_macros=[("_GNU_SOURCE", "1"), *macros],
        extra_compile_args=["-std=c11", "-Wall", "-Wextra", "-pthread", *cflags],
        extra_link_args=["-pthread", *libs],
        py_limited_api=True,
    )
    return builder


ffibuilder = make()
