# SPDX-License-Identifier: LGPL-2.1-or-later
"""A PulseAudio daemon under gcc's sanitizers, for modules that are built with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MODULES = "XENAUDIO_PULSE_MODULES_ASAN"
"""Names the folder of the modules under test, built with -Db_sanitize=address,undefined by gcc."""

OPTIONS = [
    "ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1",
]


def modules() -> Path | None:
    """Return the folder of the modules under test."""
    named = os.environ.get(MODULES)
    return Path(named).resolve() if named else None


def command_prefix(scratch: Path) -> list[str]:
    """Return what the daemon's command line begins with."""
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    function = scratch / "swift_demangle.so"
    source = Path(__file__).with_name("swift_demangle.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", function, source], check=True)
    # The shadow memory collides now and then with a strongly randomised layout.
    fixed = ["setarch", "-R"]
    if subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode != 0:
        fixed = []
    return [*fixed, "env", f"LD_PRELOAD={library}:{function}", *OPTIONS]
