# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `xenaudio` command tells errors in one line, and by its exit status."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

import xenaudio
from xenaudio.cli import main as command
from xenaudio.core.errors import make_error

Subparsers = argparse._SubParsersAction


@pytest.fixture
def subcommand(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int]], None]:
    """Makes `xenaudio try` run a function."""

    def replace(run: Callable[..., int]) -> None:
        def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
            subparsers.add_parser("try").set_defaults(run=run)

        module = SimpleNamespace(add_parser=add_parser)
        monkeypatch.setitem(sys.modules, "xenaudio.cli.try", module)
        monkeypatch.setattr(command, "COMMANDS", ("try",))

    return replace


def raising(error: BaseException) -> Callable[..., int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_exit_status_is_the_subcommands(
    subcommand: Callable[[Callable[..., int]], None], status: int
) -> None:
    subcommand(lambda args: status)
    assert command.main(["try"]) == status


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (make_error(-errno.EACCES, "map grant 8 of domain 1"), "map grant 8 of domain 1: "),
        (make_error(-errno.EPIPE, "read from the store"), "read from the store: "),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.wav"), "a.wav: No such file"),
    ],
)
def test_an_error_is_one_line_that_says_what_was_attempted(
    subcommand: Callable[[Callable[..., int]], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    line: str,
) -> None:
    subcommand(raising(error))
    assert command.main(["try"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"xenaudio: {line}")


def test_an_interrupt_is_status_130_without_a_word(
    subcommand: Callable[[Callable[..., int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    subcommand(raising(KeyboardInterrupt()))
    assert command.main(["try"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_a_wrong_command_line_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert "usage: xenaudio" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    script = (
        "import sys; from types import SimpleNamespace as N; from xenaudio.cli import main as c\n"
        "def run(args):\n    for _ in range(100000): print('line')\n    return 0\n"
        "module = N(add_parser=lambda s: s.add_parser('try').set_defaults(run=run))\n"
        "sys.modules['xenaudio.cli.try'] = module\n"
        "c.COMMANDS = ('try',)\n"
        "sys.exit(c.main(['try']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_version_and_help_name_what_a_newcomer_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--version"])
    assert capsys.readouterr().out == f"xenaudio {xenaudio.__version__}\n"
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert "xenaudio demo " in shown
    for name in ("demo", "serve", "play", "record", "localhv", "bench"):
        assert f"\n    {name} " in shown


def test_a_command_imports_no_other() -> None:
    script = (
        "import sys; from xenaudio.cli import main as c\n"
        "try: c.main(['-v', 'play', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*(name for name in c.COMMANDS if f'xenaudio.cli.{name}' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "play", done.stderr
