# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the backend costs dom0 while a stock guest plays, beside what events alone cost there.

The processor is emulated and slow: figures of one boot are compared with each other, and nothing
else is made of them. Only that they could be measured is tested.
"""

from __future__ import annotations

import json
import re

from .dom0 import Backend, Dom0
from .figures import Figures
from .guest import Guest
from .test_lifecycle import LONG, await_sound

SECONDS = 10
PERIOD = 2400
"""Frames at 48 kHz: 20 events a second."""

LATER = "ten seconds later"
"""Between two texts of /proc/interrupts."""

PINGPONG = "python3 /harness/pingpong.py"


def test_cost_of_a_stock_guests_play(
    dom0: Dom0, backend: Backend, stock: Guest, figures: Figures
) -> None:
    """At period 2400, two requests and an event a period: 60 switches a second are its floor.

    Linux wakes a writer when more than a period has passed, so a position is a frame past one. A
    writer that has filled its period finds a frame of room and fills this too, by a request of its
    own, before it waits: the guest's interrupts show one answer and more to each event.
    """
    dom0.forget_played(stock)
    playing = stock.aplay(LONG, period=PERIOD)
    await_sound(dom0, stock, playing)
    interrupts = "cat /proc/interrupts"
    counting = stock.start(f"{interrupts}; sleep {SECONDS}; echo {LATER}; {interrupts}")
    cost = json.loads(dom0.run(f"python3 /harness/cost.py {backend.pid} {SECONDS}").out)
    counted = interrupts_of(counting.done().out)
    assert playing.running, "it ended before it was measured"
    playing.signal()
    playing.wait()
    for thread in cost["threads"]:
        assert thread["cpu_s"] >= 0
    cpu = sum(thread["cpu_s"] for thread in cost["threads"])
    switches = sum(thread["voluntary"] for thread in cost["threads"])
    assert cpu > 0
    assert switches > 0
    figures.add("backend, stock guest plays: CPU", "s in 60 s", cpu / cost["seconds"] * 60)
    figures.add("backend, stock guest plays: voluntary switches", "/s", switches / cost["seconds"])
    for thread in cost["threads"]:
        if not thread["voluntary"]:
            continue
        per_second = thread["voluntary"] / cost["seconds"]
        figures.add(f"  of them, {thread['name']}", "/s", per_second)
    busy = [number / SECONDS for number in counted if number > 10 * SECONDS]
    for number, per_second in enumerate(sorted(busy, reverse=True)):
        figures.add(f"stock guest plays: its channel {number}, events in", "/s", per_second)


def interrupts_of(text: str) -> list[int]:
    """Return how many interrupts each event channel had between two texts of /proc/interrupts.

    A channel that is in one text only is left out.
    """
    earlier, later = map(event_channels, text.split(LATER))
    return [later[number] - earlier[number] for number in earlier.keys() & later.keys()]


def event_channels(text: str) -> dict[str, int]:
    """Return the interrupts of each event channel in /proc/interrupts.

    Linux's sound driver frees the names of its interrupts while they are in use: at the ends of
    their lines stands anything, line breaks among it.
    """
    found = re.findall(r"^ *(\d+): +(\d+) +xen-dyn", text, re.MULTILINE)
    return {number: int(count) for number, count in found}


def pingpong(dom0: Dom0, guest: Guest, rounds: int, pace: float) -> tuple[dict[str, float], ...]:
    """Have a guest and dom0 send events to each other; returns what dom0 and the guest measured."""
    dom0.run("rm -f /run/pingpong.port")
    answering = dom0.start(f"{PINGPONG} answer {guest.domid} {rounds} /run/pingpong.port")
    port = dom0.run(
        "while ! [ -s /run/pingpong.port ]; do sleep 0.1; done; cat /run/pingpong.port"
    ).out.strip()
    asked = json.loads(guest.run(f"{PINGPONG} ask {port} {rounds} {pace}").out)
    return json.loads(answering.done().out), asked


def test_cost_of_events_alone(dom0: Dom0, debian: Guest, figures: Figures) -> None:
    """The same, without sound: a guest's events, each answered by one from a process in dom0.

    At the stream's own rate, 20 and 20 a second; then as fast as they go. The process is a loop in
    Python around our event channels, which costs a little more than the same in C.
    """
    paced, _ = pingpong(dom0, debian, 20 * SECONDS, 1 / 20)
    assert paced["voluntary"] > 0
    assert paced["cpu_s"] > 0
    figures.add("ping-pong, 20 /s: CPU", "s in 60 s", paced["cpu_s"] / paced["seconds"] * 60)
    figures.add("ping-pong, 20 /s: voluntary switches", "/s", paced["voluntary"] / paced["seconds"])
    fast, asked = pingpong(dom0, debian, 1000, 0)
    assert asked["p50_us"] > 0
    figures.add("ping-pong: round trip, median", "us", asked["p50_us"])
    figures.add("ping-pong: round trip, 99th percentile", "us", asked["p99_us"])
    figures.add("ping-pong: CPU in dom0 for each", "us", fast["cpu_s"] / 1000 * 1e6)
