# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two builds of the C core, meson's and the extension's, are builds of the same thing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib

import xenaudio

TREE = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
FOLDERS = re.search(r"for layer in \(([^)]*)\)", (TREE / "xenaudio/core/ffi_build.py").read_text())
LAYERS = re.findall(r"\w+", FOLDERS[1]) if FOLDERS else []


@pytest.mark.parametrize("layer", LAYERS)
def test_meson_lists_exactly_the_c_files_that_the_extension_is_made_of(layer: str) -> None:
    description = (TREE / "csrc" / layer / "meson.build").read_text()
    listed = re.findall(r"'([\w-]+\.c)'", description)
    assert sorted(listed) == sorted(path.name for path in (TREE / "csrc" / layer).glob("*.c"))


def test_meson_builds_the_layers_that_the_extension_is_made_of() -> None:
    subdirs = re.findall(r"^subdir\('(\w+)'\)", (TREE / "csrc/meson.build").read_text(), re.M)
    assert set(LAYERS) >= {"sndif", "hv", "frontend", "backend"}
    assert set(subdirs) >= set(LAYERS)


def test_meson_builds_every_c_file_of_the_pulseaudio_modules() -> None:
    description = (TREE / "csrc/pulse/meson.build").read_text()
    listed = re.findall(r"'([\w-]+\.c)'", description)
    listed += [f"{module}.c" for module in re.findall(r"'(module-[\w-]+)'", description)]
    assert sorted(listed) == sorted(path.name for path in (TREE / "csrc/pulse").glob("*.c"))


def test_there_is_one_version() -> None:
    # meson.build takes the only line of this form.
    (declared,) = re.findall(r'^version = "(.*)"$', (TREE / "pyproject.toml").read_text(), re.M)
    assert declared == PROJECT["version"] == xenaudio.__version__
    assert f"[{declared}]" in (TREE / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("lists", "extras"), [(["run"], ["plot"]), (["run", "test"], ["plot", "test", "lint"])]
)
def test_every_python_dependency_is_pinned(lists: list[str], extras: list[str]) -> None:
    optional = PROJECT["optional-dependencies"]
    needed = PROJECT["dependencies"] + [name for extra in extras for name in optional[extra]]
    pinned = [
        line.split("==")[0]
        for name in lists
        for line in (TREE / f"ci/requirements-{name}.txt").read_text().splitlines()
        if re.fullmatch(r"[\w.-]+==[\w.]+(; python_version < \"[\d.]+\")?", line)
    ]
    assert {re.split(r"[<>=]", requirement)[0] for requirement in needed} <= set(pinned)
