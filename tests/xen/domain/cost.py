# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process costs: CPU time and voluntary switches of each of its threads.

    cost.py PID SECONDS

prints a JSON object. Threads that begin or end meanwhile are left out. Only the standard library.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import NamedTuple


class Count(NamedTuple):
    """What a thread has cost since it began."""

    name: str
    cpu_ns: int
    voluntary: int


def count(pid: int) -> dict[str, Count]:
    """Return each thread's, by its id."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{thread}"
        with open(f"{folder}/schedstat") as schedstat, open(f"{folder}/status") as status:
            cpu_ns = int(schedstat.read().split()[0])
            text = status.read()
        fields = dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))
        found[thread] = Count(fields["Name"], cpu_ns, int(fields["voluntary_ctxt_switches"]))
    return found


def main(args: list[str]) -> int:
    """Run the command."""
    pid, seconds = int(args[0]), float(args[1])
    before, begin = count(pid), time.monotonic()
    time.sleep(seconds)
    after, end = count(pid), time.monotonic()
    threads = [
        {
            "name": after[thread].name,
            "cpu_s": (after[thread].cpu_ns - before[thread].cpu_ns) / 1e9,
            "voluntary": after[thread].voluntary - before[thread].voluntary,
        }
        for thread in sorted(before.keys() & after.keys(), key=int)
    ]
    print(json.dumps({"seconds": end - begin, "threads": threads}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
