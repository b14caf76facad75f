# SPDX-License-Identifier: LGPL-2.1-or-later
"""The project's own checks of its sources find what they are there to find."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ci"))

import lint


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lint, "TREE", tmp_path)
    return tmp_path


def write(tree: Path, name: str, text: str) -> Path:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Path(name)


def test_a_file_without_its_licence_line_is_found(tree: Path) -> None:
    good = write(tree, "good.c", f"/* {lint.SPDX} */\n")
    script = write(tree, "script", f"#!/bin/bash\n# {lint.SPDX}\n")
    late = write(tree, "late.py", f"a = 1\nb = 2\nc = 3\n# {lint.SPDX}\n")
    bare = write(tree, "bare.h", "#define X 1\n")
    seed = write(tree, "tests/csrc/corpus/ring/seed", "data")
    empty = write(tree, "py.typed", "")
    assert lint.without_licence([good, script, late, bare, seed, empty]) == ["late.py", "bare.h"]


@pytest.mark.parametrize(
    "line",
    [
        "pip install -i https://" + "pypi" + ".org/simple x",
        "URIs: http://" + "deb.debian" + ".org/debian",
        "curl https://" + "files.pythonhosted" + ".org/x",
        "cd " + "/work" + "/main",
        "open('" + "/home" + "/someone/x')",
        "PATH=" + "/root" + "/.pyenv/shims",
    ],
)
def test_a_name_of_one_machine_is_found_with_its_line(tree: Path, line: str) -> None:
    path = write(tree, "script", f"first\n{line}\n")
    (found,) = lint.foreign_names([path])
    assert found.startswith("script:2: ")


@pytest.mark.parametrize(
    "line",
    [
        "https://xenbits.xenproject.org/docs/",
        "/local/domain/1/device/vsnd/0",
        "meson-private/work/main.o",
        '"$root/root/.config"',
        "${HOME}/home/x",
        "/var/lib/workshop",
    ],
)
def test_ordinary_text_is_not_taken_for_one(tree: Path, line: str) -> None:
    assert lint.foreign_names([write(tree, "script", f"{line}\n")]) == []


def test_shell_scripts_are_known_by_their_first_line(tree: Path) -> None:
    names = {
        "a": "#!/bin/bash\n",
        "b": "#!/bin/sh\n",
        "c": "#!/usr/bin/env bash\n",
        "d": "#!/usr/bin/python3\n",
        "e.md": "run it with #!/bin/sh\n",
    }
    paths = [write(tree, name, text) for name, text in names.items()]
    assert lint.shell_scripts(paths) == ["a", "b", "c"]


def test_without_git_what_builds_leave_behind_is_not_a_source(tree: Path) -> None:
    for name in (
        "csrc/ring.c",
        ".ci/run",
        "build/x.c",
        ".venv/lib/x.py",
        "xenaudio/__pycache__/x.pyc",
        "xenaudio/core/_core.c",
        "xenaudio/core/_core.abi3.so",
        "xenaudio.egg-info/PKG-INFO",
        ".mypy_cache/x",
    ):
        write(tree, name, "text")
    assert lint.sources() == [Path(".ci/run"), Path("csrc/ring.c")]
