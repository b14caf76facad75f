# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio serve` with another Python thread in its process that never rests (a test's program)."""

from __future__ import annotations

import sys
import threading

from xenaudio.cli.main import main


def burn() -> None:
    while True:
        pass


if __name__ == "__main__":
    threading.Thread(target=burn, daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
