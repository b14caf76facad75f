# SPDX-License-Identifier: LGPL-2.1-or-later
"""The module xl_vsnd: one key of an xl configuration, by the rules of `xenaudio render`."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xl_vsnd
import xlutil
from ansible.module_utils.testing import patch_module_args
from xlconfigs import BAD, GOOD

TREE = Path(__file__).resolve().parents[2]

SOUND: dict[str, Any] = {
    "card": [
        {
            "short-name": "Bob's",
            "sample-rates": [44100, 48000],
            "sample-formats": ["s16_le"],
            "pcm": [
                {
                    "name": "Büro",
                    "stream": [
                        {"type": "playback", "unique-id": "out", "channels-max": 2},
                        {"type": "capture", "unique-id": "mic"},
                    ],
                }
            ],
        },
        {"pcm": [{"stream": [{"type": "playback"}]}]},
    ],
    "pulseaudio": {"latency-ms": 100},
}
CARDS = [
    [
        "CARD, short-name=Bob's, sample-rates=44100;48000, sample-formats=s16_le",
        "PCM, name=Büro",
        "STREAM, unique-id=out, type=p, channels-max=2",
        "STREAM, unique-id=mic, type=c",
    ],
    ["CARD", "PCM", "STREAM, unique-id=0/0, type=p"],
]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree's `xenaudio`."""
    script = tmp_path_factory.mktemp("bin") / "xenaudio"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={TREE} exec {sys.executable} -m xenaudio.cli.main "$@"\n'
    )
    script.chmod(0o755)
    return script


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "desk1.cfg"
    path.write_text("# Desk\nname = 'desk1'  # its name\nmemory = 1\n")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], command: Path, tmp_path: Path) -> Run:
    """Run the module; return what it said."""

    def call(path: Path | str, **options: Any) -> dict[str, Any]:
        check = options.pop("check_mode", False)
        given = {
            "path": str(path),
            "command": str(command),
            **options,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path / "tmp"),
        }
        with patch_module_args(given), pytest.raises(SystemExit):
            xl_vsnd.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return call


def changed_sound(*steps: str | int, to: object) -> dict[str, Any]:
    """Return SOUND with one value changed."""
    sound = copy.deepcopy(SOUND)
    at: Any = sound
    for step in steps[:-1]:
        at = at[step]
    at[steps[-1]] = to
    return sound


def test_it_writes_what_xl_reads(run: Run, config: Path) -> None:
    before = config.read_text()
    said = run(config, sound=SOUND)
    assert said["changed"] is True
    assert said["vsnd"] == CARDS
    assert config.read_text().startswith(before)
    assert xlutil.read(config.read_text(), "vsnd", "name", "memory") == {
        "vsnd": CARDS,
        "name": "desk1",
        "memory": "1",
    }


def test_a_second_time_it_changes_nothing(run: Run, config: Path) -> None:
    run(config, sound=SOUND)
    before = config.stat()
    said = run(config, sound=SOUND)
    assert said["changed"] is False
    assert "diff" not in said
    assert config.stat() == before


def test_another_layout_of_the_same_is_the_same(run: Run, config: Path) -> None:
    text = f"vsnd = {json.dumps(CARDS, ensure_ascii=False)} # by hand\n"
    config.write_text(text)
    assert run(config, sound=SOUND)["changed"] is False
    assert config.read_text() == text


def test_absent_puts_the_file_back(run: Run, config: Path) -> None:
    before = config.read_bytes()
    run(config, sound=SOUND)
    said = run(config, state="absent")
    assert (said["changed"], said["vsnd"]) == (True, [])
    assert config.read_bytes() == before
    assert run(config, state="absent")["changed"] is False


def test_absent_needs_neither_file_nor_command(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "none.cfg", state="absent")["changed"] is False
    config = tmp_path / "desk1.cfg"
    config.write_text("vsnd = []\n")
    assert run(config, state="absent", command="/nonexistent/xenaudio")["changed"] is True
    assert config.read_text() == ""


def test_check_mode_tells_and_changes_nothing(run: Run, config: Path) -> None:
    before = config.read_bytes()
    said = run(config, sound=SOUND, check_mode=True, backup=True)
    assert said["changed"] is True
    assert said["diff"]["before"] == before.decode()
    assert "short-name=Bob's" in said["diff"]["after"]
    assert config.read_bytes() == before
    assert os.listdir(config.parent) == [config.name]


def test_on_trial_the_command_may_be_missing(run: Run, config: Path) -> None:
    said = run(config, sound=SOUND, check_mode=True, command="/nonexistent/xenaudio")
    assert said["changed"] is True


def test_a_backup_is_what_was_there(run: Run, config: Path) -> None:
    before = config.read_bytes()
    said = run(config, sound=SOUND, backup=True)
    assert Path(said["backup_file"]).read_bytes() == before
    # Where nothing is changed there is none.
    assert "backup_file" not in run(config, sound=SOUND, backup=True)


def test_owner_and_mode_stay_and_so_does_a_link(run: Run, config: Path) -> None:
    config.chmod(0o640)
    link = config.with_name("auto.cfg")
    link.symlink_to(config.name)
    assert run(link, sound=SOUND)["changed"] is True
    assert link.is_symlink()
    assert config.stat().st_mode & 0o777 == 0o640
    assert "Bob's" in config.read_text()


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_there_and_back_in_any_file(run: Run, config: Path, text: str) -> None:
    octets = text.encode("utf-8", "surrogateescape")
    config.write_bytes(octets)
    assert run(config, sound=SOUND)["vsnd"] == CARDS
    assert run(config, sound=SOUND)["changed"] is False
    assert run(config, state="absent")["changed"] is True
    if "vsnd" not in (xlutil.read(text, "vsnd") or {}):
        assert config.read_bytes() == octets


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_bad_file_is_refused_and_stays(run: Run, config: Path, name: str, state: str) -> None:
    expected, text = BAD[name]
    octets = text.encode("utf-8", "surrogateescape")
    config.write_bytes(octets)
    said = run(config, sound=SOUND, state=state, backup=True)
    assert said["failed"] is True
    assert said["msg"].startswith(f"{config}: {expected}")
    assert config.read_bytes() == octets
    assert os.listdir(config.parent) == [config.name]


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        ({}, "sound: the top of the file: there is no card: expected [[card]]"),
        ({"card": []}, "sound: card = []: expected tables that each begin with [[card]]"),
        ({"card": [{"short-name": "x"}]}, "sound.card[0]: [[card]]: it has no PCM device"),
        (
            changed_sound("card", 0, "pcm", 0, "stream", 1, "type", to="microphone"),
            'sound.card[0].pcm[0].stream[1]: type = "microphone": expected "playback" or "capture"',
        ),
        (
            changed_sound("card", 0, "pcm", 0, "stream", 0, "id", to="out"),
            'sound.card[0].pcm[0].stream[0]: id = "out": unknown key in [[card.pcm.stream]]',
        ),
        (
            changed_sound("card", 0, "sample-rates", to=[48000, 0]),
            "sound.card[0]: sample-rates = [...]: 0, number 2: expected a whole number of Hz",
        ),
        (
            changed_sound("card", 0, "sample-formats", to=["s16"]),
            "sound.card[0]: sample-formats = [\"s16\"]: 's16': expected PCM formats as xl names",
        ),
        (
            changed_sound("card", 0, "short-name", to="a,b"),
            "sound.card[0]: short-name = \"a,b\": expected a text without ','",
        ),
        (
            changed_sound("card", 0, "short-name", to=None),
            "sound.card[0].short-name: null: expected a text, a number, or a list of these",
        ),
        (
            changed_sound("pulseaudio", "latency-ms", to=1),
            "sound.pulseaudio: latency-ms = 1: expected a whole number of milliseconds from 2",
        ),
        (
            changed_sound("card", 1, "back end", to="x"),
            'sound.card[1]: back end = "x": unknown key in [[card]]: did you mean backend?',
        ),
    ],
)
def test_a_bad_sound_is_refused_with_its_place(
    run: Run, config: Path, sound: dict[str, Any], expected: str
) -> None:
    before = config.read_bytes()
    said = run(config, sound=sound)
    assert said["failed"] is True
    assert f"\n{expected}" in said["msg"]
    assert config.read_bytes() == before


def test_all_that_is_wrong_with_a_sound_is_told_at_once(run: Run, config: Path) -> None:
    sound = changed_sound("card", 0, "pcm", 0, "stream", 1, "type", to="x")
    sound["card"][1]["channels-max"] = 0
    msg = run(config, sound=sound)["msg"]
    assert "sound.card[0].pcm[0].stream[1]: type" in msg
    assert "sound.card[1]: channels-max = 0" in msg


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"path": "{}/none.cfg", "sound": SOUND}, "/none.cfg: there is none: expected a guest's"),
        ({"path": "{}", "sound": SOUND}, ": Is a directory: expected an xl configuration"),
        ({"path": "{}/desk1.cfg"}, "state is present but all of the following are missing: sound"),
        ({"path": "{}/desk1.cfg", "sound": SOUND, "state": "there"}, "must be one of: present, ab"),
        (
            {"path": "{}/desk1.cfg", "sound": SOUND, "command": "/nonexistent/xenaudio"},
            "/nonexistent/xenaudio: there is no such command: expected the package",
        ),
    ],
)
def test_a_bad_option_is_refused(
    run: Run, config: Path, options: dict[str, Any], expected: str
) -> None:
    before = config.read_bytes()
    given = {**options, "path": options["path"].format(config.parent)}
    said = run(**given)
    assert said["failed"] is True
    assert expected in said["msg"]
    assert config.read_bytes() == before
