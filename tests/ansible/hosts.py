# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian hosts for the role: containers with systemd and sshd, each with an address of its own.

They and the machine that Ansible runs on are in network namespaces with a bridge between them, and
nothing else. Needs root, podman and ip.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
HANG = 300.0  # seconds after which what should end is taken for a hang
BRIDGE = "10.77.0.254"
# Hosts with systemd do without what a container may not do. (SYS_ADMIN is for sandboxed units.)
RIGHTS = ["--systemd=always", "--cap-add=SYS_ADMIN", "--dns=none"]


def settings() -> dict[str, str]:
    """Return the environment for podman: the settings that the packages are built with."""
    return {**os.environ, "CONTAINERS_CONF": str(TREE / "ci/containers/containers.conf")}


def run(
    *argv: str | os.PathLike[str],
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    limit: float = HANG,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; with `check` it is to succeed, and what it said is shown if not."""
    done = subprocess.run(
        argv,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit,
        check=False,
        env={**settings(), **(env or {})},
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(os.fspath, argv))}: exit status {done.returncode}\n"
            f"{done.stdout}{done.stderr}"
        )
    return done


def image(suite: str = "bookworm") -> str:
    """Make the hosts' image, or find it made; return its name."""
    base = run(TREE / "ci/make-base-image", "--image", suite).stdout.strip()
    name = f"localhost/xenaudio-host:{suite}"
    recipe = Path(__file__).with_name("host.Containerfile")
    with_base = ["--build-arg", f"BASE={base}", "--tag", name]
    run("podman", "build", "--quiet", *with_base, "--file", recipe, recipe.parent)
    return name


@dataclass(frozen=True)
class Host:
    """A host that is up. Its name is the container's, and the inventory's."""

    name: str
    container: str
    address: str

    def run(
        self, *argv: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there, as root."""
        attach = ["--interactive"] if stdin is not None else []
        return run("podman", "exec", *attach, self.container, *argv, check=check, stdin=stdin)

    def write(self, path: str, text: str) -> None:
        """Write a file there, and its folder."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat > "$1"', "sh", path, stdin=text)

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self.run("cat", path).stdout

    def etc(self) -> dict[str, str]:
        """Return all that is in /etc: for each path its kind, mode, owner, and its octets' hash."""
        listing = self.run(
            *("sh", "-c"),
            "cd /etc && find . -printf '%p\\t%y %m %U:%G %l\\n' && find . -type f -print0 |"
            " xargs -0 sha256sum | sed 's/^\\([^ ]*\\)  \\(.*\\)/\\2\\t\\1/'",
        ).stdout
        found: dict[str, str] = {}
        for line in listing.splitlines():
            path, _, what = line.partition("\t")
            found[path] = f"{found[path]} {what}" if path in found else what
        return found


class Fleet:
    """Hosts, and the place that Ansible runs in."""

    def __init__(self, folder: Path) -> None:
        self._tag = f"xa{os.getpid()}"
        self._folder = folder
        self.control = f"{self._tag}c"
        self._key = folder / "id"
        self._up: list[Host] = []

    @contextlib.contextmanager
    def __call__(
        self, names: Sequence[str], image_name: str, options: Sequence[str] = ()
    ) -> Iterator[dict[str, Host]]:
        """Have hosts of these names; `options` are podman's, for all of them."""
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._key)
        try:
            self._bridge()
            for number, name in enumerate(names, 1):
                self._start(name, number, image_name, options)
            for host in self._up:
                self._wait(host)
            yield {host.name: host for host in self._up}
        finally:
            self._end(len(names))

    def _bridge(self) -> None:
        run("ip", "netns", "add", self.control)
        inside = ["ip", "-n", self.control]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "add", "br0", "type", "bridge")
        run(*inside, "addr", "add", f"{BRIDGE}/24", "dev", "br0")
        run(*inside, "link", "set", "br0", "up")

    def _start(self, name: str, number: int, image_name: str, options: Sequence[str]) -> None:
        space, address = f"{self._tag}h{number}", f"10.77.0.{number}"
        run("ip", "netns", "add", space)
        link = f"{self._tag}v{number}"
        peer = ["type", "veth", "peer", "name", "eth0", "netns", space]
        run("ip", "link", "add", link, "netns", self.control, *peer)
        run("ip", "-n", self.control, "link", "set", link, "master", "br0", "up")
        run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "link", "set", "lo", "up")
        container = f"{self._tag}-{name}"
        named = ["--hostname", name, "--name", container, f"--add-host={name}:{address}"]
        network = ["--network", f"ns:/run/netns/{space}"]
        run("podman", "run", "--detach", *RIGHTS, *network, *named, *options, image_name)
        host = Host(name, container, address)
        self._up.append(host)
        public = self._key.with_suffix(".pub").read_text()
        keep = "umask 077 && mkdir -p ~/.ssh && cat > ~/.ssh/authorized_keys && ssh-keygen -q -A"
        host.run("sh", "-c", keep, stdin=public)

    def _wait(self, host: Host) -> None:
        host.run("systemctl", "is-system-running", "--wait", check=False)
        host.run("systemctl", "start", "ssh.service")
        end = time.monotonic() + HANG
        while self.inside("ssh", *self.ssh_options(), f"root@{host.address}", "true").returncode:
            assert time.monotonic() < end, f"{host.name}: ssh does not answer"
            time.sleep(0.2)

    def ssh_options(self) -> list[str]:
        """Return ssh's options for these hosts."""
        unknown = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        options = [word for option in (*unknown, "BatchMode=yes") for word in ("-o", option)]
        return ["-i", str(self._key), *options]

    def inside(
        self, *argv: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program where Ansible runs; it may fail."""
        return run("ip", "netns", "exec", self.control, *argv, check=False, env=env)

    def _end(self, count: int) -> None:
        for host in self._up:
            run("podman", "rm", "--force", "--time", "2", host.container, check=False)
        for number in range(1, count + 1):
            run("ip", "netns", "del", f"{self._tag}h{number}", check=False)
        run("ip", "netns", "del", self.control, check=False)
