# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest package's files: units that systemd takes, a sandbox, and limits that agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xenaudio.guestd.devices import EVTCHN, GNTALLOC
from xenaudio.guestd.limits import Limit
from xenaudio.guestd.wire import SOCKET

TREE = Path(__file__).resolve().parents[2]
FILES = TREE / "packaging" / "guest"

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def text(name: str) -> str:
    return (FILES / name).read_text()


def value(name: str, key: str) -> list[str]:
    """What a unit sets a key to, each time."""
    return re.findall(rf"^{key}=(.*)$", text(name), re.MULTILINE)


@with_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    # The command's place need not exist here, nor its manual page.
    for unit in ("xenaudio-guestd.service", "xenaudio-guestd.socket"):
        changed = text(unit).replace("/usr/bin/xenaudio", "/bin/true")
        (tmp_path / unit).write_text(re.sub("^Documentation=.*$", "", changed, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    own = [line for line in done.stderr.splitlines() if "xenaudio" in line]
    assert own == []


@with_systemd
def test_systemd_finds_the_service_well_locked_up() -> None:
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            "--threshold=15",  # of 100; 9 when this was written
            str(FILES / "xenaudio-guestd.service"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_socket_is_where_programs_look_for_it() -> None:
    header = (TREE / "csrc/hv/guestd_wire.h").read_text()
    assert value("xenaudio-guestd.socket", "ListenStream") == [SOCKET]
    assert f'#define XA_GUESTD_SOCKET "{SOCKET}"' in header
    assert value("xenaudio-guestd.socket", "SocketMode") == ["0666"]


def test_the_service_may_open_what_it_opens_and_no_more() -> None:
    assert value("xenaudio-guestd.service", "DevicePolicy") == ["closed"]
    allowed = {line.split()[0] for line in value("xenaudio-guestd.service", "DeviceAllow")}
    assert allowed == {GNTALLOC, EVTCHN, "/dev/xen/xenbus"}


def test_event_channels_that_were_lost_outlive_the_service() -> None:
    assert value("xenaudio-guestd.service", "KillMode") == ["process"]


def test_the_kernel_grants_more_pages_than_one_user_may_have() -> None:
    found = re.search(r"^options xen_gntalloc limit=(\d+)$", text("modprobe.conf"), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > Limit.PAGES.most


def test_the_kernels_own_driver_stays_away() -> None:
    assert "blacklist snd_xen_front" in text("modprobe.conf").splitlines()


def test_the_kernels_modules_that_are_needed_are_loaded() -> None:
    lines = text("modules-load.conf").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["xen-gntalloc", "xen-evtchn"]


def test_pulseaudio_without_the_module_starts_all_the_same() -> None:
    lines = [line for line in text("default.pa").splitlines() if not line.startswith("#")]
    assert lines == [
        ".ifexists module-xenpv-detect.so",
        "load-module module-xenpv-detect",
        ".endif",
    ]
