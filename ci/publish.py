# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signed apt and dnf repositories of the packages in dist/ (ci/publish).

    DIR/xenaudio.asc            the public key
    DIR/xenaudio-SUITE.sources  what a user puts into /etc/apt/sources.list.d
    DIR/xenaudio-TARGET.repo    what a user puts into /etc/yum.repos.d
    DIR/apt/dists/SUITE         a suite for each dist/SUITE with .deb files; InRelease is signed
    DIR/apt/pool/SUITE          its packages. (Not one pool for all: two suites' components have the
                                same name and differ)
    DIR/rpm/TARGET              a repository for each dist/TARGET with .rpm files; each package and
                                repomd.xml are signed

The tree is made beside DIR and takes its place in one step, so whoever reads DIR meanwhile sees the
old one or the new one. DIR stays as it was when anything goes wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
KEY = "XENAUDIO_SIGNING_KEY"
PASSPHRASE = "XENAUDIO_SIGNING_PASSPHRASE"
PUBLIC_KEY = "xenaudio.asc"

# From <fcntl.h> and <linux/fs.h>.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


class PublishError(Exception):
    """Why nothing was published, for people."""


def run(argv: Sequence[str | Path], *, folder: Path | None = None, stdin: str = "") -> str:
    """Run a tool; returns what it printed. PublishError if it fails, or is not there."""
    try:
        done = subprocess.run(
            argv, cwd=folder, input=stdin, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise PublishError(
            f"{argv[0]} is missing: install the Debian packages of ci/apt-publish.txt"
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        command = shlex.join(str(word) for word in argv)
        raise PublishError(f"{command}: {' / '.join(said[-4:]) or f'status {done.returncode}'}")
    return done.stdout


@dataclass(frozen=True)
class SigningKey:
    """A secret key in a GnuPG home of its own."""

    home: Path
    fingerprint: str

    def unlock(self) -> list[str]:
        """Return gpg's options for signing without asking anyone."""
        file = self.home / "passphrase"
        return ["--pinentry-mode", "loopback", "--passphrase-file", str(file)]

    def gpg(self, *arguments: str | Path) -> str:
        """Run gpg with this key."""
        return run(["gpg", "--homedir", self.home, "--batch", "--yes", *arguments])

    def sign(self, how: str, text: Path, signature: Path) -> None:
        """Sign a file: `how` is --clear-sign or --detach-sign."""
        key = ["--local-user", self.fingerprint, "--digest-algo", "SHA512"]
        self.gpg(*self.unlock(), *key, "--armor", "--output", signature, how, text)

    def public(self) -> str:
        """Return the armoured public key."""
        return self.gpg("--armor", "--export", self.fingerprint)

    def sign_rpms(self, packages: Sequence[Path]) -> None:
        """Sign RPM packages, in place."""
        macros = {
            "__gpg": shutil.which("gpg") or "gpg",
            "_gpg_name": self.fingerprint,
            "_gpg_path": str(self.home),
            "_gpg_digest_algo": "sha256",
            "_gpg_sign_cmd_extra_args": shlex.join(["--batch", *self.unlock()]),
        }
        defined = [word for name, value in macros.items() for word in ("-D", f"{name} {value}")]
        run(["rpmsign", *defined, "--addsign", *packages])


@contextmanager
def signing_key() -> Iterator[SigningKey]:
    """Read the key from the environment, and try it; it is on no disk afterwards."""
    armoured = os.environ.get(KEY, "")
    if not armoured.strip():
        raise PublishError(
            f"{KEY} is not set: it has to hold a secret key, as printed by "
            "gpg --armor --export-secret-keys KEY"
        )
    with tempfile.TemporaryDirectory(prefix="xenaudio-key-") as folder:
        home = Path(folder)
        (home / "passphrase").write_text(os.environ.get(PASSPHRASE, "") + "\n")
        unlock = SigningKey(home, "").unlock()
        try:
            try:
                run(["gpg", "--homedir", home, "--batch", *unlock, "--import"], stdin=armoured)
            except PublishError as error:
                raise PublishError(f"{KEY} is not a key that gpg can read: {error}") from error
            listed = run(["gpg", "--homedir", home, "--with-colons", "--list-secret-keys"])
            found = re.findall(r"^sec:.*\n(?:.*\n)??fpr:+([0-9A-F]+):", listed, re.MULTILINE)
            if len(found) != 1:
                raise PublishError(f"{KEY} holds {len(found)} secret keys, expected one")
            key = SigningKey(home, found[0])
            try:
                key.sign("--detach-sign", home / "passphrase", home / "tried")
            except PublishError as error:
                raise PublishError(
                    f"the key of {KEY} cannot sign (expired, or {PASSPHRASE} is not its "
                    f"passphrase?): {error}"
                ) from error
            yield key
        finally:
            # The agent that gpg started keeps the folder's sockets, and the key.
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def built(dist: Path, target: str, *endings: str) -> list[Path]:
    """Return the files in dist/TARGET with one of these endings."""
    return sorted(path for path in (dist / target).iterdir() if path.name.endswith(endings))


def check_sums(folder: Path) -> None:
    """Hold the files of a Debian build against its .changes. PublishError for one that differs."""
    for changes in sorted(folder.glob("*.changes")):
        part = re.search(r"^Checksums-Sha256:\n((?: .*\n)+)", changes.read_text(), re.MULTILINE)
        for line in part[1].splitlines() if part else []:
            expected, _, name = line.split()
            path = folder / name
            if not path.is_file():
                raise PublishError(f"{path} is missing: {changes.name} names it")
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise PublishError(f"{path} is not what was built: {changes.name} says {expected}")


def apt_suite(new: Path, dist: Path, suite: str, key: SigningKey) -> None:
    """Make the suite `suite` of the apt repository in `new`/apt."""
    check_sums(dist / suite)
    root = new / "apt"
    pool, release = root / "pool" / suite, root / "dists" / suite
    pool.mkdir(parents=True)
    for path in built(dist, suite, ".deb", ".dsc", ".tar.xz", ".tar.gz"):
        shutil.copyfile(path, pool / path.name)
    known = {path.stem.rpartition("_")[2] for path in built(dist, suite, ".deb")}
    architectures = sorted(known - {"all"}) or ["all"]
    lists = {
        f"main/binary-{architecture}/Packages": ["--arch", architecture, "packages"]
        for architecture in architectures
    }
    lists["main/source/Sources"] = ["sources"]
    for name, ask in lists.items():
        index = release / name
        index.parent.mkdir(parents=True)
        text = run(["apt-ftparchive", "-q", *ask, f"pool/{suite}"], folder=root)
        index.write_text(text)
        run(["xz", "--keep", index])
    says = {
        "Origin": "xenaudio",
        "Label": "xenaudio",
        "Suite": suite,
        "Codename": suite,
        "Architectures": " ".join(architectures),
        "Components": "main",
        "Description": "Sound for Xen guests",
    }
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in says.items()]
    options += [f"-oAPT::FTPArchive::{weak}=false" for weak in ("MD5", "SHA1")]
    text = run(["apt-ftparchive", "-q", *options, "release", "."], folder=release)
    (release / "Release").write_text(text)
    key.sign("--clear-sign", release / "Release", release / "InRelease")
    key.sign("--detach-sign", release / "Release", release / "Release.gpg")


def dnf_repository(new: Path, dist: Path, target: str, key: SigningKey) -> None:
    """Make the dnf repository `new`/rpm/TARGET."""
    folder = new / "rpm" / target
    folder.mkdir(parents=True)
    packages = []
    for path in built(dist, target, ".rpm"):
        run(["rpm", "--checksig", "--nosignature", path])
        packages.append(folder / path.name)
        shutil.copyfile(path, packages[-1])
    key.sign_rpms(packages)
    run(["createrepo_c", "--quiet", "--no-database", folder])
    repomd = folder / "repodata" / "repomd.xml"
    key.sign("--detach-sign", repomd, repomd.with_name("repomd.xml.asc"))


def sources_file(base_url: str, suite: str, public: str) -> str:
    """Return a user's file for apt, in the form of deb822(5), with the key in it."""
    key = "\n".join(f" {line or '.'}" for line in public.strip().splitlines())
    return (
        "# Sound for Xen guests\n"
        "Types: deb deb-src\n"
        f"URIs: {base_url}/apt\n"
        f"Suites: {suite}\n"
        "Components: main\n"
        f"Signed-By:\n{key}\n"
    )


def repo_file(base_url: str, target: str) -> str:
    """Return a user's file for dnf (dnf.conf(5)); the key is beside the repository."""
    return (
        f"[xenaudio-{target}]\n"
        f"name=Sound for Xen guests ({target})\n"
        f"baseurl={base_url}/rpm/{target}\n"
        "enabled=1\n"
        "gpgcheck=1\n"
        "repo_gpgcheck=1\n"
        f"gpgkey={base_url}/{PUBLIC_KEY}\n"
    )


def exchange(one: Path, other: Path) -> None:
    """Give two folders each other's name in one step (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE):
        why = os.strerror(ctypes.get_errno())
        raise PublishError(f"{other} cannot be replaced in one step on this file system: {why}")


def put_in_place(new: Path, out: Path) -> None:
    """Have `new` be `out`; what `out` was is gone."""
    for path in (new, *new.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if out.exists():
        exchange(new, out)
        shutil.rmtree(new)
    else:
        new.rename(out)


def targets(dist: Path, named: Sequence[str]) -> dict[str, str]:
    """Return what is to be published: target -> apt or dnf."""
    there = sorted(path.name for path in dist.iterdir() if path.is_dir()) if dist.is_dir() else []
    kinds = {}
    for target in named or there:
        if target not in there:
            raise PublishError(f"{dist / target} is missing: ci/build-packages {target} makes it")
        debs, rpms = built(dist, target, ".deb"), built(dist, target, ".rpm")
        if debs and rpms:
            raise PublishError(f"{dist / target} has .deb and .rpm files: expected one kind")
        if debs or rpms:
            kinds[target] = "apt" if debs else "dnf"
        elif named:
            raise PublishError(f"{dist / target} has no package: ci/build-packages {target}")
    if not kinds:
        raise PublishError(f"{dist} has no packages: ci/build-packages makes them")
    return kinds


def publish(dist: Path, out: Path, base_url: str, kinds: dict[str, str]) -> list[Path]:
    """Make all of it; returns the files that are for users."""
    out = out.absolute()
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise PublishError(f"{out} is not a folder")
    if out.exists() and any(out.iterdir()) and not (out / PUBLIC_KEY).is_file():
        raise PublishError(f"{out} was not made by this ({PUBLIC_KEY} is not in it): left alone")
    out.parent.mkdir(parents=True, exist_ok=True)
    users = {}
    with (
        signing_key() as key,
        tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch,
    ):
        new = Path(scratch) / "new"
        new.mkdir()
        users[PUBLIC_KEY] = public = key.public()
        for target, kind in kinds.items():
            if kind == "apt":
                apt_suite(new, dist, target, key)
                users[f"xenaudio-{target}.sources"] = sources_file(base_url, target, public)
            else:
                dnf_repository(new, dist, target, key)
                users[f"xenaudio-{target}.repo"] = repo_file(base_url, target)
        for name, text in users.items():
            (new / name).write_text(text)
        put_in_place(new, out)
    return [out / name for name in users]


def main(arguments: list[str]) -> int:
    """Publish what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ci/publish",
        description="Make signed apt and dnf repositories of the packages in dist/, the public "
        "key, and the files that users put into /etc/apt/sources.list.d or /etc/yum.repos.d. "
        "DIR is replaced in one step, and stays as it was when something goes wrong.",
        epilog=f"{KEY} in the environment holds the secret key (gpg --armor "
        f"--export-secret-keys KEY), {PASSPHRASE} its passphrase, if it has one.",
    )
    parser.add_argument(
        "target", nargs="*", metavar="TARGET", help="bookworm, fedora, ... (all of dist/)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="what to make")
    parser.add_argument(
        "--base-url", required=True, metavar="URL", help="where users will find DIR: https://..."
    )
    parser.add_argument(
        "--dist", type=Path, metavar="DIR", default=TREE / "dist", help="the packages (dist/)"
    )
    args = parser.parse_args(arguments)
    if not re.fullmatch(r"(https?|file)://\S*[^/\s]", args.base_url):
        parser.error(
            f"--base-url {args.base_url!r}: expected https://..., http://... or file:///..., "
            "without a slash at the end"
        )
    try:
        made = publish(args.dist, args.out, args.base_url, targets(args.dist, args.target))
    except (PublishError, OSError) as error:
        print(f"ci/publish: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
