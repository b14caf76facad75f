# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/publish with a throwaway key, and what it made over loopback HTTP."""

from __future__ import annotations

import functools
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def throwaway_key(
    home: Path, *, kind: str = "rsa3072", passphrase: str = "", expires: str = "0"
) -> str:
    """Make a key pair in a GnuPG home of its own; return the armoured secret key.

    RSA, because that is what every rpm can verify.
    """
    home.mkdir(mode=0o700, parents=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    unlock = ["--pinentry-mode", "loopback", "--passphrase", passphrase]
    try:
        name = f"throwaway {home.name} <test@example.org>"
        subprocess.run([*gpg, *unlock, "--quick-gen-key", name, kind, "sign", expires], check=True)
        exported = [*gpg, *unlock, "--armor", "--export-secret-keys"]
        return subprocess.run(exported, check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def publish(
    out: Path, base_url: str, key: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ci/publish; what it wrote, both streams as one, is its stdout."""
    return subprocess.run(
        [TREE / "ci/publish", "--out", out, "--base-url", base_url, *arguments],
        env={"PATH": PATH, "HOME": "/nonexistent", "XENAUDIO_SIGNING_KEY": key, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of the loopback; yields its URL, without a slash at the end."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def files(folder: Path) -> dict[str, bytes]:
    """Return what the files below a folder hold, by their names."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def flip(path: Path, at: int) -> None:
    """Damage one octet of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
