# SPDX-License-Identifier: LGPL-2.1-or-later
"""The role on two hosts, over ssh: from bare to verified sound, once more, and away again.

Xen is the stand-in here: its sockets are shared with both hosts, and drop-ins of the hosts' own
point the services to them. What xl does with a configuration, the stand-in does with its `vsnd`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import BRIDGE, TREE, Fleet, Host, image
from packages import Repository, build, copied, foreign_key, signed_repository

from xenaudio.localhv.control import request

# The first one makes the packages and the hosts, each where they are not made yet.
pytestmark = pytest.mark.timeout(2400)

ANSIBLE = TREE / "ansible"
DOM0, GUEST = "xen1.example", "desk1.example"
CONFIG = "/etc/xen/desk1.cfg"
XL_CONFIG = """\
# The desk at the window.
name = "desk1"
memory = 2048; vcpus = 2
disk = [ 'phy:/dev/vg/desk1,xvda,w',   # its system
         'phy:/dev/vg/home,xvdb,w' ]
on_crash = 'restart'
"""
SERVICE = """\
[Unit]
ConditionPathExists=
[Service]
ExecStart=
ExecStart=/usr/bin/xenaudio serve --hv /run/standin/dom0 --control /run/xenaudiod/control
"""
NOT_ON_XEN = "[Unit]\nConditionVirtualization=\n"
GUEST_SERVICE = f"""\
{NOT_ON_XEN}[Service]
ExecStart=
ExecStart=/usr/bin/xenaudio guestd --hv /run/standin/desk1
"""
UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class Play:
    """How a run of ansible-playbook ended."""

    status: int
    output: str
    changed: dict[str, int]
    failures: dict[str, str]
    """For each host that failed, the message."""


@dataclass
class Site:
    """Two hosts, the stand-in, and an inventory."""

    fleet: Fleet
    dom0: Host
    guest: Host
    standin: Path
    inventory: Path
    repository: Repository
    before: dict[str, dict[str, str]]
    """What was in /etc of each host."""

    def play(self, playbook: str, *options: str, inventory: Path | None = None) -> Play:
        """Run a playbook, with ansible/ansible.cfg."""
        done = self.fleet.inside(
            *(str(Path(sys.executable).with_name("ansible-playbook")), str(ANSIBLE / playbook)),
            *("-i", str(inventory or self.inventory), *options),
            env={
                "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
                "ANSIBLE_HOME": str(self.inventory.parent / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
            },
        )
        return told(done)


def told(done: subprocess.CompletedProcess[str]) -> Play:
    """Read what the callback `default` says."""
    failures: dict[str, str] = {}
    for host, said in re.findall(
        r"^(?:fatal|failed): \[([^\]]+)\][^\n]*? => (\{.*\})$", done.stdout, re.MULTILINE
    ):
        result = json.loads(said)
        texts = [result.get("msg", ""), *result.get("argument_errors", ())]
        failures[host] = "\n".join([*filter(None, [failures.get(host)]), *texts])
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) ", done.stdout, re.MULTILINE)
    changed = {host: int(count) for host, count in recap}
    return Play(done.returncode, done.stdout + done.stderr, changed, failures)


@contextlib.contextmanager
def stand_in(folder: Path) -> Iterator[None]:
    """Run the stand-in; whoever reaches its sockets may use them, as the service's user must."""
    folder.mkdir(mode=0o755)
    argv = [sys.executable, "-m", "xenaudio.cli.main", "localhv", "serve", "--dir", str(folder)]
    log = (folder.parent / "standin.log").open("wb")
    with log, subprocess.Popen(argv, stdout=log, stderr=log, umask=0, cwd=TREE) as process:
        try:
            end = time.monotonic() + 60
            while not (folder / "control").exists():
                assert process.poll() is None, "the stand-in ended"
                assert time.monotonic() < end, "the stand-in does not start"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def serve_files(fleet: Fleet, folder: Path) -> Iterator[None]:
    """Serve a folder to the hosts by HTTP."""
    argv = [sys.executable, "-m", "http.server", "--directory", str(folder), "--bind", BRIDGE]
    inside = ["ip", "netns", "exec", fleet.control, *argv, "8080"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(inside, stdout=quiet, stderr=quiet) as process:
        try:
            yield
        finally:
            process.terminate()


def write_inventory(folder: Path, hosts: dict[str, Host], common: dict[str, Any]) -> Path:
    """Make an inventory of the example in the tree, with these hosts and group_vars."""
    inventory = folder / "inventory"
    shutil.copytree(ANSIBLE / "inventory/example", inventory)
    (inventory / "group_vars/all.yml").write_text(yaml.safe_dump(common))
    for name, host in hosts.items():
        add_variables(inventory, name, ansible_host=host.address)
    return inventory


def add_variables(inventory: Path, name: str, **variables: Any) -> None:
    """Give a host more variables."""
    path = inventory / "host_vars" / f"{name}.yml"
    known = path.read_text() if path.exists() else ""
    path.write_text(f"{known}\n{yaml.safe_dump(variables)}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two bare hosts."""
    folder = tmp_path_factory.mktemp("site")
    standin = folder / "x"
    dist = build()
    repository = signed_repository(dist, folder, f"http://{BRIDGE}:8080")
    with contextlib.ExitStack() as stack:
        stack.enter_context(stand_in(standin))
        fleet = Fleet(folder)
        shared = ["--volume", f"{standin}:/run/standin"]
        hosts = stack.enter_context(fleet((DOM0, GUEST), image(), shared))
        stack.enter_context(serve_files(fleet, repository.folder))
        request(standin, "create", name="desk1", vsnd=None, wait=False)
        dom0, guest = hosts[DOM0], hosts[GUEST]
        dom0.write(f"{UNITS}/xenaudiod.service.d/standin.conf", SERVICE)
        guest.write(f"{UNITS}/xenaudio-guestd.service.d/standin.conf", GUEST_SERVICE)
        guest.write(f"{UNITS}/xenaudio-guestd.socket.d/standin.conf", NOT_ON_XEN)
        dom0.write(CONFIG, XL_CONFIG)
        common = {
            "ansible_user": "root",
            "ansible_ssh_common_args": " ".join(fleet.ssh_options()),
            "ansible_python_interpreter": "/usr/bin/python3",
            "xenaudio_require_xen": False,
            "xenaudio_repository_url": repository.url,
            "xenaudio_repository_key": repository.key,
        }
        inventory = write_inventory(folder, hosts, common)
        # dom0 takes the packages from the repository, the guest has them as files.
        files = copied(dist, folder / "packages")
        add_variables(
            inventory, GUEST, xenaudio_repository_url="", xenaudio_packages_dir=str(files)
        )
        before = {name: host.etc() for name, host in hosts.items()}
        yield Site(fleet, dom0, guest, standin, inventory, repository, before)


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return what is not the same: for each path what it was and is, empty where it was not."""
    return {
        path: (before.get(path, ""), after.get(path, ""))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    }


def nothing_changed(site: Site) -> bool:
    return all(
        not differences(site.before[host.name], host.etc()) for host in (site.dom0, site.guest)
    )


def aliases(site: Site, name: str, hosts: dict[str, dict[str, Any]]) -> Path:
    """Write an inventory in which dom0 has many names, each with variables of its own."""
    shared = yaml.safe_load((site.inventory / "group_vars/all.yml").read_text())
    own = yaml.safe_load((site.inventory / f"host_vars/{DOM0}.yml").read_text())
    inventory = site.inventory.parent / name
    group = {host: {**shared, **own, **variables} for host, variables in hosts.items()}
    inventory.write_text(yaml.safe_dump({"xenaudio_dom0": {"hosts": group}}))
    return inventory


KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nx\n-----END PGP PUBLIC KEY BLOCK-----\n"
STREAM = {"card": [{"pcm": [{"stream": [{"type": "playback"}]}]}]}

# For each host its variables, and what the message has to say.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "bad-state": (
        {"xenaudio_state": "gone"},
        "value of xenaudio_state must be one of: present, absent, got: gone",
    ),
    "bad-routes": (
        {"xenaudio_routes": "null"},
        "'xenaudio_routes' is of type str and we were unable to convert to dict",
    ),
    "bad-route-key": (
        {"xenaudio_routes": [{"guest": "desk*", "outptu": "null"}]},
        "outptu",
    ),
    "bad-microphone": (
        {"xenaudio_routes": [{"microphone": "perhaps"}]},
        "value of microphone must be one of: deny, allow, got: perhaps found in xenaudio_routes",
    ),
    "bad-limit": ({"xenaudio_limits": [{"cards": "many"}]}, "cards"),
    "bad-url": (
        {"xenaudio_repository_url": "packages.example"},
        "bad-url: xenaudio_repository_url = packages.example: expected http://..., https://... or",
    ),
    "no-key": (
        {"xenaudio_repository_url": "https://x.example", "xenaudio_repository_key": ""},
        "no-key: xenaudio_repository_key = (nothing): expected the armoured public key of https:",
    ),
    "cut-key": (
        {
            "xenaudio_repository_url": "https://x.example",
            "xenaudio_repository_key": KEY.splitlines()[0],
        },
        "cut-key: xenaudio_repository_key = -----BEGIN PGP PUBLIC KEY BLOCK-----: expected the",
    ),
    "secret-key": (
        {
            "xenaudio_repository_url": "https://x.example",
            "xenaudio_repository_key": KEY.replace("PUBLIC", "PRIVATE"),
        },
        "secret-key: xenaudio_repository_key = -----BEGIN PGP PRIVATE KEY BLOCK-----: expected",
    ),
    "two-sources": (
        {"xenaudio_repository_url": "https://x.example", "xenaudio_packages_dir": "/debs"},
        "two-sources: xenaudio_packages_dir = /debs: expected either this or xenaudio_repository_",
    ),
    "no-packages": (
        {"xenaudio_repository_url": "", "xenaudio_packages_dir": "/nonexistent"},
        "no-packages: xenaudio_packages_dir = /nonexistent: expected one file python3-xenaudio_*",
    ),
    "no-path": (
        {"xenaudio_guests": [{"config": "desk1.cfg", "sound": STREAM}]},
        'no-path: xenaudio_guests: {"config": "desk1.cfg"',
    ),
    "no-config": (
        {"xenaudio_guests": [{"sound": STREAM}]},
        "missing required arguments: config found in xenaudio_guests",
    ),
    "no-sound": (
        {"xenaudio_guests": [{"config": CONFIG}]},
        f'no-sound: xenaudio_guests: {{"config": "{CONFIG}"}}: expected config with a whole path, '
        "and sound (or state absent)",
    ),
    "twice": (
        {"xenaudio_guests": [{"config": CONFIG, "sound": STREAM}] * 2},
        f"twice: xenaudio_guests: {CONFIG}, {CONFIG}: expected each config once",
    ),
    "no-xen": (
        {"xenaudio_require_xen": True},
        "no-xen: /dev/xen: there is none: expected a host that runs on Xen",
    ),
    "no-file": (
        {"xenaudio_guests": [{"config": "/etc/xen/none.cfg", "sound": STREAM}]},
        "/etc/xen/none.cfg: there is none: expected a guest's xl configuration",
    ),
    "bad-file": (
        {"xenaudio_guests": [{"config": "/etc/debian_version", "sound": STREAM}]},
        "/etc/debian_version: line 1, column 3: '.': this looks like Python",
    ),
}


def test_a_trial_on_bare_hosts_tells_what_would_change_and_changes_nothing(site: Site) -> None:
    play = site.play("site.yml", "--check", "--diff")
    assert play.status == 0, play.output
    assert all(play.changed[name] > 0 for name in (DOM0, GUEST))
    assert nothing_changed(site)


def test_what_cannot_work_is_refused_before_anything_is_changed(site: Site) -> None:
    inventory = aliases(site, "bad.yml", {name: given for name, (given, _) in BAD.items()})
    play = site.play("site.yml", "--forks", "8", inventory=inventory)
    assert set(play.failures) == set(BAD), play.output
    for name, (_, expected) in BAD.items():
        assert expected in re.sub(r"\s+", " ", play.failures[name]), name
    assert set(play.changed.values()) == {0}
    assert nothing_changed(site)


def test_a_repository_that_another_key_signed_is_refused(site: Site) -> None:
    key = foreign_key(site.inventory.parent / "foreign")
    inventory = aliases(site, "foreign.yml", {"foreign": {"xenaudio_repository_key": key}})
    play = site.play("site.yml", inventory=inventory)
    message = re.sub(r"\s+", " ", play.failures["foreign"])
    assert f"foreign: xenaudio_repository_url = {site.repository.url}: " in message
    assert "is xenaudio_repository_key the key of this repository?" in message
    assert nothing_changed(site)


@pytest.fixture(scope="module")
def deployed(site: Site) -> Site:
    """The hosts after the first run."""
    play = site.play("site.yml")
    assert play.status == 0, play.output
    return site


def test_the_first_run_writes_vsnd_and_leaves_the_rest_of_the_file(deployed: Site) -> None:
    assert deployed.dom0.read(CONFIG) == XL_CONFIG + (
        "vsnd = [\n"
        "  [ 'CARD, short-name=Desk, sample-rates=48000, sample-formats=s16_le',\n"
        "    'PCM, name=Desk',\n"
        "    'STREAM, unique-id=out, type=p' ]\n"
        "]\n"
    )


def test_the_service_runs_with_the_configuration(deployed: Site) -> None:
    status = json.loads(deployed.dom0.run("xenaudio", "status", "--json").stdout)
    assert status["config"] == "/etc/xenaudio/xenaudio.toml"
    assert status["config_refused"] is None
    text = deployed.dom0.read("/etc/xenaudio/xenaudio.toml")
    assert '[[route]]\nguest = "desk*"\noutput = "file:/var/lib/xenaudio/"\n' in text


def test_the_second_run_changes_nothing(deployed: Site) -> None:
    play = deployed.play("site.yml")
    assert play.status == 0, play.output
    assert play.changed == {DOM0: 0, GUEST: 0}, play.output


def test_a_bad_configuration_is_refused_and_what_was_there_stays(deployed: Site) -> None:
    other = "/etc/xen/desk2.cfg"
    deployed.dom0.write(other, "name = 'desk2'\n")
    before = deployed.dom0.etc()
    good = {"config": other, "sound": STREAM}
    bad = {"card": [{"pcm": [{"stream": [{"type": "microphone"}]}]}]}
    inventory = aliases(
        deployed,
        "bad-configuration.yml",
        {
            "bad-output": {
                "xenaudio_routes": [{"output": "pulse:x"}, {"guest": "desk*", "output": "louder"}],
                "xenaudio_guests": [good],
            },
            "bad-sound": {"xenaudio_guests": [good, {"config": CONFIG, "sound": bad}]},
        },
    )
    tags = ("--tags", "xenaudio_config,xenaudio_guests")
    play = deployed.play("site.yml", *tags, inventory=inventory)
    assert set(play.failures) == {"bad-output", "bad-sound"}, play.output
    place = "bad-output: xenaudio_routes, xenaudio_limits: /etc/xenaudio/xenaudio.toml:"
    assert place in play.failures["bad-output"]
    assert 'output = "louder": not a route, expected' in play.failures["bad-output"]
    place = "sound.card[0].pcm[0].stream[0]"
    assert (
        f'{CONFIG}: nothing was changed:\n{place}: type = "microphone"'
        in (play.failures["bad-sound"])
    )
    assert not differences(before, deployed.dom0.etc())
    deployed.dom0.run("rm", other)


def test_without_a_service_no_vsnd_is_written(deployed: Site) -> None:
    other = "/etc/xen/desk2.cfg"
    drop_in = "/run/systemd/system/xenaudiod.service.d/zz-broken.conf"
    deployed.dom0.write(other, "name = 'desk2'\n")
    deployed.dom0.write(drop_in, "[Service]\nExecStart=\nExecStart=/bin/false\n")
    deployed.dom0.run("systemctl", "daemon-reload")
    deployed.dom0.run("systemctl", "stop", "xenaudiod")
    before = deployed.dom0.etc()
    guests = [{"config": other, "sound": STREAM}]
    inventory = aliases(deployed, "broken.yml", {"broken": {"xenaudio_guests": guests}})
    try:
        tags = ("--tags", "xenaudio_config,xenaudio_guests")
        play = deployed.play("site.yml", *tags, inventory=inventory)
        assert "xenaudiod.service" in play.failures["broken"], play.output
        assert not differences(before, deployed.dom0.etc())
    finally:
        deployed.dom0.run("rm", other, drop_in)
        deployed.dom0.run("systemctl", "daemon-reload")
        deployed.dom0.run("systemctl", "reset-failed", "xenaudiod")
        deployed.dom0.run("systemctl", "start", "xenaudiod")


@pytest.fixture(scope="module")
def attached(deployed: Site) -> Site:
    """The guest with the card that its configuration has, as after `xl create`."""
    text = deployed.dom0.read(CONFIG)
    vsnd = text[text.index("vsnd = ") :]
    request(deployed.standin, "attach", name="desk1", vsnd=vsnd, wait=True)
    return deployed


def test_a_known_sound_arrives_bit_for_bit(attached: Site) -> None:
    play = attached.play("verify.yml")
    assert play.status == 0, play.output
    assert "verified sound: 48000 frames of desk1 are in /var/lib/xenaudio/desk1-" in play.output


def start_pulseaudio(guest: Host, user: str) -> None:
    """Start a user's PulseAudio, with the configuration that the host has."""
    number = guest.run("id", "-u", user).stdout.strip()
    runtime = f"/run/user/{number}"
    guest.run("install", "-d", "-o", user, "-m", "700", runtime)
    environment = [f"--setenv=XDG_RUNTIME_DIR={runtime}", f"--setenv=HOME=/home/{user}"]
    daemon = ["pulseaudio", "--daemonize=no", "--exit-idle-time=-1"]
    guest.run("systemd-run", "--unit=pulse", f"--uid={user}", *environment, *daemon)
    end = time.monotonic() + 60
    client = ["runuser", f"--user={user}", "--", "env", f"XDG_RUNTIME_DIR={runtime}"]
    while "xenpv" not in guest.run(*client, "pactl", "list", "short", "sinks", check=False).stdout:
        assert time.monotonic() < end, guest.run("journalctl", "-u", "pulse", "-n", "50").stdout
        time.sleep(0.2)


def test_a_users_pulseaudio_plays_it_bit_for_bit(attached: Site) -> None:
    start_pulseaudio(attached.guest, "listener")
    play = attached.play("verify.yml", "--extra-vars", "xenaudio_verify_user=listener")
    attached.guest.run("systemctl", "stop", "pulse")
    assert play.status == 0, play.output
    assert "verified sound: 48000 frames of desk1 are in /var/lib/xenaudio/desk1-" in play.output


def test_a_default_pa_that_does_not_read_its_folder_is_left_alone(attached: Site) -> None:
    default, without = "/etc/pulse/default.pa", "/etc/pulse/default.pa.d/xenaudio-guest.pa"
    assert "xenpv" in attached.guest.read(without)
    attached.guest.run("cp", "-a", default, f"{default}.kept")
    attached.guest.run("sed", "-i", "/default.pa.d/d", default)
    before = attached.guest.etc()
    only = ("--limit", GUEST, "--tags", "xenaudio_config")
    for changes in (3, 0):
        play = attached.play("site.yml", *only)
        assert play.changed == {GUEST: changes}, play.output
    start_pulseaudio(attached.guest, "listener")  # which has the card then
    attached.guest.run("systemctl", "stop", "pulse")
    changed = differences(before, attached.guest.etc())
    assert set(changed) >= {"./pulse/xenaudio.pa", "./pulse/daemon.conf.d/xenaudio.conf"}
    assert "./pulse/default.pa" not in changed
    attached.guest.run("mv", f"{default}.kept", default)
    assert attached.play("site.yml", *only).changed == {GUEST: 1}
    left = differences(attached.before[GUEST], attached.guest.etc())
    assert "./pulse/default.pa" not in left
    assert "./pulse/xenaudio.pa" not in left
    attached.guest.run("rmdir", "/etc/pulse/daemon.conf.d")


def test_a_guest_without_a_card_is_told(deployed: Site) -> None:
    play = deployed.play("verify.yml", "--extra-vars", "xenaudio_domain=desk9")
    assert play.status != 0
    assert "desk9: the service has no card of it" in play.output


# What adduser and deluser leave of the last version of their files, whoever calls them.
LEFT_BY_SHADOW = {"./passwd-", "./group-", "./shadow-", "./gshadow-"}
ACCOUNTS = {name.rstrip("-") for name in LEFT_BY_SHADOW}


def test_removal_puts_etc_back_and_leaves_what_was_recorded(attached: Site) -> None:
    recorded = attached.dom0.run("ls", "/var/lib/xenaudio").stdout
    assert recorded
    away = ("--extra-vars", "xenaudio_state=absent")
    play = attached.play("site.yml", *away)
    assert play.status == 0, play.output
    # The recordings have their owner as long as they are there.
    assert attached.dom0.run("ls", "/var/lib/xenaudio").stdout == recorded
    left = differences(attached.before[DOM0], attached.dom0.etc())
    assert set(left) <= LEFT_BY_SHADOW | ACCOUNTS
    attached.dom0.run("rm", "-r", "/var/lib/xenaudio")
    play = attached.play("site.yml", *away)
    assert play.changed == {DOM0: 1, GUEST: 0}, play.output
    assert set(differences(attached.before[DOM0], attached.dom0.etc())) <= LEFT_BY_SHADOW
    assert not differences(attached.before[GUEST], attached.guest.etc())
    for host in (attached.dom0, attached.guest):
        assert "xenaudio" not in host.run("dpkg-query", "-W", "-f", "${Package}\n").stdout
