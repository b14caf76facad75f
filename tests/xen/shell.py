# SPDX-License-Identifier: LGPL-2.1-or-later
"""ci/xen-shell: the machine of the tests, with a person at dom0's prompt instead of the tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from . import images
from .guest import GuestConfig
from .machine import qemu


def main() -> int:
    """Boot, and return when QEMU has ended."""
    try:
        made = images.make()
    except images.ImageError as error:
        print(f"xen-shell: {error}", file=sys.stderr)
        return 1
    print("Booting Xen: half a minute. Ctrl-A x ends it, at any time.", flush=True)
    with tempfile.TemporaryDirectory(prefix="xenaudio-xen-") as folder:
        share = Path(folder) / "share"
        share.mkdir()
        config = GuestConfig("guest", "stock", options="prompt=yes")
        (share / "guest.cfg").write_text(config.text())
        options = "prompt=yes quiet"
        command = qemu(made, Path(folder), "mon:stdio", idle="wait", dom0_options=options)
        return subprocess.run(["setpriv", "--pdeathsig", "KILL", *command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
