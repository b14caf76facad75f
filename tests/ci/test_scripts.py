# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scripts in ci/ can be called from anywhere, with nothing in the environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import xenaudio

TREE = Path(__file__).resolve().parents[2]


def run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=cwd,
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_every_script_can_be_executed_and_everything_else_cannot() -> None:
    for path in [*(TREE / "ci").iterdir(), *(TREE / ".ci").iterdir()]:
        if path.is_file():
            assert os.access(path, os.X_OK) == path.read_text().startswith("#!"), path


def test_the_command_runs_from_another_folder_and_writes_only_its_own_output(
    tmp_path: Path,
) -> None:
    link = tmp_path / "xenaudio"
    link.symlink_to(TREE / "ci/xenaudio")
    done = run(link, "--version", cwd=tmp_path)
    assert done.stdout == f"xenaudio {xenaudio.__version__}\n"
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [(), ("everything",)])
def test_setup_refuses_an_unknown_set(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(TREE / "ci/setup", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "usage: ci/setup run|test|xen\n"


def test_setup_with_nothing_to_do_says_nothing_and_changes_nothing(tmp_path: Path) -> None:
    run(TREE / "ci/setup", "run", cwd=tmp_path)
    built = TREE / "xenaudio/core/_core.abi3.so"
    before = built.stat().st_mtime_ns
    done = run(TREE / "ci/setup", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert built.stat().st_mtime_ns == before
