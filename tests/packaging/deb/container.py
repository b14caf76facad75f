# SPDX-License-Identifier: LGPL-2.1-or-later
"""Containers of a Debian suite, and the packages that were built for it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
HANG = 900.0
"""Seconds after which a command is taken for one that hangs."""

# A Python or compiler from elsewhere is not to run instead of Debian's.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "CONTAINERS_CONF": str(TREE / "ci/containers/containers.conf"),
    **{name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ},
}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command; what it wrote, both streams as one, is its stdout."""
    return subprocess.run(
        command,
        cwd=TREE,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=HANG,
        check=False,
    )


def must(*command: str | Path, **environment: str) -> str:
    """Run a command, which must succeed; return what it wrote."""
    done = run(*command, **environment)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


@functools.cache
def base_image(suite: str) -> str:
    """Make the image of a suite's base system, if it is not there; return its name."""
    return must("ci/make-base-image", "--image", suite).splitlines()[-1]


@functools.cache
def build_image(suite: str) -> str:
    """Make the image that packages are built in, if it is not there; return its name."""
    return must("ci/build-packages", "--image", suite).splitlines()[-1]


@functools.cache
def built(suite: str) -> Path:
    """Build a suite's packages of the last commit, if they are not there; return their folder."""
    must("ci/build-packages", "--if-needed", suite)
    return TREE / "dist" / suite


@dataclass(frozen=True)
class Container:
    """A container that runs, with the machine's own network."""

    name: str

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root."""
        return run("podman", "exec", self.name, *command)

    def must(self, *command: str | Path) -> str:
        """Run a command in it, which must succeed; return what it wrote."""
        return must("podman", "exec", self.name, *command)

    @contextmanager
    def running(self, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command in it that ends when its standard input does."""
        argv = ["podman", "exec", "--interactive", self.name, *command]
        with subprocess.Popen(argv, env=ENVIRONMENT, stdin=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.communicate(timeout=HANG)

    def write(self, path: str, text: str) -> None:
        """Write a file in it."""
        self.must("sh", "-c", 'mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"', "sh", path, text)

    def apt_get(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run apt-get, which asks nothing and installs what is needed only."""
        # (What the container holds need not outlive a power cut.)
        options = ["-q", "-y", "-o", "APT::Install-Recommends=false"]
        options += ["-o", "DPkg::Options::=--force-unsafe-io"]
        return self.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options, *arguments)

    def install(self, *packages: str) -> str:
        """Install packages; return what apt-get said."""
        done = self.apt_get("install", *packages)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout


@contextmanager
def container(image: str, shared: Sequence[Path] = ()) -> Iterator[Container]:
    """Have a container of an image, with folders of this machine at their own place."""
    volumes = [f"--volume={path}:{path}" for path in shared]
    started = must("podman", "run", "--detach", *volumes, image, "sleep", "infinity")
    made = Container(started.splitlines()[-1])
    try:
        yield made
    finally:
        must("podman", "rm", "--force", "--time=0", made.name)
