# SPDX-License-Identifier: LGPL-2.1-or-later
"""The frontend when memory is short: a C program, for Python has no way to take memory from it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from scripted_backend import VSND, Machine

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_store_client_that_cannot_be_made_leaks_nothing(machine: Machine, tmp_path: Path) -> None:
    program = tmp_path / "store_new_fails"
    sources = [path for layer in ("sndif", "hv", "frontend") for path in (CSRC / layer).glob("*.c")]
    subprocess.run(
        [
            *("cc", "-std=c11", "-D_GNU_SOURCE", f"-I{CSRC}", "-Wl,--wrap=xa_store_new"),
            *("-o", program, HERE / "store_new_fails.c", *sources),
        ],
        check=True,
    )
    guest = asyncio.run(machine.do(machine.hv.create("guest", vsnd=VSND, wait=False)))
    done = subprocess.run([program, str(guest.socket)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
