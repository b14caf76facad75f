# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio serve` beside a Python thread that never rests, in one process: a test's program."""

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
