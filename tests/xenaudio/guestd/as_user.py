# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs `xenaudio ARGS` as an ordinary user: as_user.py UID ARGS...

The code is read before the rights are given up: a user need not be able to read the tree.
"""

from __future__ import annotations

import os
import sys

from xenaudio.cli import main

if __name__ == "__main__":
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    sys.exit(main.main(sys.argv[2:]))
