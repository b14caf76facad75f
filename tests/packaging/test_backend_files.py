# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend package's files: a unit that systemd takes, a sandbox, rights, and a true example."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xenaudio.backend.config import DEFAULT_FILE, Config, parse
from xenaudio.backend.control import SOCKET
from xenaudio.backend.limits import Limits
from xenaudio.core.engine import RouteKind
from xenaudio.core.tomlfile import TomlFile

TREE = Path(__file__).resolve().parents[2]
FILES = TREE / "packaging" / "backend"
UNIT = "xenaudiod.service"
DEVICES = {"/dev/xen/xenbus", "/dev/xen/gntdev", "/dev/xen/evtchn"}

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def text(name: str) -> str:
    return (FILES / name).read_text()


def value(key: str) -> list[str]:
    """What the unit sets a key to, each time."""
    return re.findall(rf"^{key}=(.*)$", text(UNIT), re.MULTILINE)


@with_systemd
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # The command's place need not exist here, nor its manual pages.
    changed = text(UNIT).replace("/usr/bin/xenaudio", "/bin/true")
    (tmp_path / UNIT).write_text(re.sub("^Documentation=.*$", "", changed, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "xenaudio" in line] == []


@with_systemd
def test_systemd_finds_the_service_well_locked_up() -> None:
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            "--threshold=20",  # of 100; 15 when this was written
            str(FILES / UNIT),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@with_systemd
def test_systemd_makes_the_user(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", str(FILES / "sysusers.conf")], check=True
    )
    (line,) = (tmp_path / "etc/passwd").read_text().splitlines()
    name, _password, uid, gid, _title, home, shell = line.split(":")
    assert (name, home) == ("xenaudio", "/var/lib/xenaudio")
    assert uid != "0"
    assert shell.endswith("nologin")
    assert f"xenaudio:x:{gid}:" in (tmp_path / "etc/group").read_text()


def test_the_unit_serves_before_guests_start_and_after_the_store() -> None:
    assert value("Before") == ["xendomains.service"]
    (after,) = value("After")
    assert {"xenstored.service", "xen.service"} <= set(after.split())
    assert value("Type") == ["notify"]


def test_without_xen_the_unit_is_skipped() -> None:
    assert value("ConditionPathExists") == ["/dev/xen"]


def test_a_reload_checks_before_it_tells_the_service() -> None:
    assert value("ExecReload") == ["/usr/bin/xenaudio check", "/bin/sh -c 'kill -HUP $MAINPID'"]


def test_the_service_may_open_what_it_opens_and_no_more() -> None:
    assert value("DevicePolicy") == ["closed"]
    assert {line.split()[0] for line in value("DeviceAllow")} == DEVICES
    (rule,) = [line for line in text("udev.rules").splitlines() if not line.startswith("#")]
    parts = dict(re.findall(r'(\w+)=?="([^"]*)"', rule))
    assert {f"/dev/{name}" for name in parts["KERNEL"].split("|")} == DEVICES
    # Its user, not its group, whose members only ask it.
    assert (parts["OWNER"], parts["GROUP"], parts["MODE"]) == ("xenaudio", "root", "0660")
    assert value("User") == ["xenaudio"]


def test_the_control_socket_is_where_it_is_looked_for() -> None:
    (folder,) = value("RuntimeDirectory")
    assert Path("/run", folder, "control") == SOCKET


def test_the_engine_may_have_its_priority() -> None:
    found = [
        int(number)
        for name in ("engine.c", "pulse_link.c")
        for number in re.findall(
            r"\.sched_priority = (\d+)", (TREE / "csrc/backend" / name).read_text()
        )
    ]
    assert len(found) == 2
    assert value("LimitRTPRIO") == [str(max(found))]
    assert value("RestrictRealtime") == []


def test_the_kernels_modules_that_are_needed_are_loaded() -> None:
    lines = text("modules-load.conf").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["xen-evtchn", "xen-gntdev"]


def config_of(content: str) -> Config:
    return parse(TomlFile(str(DEFAULT_FILE), content))


def test_nothing_is_set_in_the_packaged_configuration() -> None:
    config = config_of(text("xenaudio.toml"))
    assert (config.routes, config.limit_rules) == (Config().routes, ())


def test_its_examples_are_right_and_its_limits_those_that_count_without(tmp_path: Path) -> None:
    examples = re.sub(r"^#(?=\S)", "", text("xenaudio.toml"), flags=re.MULTILINE)
    if not RouteKind.PULSE.built:
        examples = examples.replace('"pulse:tcp:127.0.0.1"', '"null"')
    config = config_of(examples.replace("/var/lib/xenaudio/", f"{tmp_path}/"))
    assert len(config.routes.rules) == 2
    assert config.limits("web", 1) == Limits()
    assert config.limits("desk-1", 1) == Limits(cards=2)
