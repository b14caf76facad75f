# SPDX-License-Identifier: LGPL-2.1-or-later
"""The services as systemd runs them, from the packages, in their sandboxes.

Without Xen first, then with the stand-in in its place, by drop-ins: in a container with systemd
that has the packages installed, and no network.
"""

from __future__ import annotations

import os
import random
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ansible.hosts import Host, image, run

from .container import built

PACKAGES = ("python3-xenaudio", "xenaudio-backend", "xenaudio-guest")
SERVICES = ("xenaudiod.service", "xenaudio-guestd.service")
STANDIN = "/run/standin"
VSND = (
    "[['CARD, short-name=Main', 'PCM, name=Main',"
    " 'STREAM, unique-id=out, type=p', 'STREAM, unique-id=mic, type=c']]"
)
# A buffer that has room for all of the sound: a busy machine makes no gap in it.
WHOLE = ("--period-ms=100", "--buffer-ms=300")
HEARD = "/var/lib/xenaudio/guest1-0-0-0.wav"
SPOKEN = "/var/lib/xenaudio/guest1-0-0-1.wav"

UNITS = {
    "standin.service": f"""\
[Service]
Type=exec
RuntimeDirectory=standin
ExecStart=/usr/bin/xenaudio localhv serve --dir {STANDIN}
""",
    "xenaudiod.service.d/standin.conf": f"""\
[Unit]
ConditionPathExists=
[Service]
ExecStart=
ExecStart=/usr/bin/xenaudio serve --hv {STANDIN}/dom0 --control /run/xenaudiod/control
""",
    "xenaudio-guestd.socket.d/standin.conf": "[Unit]\nConditionVirtualization=\n",
    "xenaudio-guestd.service.d/standin.conf": f"""\
[Unit]
ConditionVirtualization=
[Service]
ExecStart=
ExecStart=/usr/bin/xenaudio guestd --hv {STANDIN}/guest1
""",
}

TO_FILES = """\
[[route]]
output = "file:/var/lib/xenaudio/"
input = "file:/var/lib/xenaudio/"
microphone = "allow"
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bare(suite: str) -> Iterator[Host]:
    """A host with the packages, not on Xen."""
    debs = [path for name in PACKAGES for path in built(suite).glob(f"{name}_*.deb")]
    container = f"xaunits-{os.getpid()}-{suite}"
    named = ["--name", container, "--hostname", "units"]
    # (SYS_ADMIN is for the sandboxes.)
    options = ["--detach", "--systemd=always", "--cap-add=SYS_ADMIN", "--network=none"]
    run("podman", "run", *options, *named, image(suite), "/sbin/init")
    try:
        host = Host("units", container, "")
        host.run("mkdir", "/packages")
        for deb in debs:
            run("podman", "cp", deb, f"{container}:/packages/")
        host.run("sh", "-c", "while ! systemctl list-jobs | grep -q '^No jobs'; do sleep .1; done")
        host.run("sh", "-c", "DEBIAN_FRONTEND=noninteractive dpkg --install /packages/*.deb")
        yield host
    finally:
        run("podman", "rm", "--force", "--time=2", container)


def said(host: Host, unit: str) -> str:
    return host.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout


def shown(host: Host, unit: str, *what: str) -> list[str]:
    """What systemd knows of a unit, of each property."""
    answer = host.run("systemctl", "show", f"--property={','.join(what)}", unit).stdout
    found = dict(line.split("=", 1) for line in answer.splitlines())
    return [found[name] for name in what]


@pytest.mark.parametrize("unit", ["xenaudiod.service", "xenaudio-guestd.socket"])
def test_without_xen_a_unit_is_skipped_and_says_why(bare: Host, unit: str) -> None:
    bare.run("systemctl", "start", unit)
    assert shown(bare, unit, "ActiveState", "Result") == ["inactive", "success"]
    why = bare.run("systemctl", "status", "--no-pager", unit, check=False).stdout
    assert "unmet condition" in why
    assert "ConditionPathExists=/dev/xen" in why or "ConditionVirtualization=xen" in why


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("serve --hv xen", "is this machine running on Xen, and its xenstored?"),
        ("guestd", "is this a Xen guest"),
    ],
)
def test_without_xen_a_service_by_hand_says_so_and_fails(
    bare: Host, command: str, hint: str
) -> None:
    done = bare.run("xenaudio", *command.split(), check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    assert hint in line


def test_systemd_takes_the_units_as_they_are_installed(bare: Host) -> None:
    units = ["xenaudiod.service", "xenaudio-guestd.socket", "xenaudio-guestd.service"]
    done = bare.run("systemd-analyze", "verify", *units, check=False)
    # (Manual pages: there is no man.)
    complaints = [line for line in done.stderr.splitlines() if "Command 'man " not in line]
    assert [line for line in complaints if "xenaudio" in line] == []


@pytest.mark.parametrize(
    ("unit", "most"), [("xenaudiod.service", 20), ("xenaudio-guestd.service", 15)]
)
def test_systemd_finds_the_installed_units_well_locked_up(bare: Host, unit: str, most: int) -> None:
    bare.run("systemd-analyze", "security", "--offline=true", f"--threshold={most}", unit)


def test_the_packages_made_the_user_and_what_is_the_users(bare: Host) -> None:
    assert bare.run("id", "--name", "--user", "xenaudio").stdout == "xenaudio\n"
    assert "nologin" in bare.run("getent", "passwd", "xenaudio").stdout
    assert bare.run("xenaudio", "check").stdout.startswith("/etc/xenaudio/xenaudio.toml: right")


@pytest.fixture(scope="module")
def host(bare: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The same host with the stand-in, the services, a guest, and sound to play and record."""
    for name, text in UNITS.items():
        bare.write(f"/etc/systemd/system/{name}", text)
    bare.run("systemctl", "daemon-reload")
    bare.run("systemctl", "start", "standin.service")
    # The domain's socket stands for what udev gives the service's user.
    wait_for(bare, f"test -S {STANDIN}/dom0 && chown xenaudio {STANDIN}/dom0")
    bare.run("systemctl", "start", "xenaudiod.service")
    bare.run("xenaudio", "localhv", "create", "--dir", STANDIN, "guest1", "--vsnd", VSND)
    bare.run("systemctl", "start", "xenaudio-guestd.socket")
    sound = tmp_path_factory.mktemp("sound") / "noise.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((2, 2, 48000, 0, "NONE", ""))
        file.writeframes(random.Random(1).randbytes(4 * 12000))
    run("podman", "cp", sound, f"{bare.container}:/noise.wav")
    return bare


def wait_for(host: Host, condition: str) -> None:
    """Wait until a shell's condition holds (four minutes at most, for a hang)."""
    host.run("timeout", "240", "sh", "-c", f"until {condition}; do sleep .1; done")


def as_user(host: Host, *argv: str, check: bool = True) -> str:
    """Run a program as an ordinary user; returns what it said."""
    done = host.run("runuser", "-u", "listener", "--", *argv, check=check)
    return done.stdout + done.stderr


@pytest.fixture
def play(host: Host) -> Callable[[], None]:
    return lambda: void(as_user(host, "xenaudio", "play", "--quiet", *WHOLE, "/noise.wav"))


def void(said: str) -> None:
    assert said == ""


def test_systemd_is_told_when_it_serves_and_what_it_does(host: Host) -> None:
    state, user, does = shown(host, "xenaudiod.service", "ActiveState", "User", "StatusText")
    assert (state, user) == ("active", "xenaudio")
    assert does.startswith("Serving ")


def test_root_and_the_services_group_may_ask_it_and_others_not(host: Host) -> None:
    assert "guest1 (domain 1)" in host.run("xenaudio", "status").stdout
    host.run("runuser", "-u", "listener", "-g", "xenaudio", "--", "xenaudio", "status")
    refused = as_user(host, "xenaudio", "status", check=False)
    assert "only root and members of the group xenaudio may ask the service" in refused


def test_a_bad_configuration_fails_the_reload_and_changes_nothing(host: Host) -> None:
    host.write("/etc/xenaudio/xenaudio.toml", '[[route]]\nmicrophone = "yes"\n')
    before = shown(host, "xenaudiod.service", "ActiveState", "MainPID")
    assert host.run("systemctl", "reload", "xenaudiod.service", check=False).returncode != 0
    assert 'xenaudio.toml:2: microphone = "yes": expected' in said(host, "xenaudiod.service")
    assert shown(host, "xenaudiod.service", "ActiveState", "MainPID") == before
    assert "refused" not in host.run("xenaudio", "status").stdout


def test_a_user_plays_and_records_through_both_services_and_it_is_bit_exact(
    host: Host, play: Callable[[], None], tmp_path: Path
) -> None:
    host.run("install", "-o", "xenaudio", "-m", "640", "/noise.wav", SPOKEN)
    host.write("/etc/xenaudio/xenaudio.toml", TO_FILES)
    host.run("systemctl", "reload", "xenaudiod.service")
    wait_for(
        host, "journalctl --unit=xenaudiod.service --output=cat | grep -q 'configuration was read'"
    )
    play()
    as_user(host, "xenaudio", "record", "--quiet", *WHOLE, "--seconds=.2", "/tmp/take.wav")
    sent, heard, taken = (
        frames_of(host, path, tmp_path) for path in ("/noise.wav", HEARD, "/tmp/take.wav")
    )
    assert sent in heard
    assert taken in sent


def frames_of(host: Host, path: str, folder: Path) -> bytes:
    """The samples of a WAV file there, without the silence around them."""
    here = folder / Path(path).name
    run("podman", "cp", f"{host.container}:{path}", here)
    with wave.open(str(here), "rb") as file:
        return file.readframes(file.getnframes()).strip(b"\0")


def test_a_service_that_is_killed_is_back_and_plays(host: Host, play: Callable[[], None]) -> None:
    host.run("systemctl", "start", *SERVICES)
    for unit in SERVICES:
        (pid,) = shown(host, unit, "MainPID")
        host.run("kill", "-KILL", pid)
        wait_for(
            host,
            f"systemctl is-active --quiet {unit} &&"
            f" test $(systemctl show --value -p MainPID {unit}) != {pid}",
        )
    play()


def test_an_upgrade_restarts_what_runs(host: Host, play: Callable[[], None]) -> None:
    host.run("systemctl", "start", *SERVICES)
    before = [shown(host, unit, "ActiveState", "MainPID") for unit in SERVICES]
    configuration = host.read("/etc/xenaudio/xenaudio.toml")
    host.run("sh", "-c", "dpkg --force-confold --install /packages/*.deb")
    after = [shown(host, unit, "ActiveState", "MainPID") for unit in SERVICES]
    assert [state for state, _pid in after] == ["active", "active"]
    assert {pid for _state, pid in before} & {pid for _state, pid in after} == set()
    play()
    assert host.read("/etc/xenaudio/xenaudio.toml") == configuration


def test_stopped_a_service_ends_cleanly(host: Host) -> None:
    for unit in ("xenaudiod.service", "xenaudio-guestd.socket", "xenaudio-guestd.service"):
        host.run("systemctl", "stop", unit)
        assert shown(host, unit, "ActiveState", "Result") == ["inactive", "success"]
    for path in ("/run/xenaudiod/control", "/run/xenaudio/guestd.sock"):
        host.run("test", "!", "-e", path)
    refused = host.run("xenaudio", "status", check=False)
    assert "is it running (systemctl status xenaudiod)?" in refused.stderr
