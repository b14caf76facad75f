# SPDX-License-Identifier: LGPL-2.1-or-later
"""Events from a guest, each answered by dom0, and nothing else: what sound is compared with.

    pingpong.py answer DOMAIN ROUNDS FILE    in dom0; the port's number goes into FILE
    pingpong.py ask PORT ROUNDS SECONDS      in the guest: one every so many seconds, 0: at once

Both print a JSON object in the end: `seconds`, `cpu_s` and `voluntary` switches of the process and,
from `ask`, a round trip's `p50_us` and `p99_us`. Needs our code.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
import time

from xenaudio.core.hv import EventChannel, Hypervisor

LIMIT_MS = 20_000


class Cost:
    """What this process costs from now on."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._cpu = time.process_time()
        self._voluntary = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw

    def so_far(self) -> dict[str, float]:
        """Return it."""
        return {
            "seconds": time.monotonic() - self._begin,
            "cpu_s": time.process_time() - self._cpu,
            "voluntary": resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - self._voluntary,
        }


class Port:
    """An event channel's end, and waiting for it."""

    def __init__(self, channel: EventChannel, port: int) -> None:
        self._channel, self._port = channel, port
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)

    def await_event(self, limit_ms: int = LIMIT_MS) -> None:
        """Wait for the next event, and take it."""
        while self._channel.pending() is None:
            if not self._poll.poll(limit_ms):
                raise SystemExit(f"no event on port {self._port} in {limit_ms} ms")

    def notify(self) -> None:
        """Send one."""
        self._channel.notify(self._port)


def answer(domain: int, rounds: int, path: str) -> dict[str, float]:
    """Answer so many events."""
    with Hypervisor("xen") as hv, hv.event_channel() as channel:
        number = channel.alloc_unbound(domain)
        with open(f"{path}.new", "w") as file:
            file.write(f"{number}\n")
        os.rename(f"{path}.new", path)
        port = Port(channel, number)
        port.await_event()
        cost = Cost()
        for _ in range(rounds - 1):
            port.notify()
            port.await_event()
        port.notify()
        return cost.so_far()


def ask(remote_port: int, rounds: int, pace: float) -> dict[str, float]:
    """Send so many events, and wait for the answer to each."""
    with Hypervisor("xen") as hv, hv.event_channel() as channel:
        port = Port(channel, channel.bind_interdomain(0, remote_port))
        port.await_event()  # the one that a port has when it is bound
        cost = Cost()
        begin, taken = time.monotonic(), []
        for number in range(rounds):
            time.sleep(max(0.0, begin + number * pace - time.monotonic()))
            sent = time.monotonic_ns()
            port.notify()
            port.await_event()
            taken.append((time.monotonic_ns() - sent) / 1000)
        taken.sort()
        last = len(taken) - 1
        found = {"p50_us": taken[last // 2], "p99_us": taken[last * 99 // 100]}
        return {**cost.so_far(), **found}


def main(args: list[str]) -> int:
    """Run the command."""
    if args[0] == "answer":
        print(json.dumps(answer(int(args[1]), int(args[2]), args[3])))
    else:
        print(json.dumps(ask(int(args[1]), int(args[2]), float(args[3]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
