# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with nothing of ours: Linux's own driver, snd_xen_front, and alsa-utils.

The emulated machine counts instructions for its clock, so a short period is as hard to keep as on a
slow processor that has nothing else to do, whatever the host is doing meanwhile. Only its disk is
as slow as the host's: a player that waits for a page of it may be late, and is given another try.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from .dom0 import PLAYED, Backend, Dom0
from .domain.pattern import Pattern
from .figures import Figures
from .guest import Guest, GuestConfig
from .test_lifecycle import plays_bit_exact
from .test_ours import assert_continued


class Stream(NamedTuple):
    """What is played or recorded."""

    format: str
    rate: int
    channels: int
    period: int
    """Frames, as is `buffer`."""
    buffer: int

    def pattern(self, seconds: float = 1.0) -> Pattern:
        """Return noise for it."""
        frames = int(seconds * self.rate)
        return Pattern(self.format, self.channels, self.rate, frames, seed=self.rate + self.period)

    def __str__(self) -> str:
        kind = "stereo" if self.channels == 2 else "mono"
        return f"{self.format}-{self.rate}-{kind}-{self.period}-of-{self.buffer}"


STREAMS = [
    Stream("u8", 8000, 1, 400, 1600),
    Stream("s16_le", 44100, 2, 441, 1764),
    Stream("s24_le", 48000, 1, 4800, 9600),
    Stream("s32_le", 96000, 2, 1920, 7680),
    Stream("s16_le", 48000, 2, 240, 480),  # two periods of 5 ms
]
FLOATING = Stream("float_le", 44100, 1, 1024, 16384)
"""Together: each format, rate, number of channels, and periods from 5 to 100 ms at least once."""


TRIES = 3


def test_stock_guest_has_the_card_as_configured(stock: Guest) -> None:
    assert "vsnd" in stock.cards()
    listed = stock.run("cat /proc/asound/pcm").out
    assert "playback 1" in listed
    assert "capture 1" in listed


def test_stock_guest_plays_bit_exact(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=3 * 48000, seed=11)
    stock.aplay(pattern, period=2400, buffer=9600).done()
    dom0.check(pattern, dom0.played(stock))


def test_stock_guest_records_bit_exact(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=3 * 48000, seed=12)
    dom0.offer(pattern)
    job, path = stock.arecord(pattern, pattern.frames + 24000, period=2400, buffer=9600)
    job.done()
    stock.check(pattern, path)


@pytest.mark.parametrize("stream", STREAMS, ids=str)
def test_aplay_plays_bit_exact(dom0: Dom0, stock: Guest, stream: Stream) -> None:
    play(dom0, stock, stream)


def play(dom0: Dom0, guest: Guest, stream: Stream) -> None:
    pattern = stream.pattern()
    for _ in range(TRIES):
        dom0.forget_played(guest)
        done = guest.aplay(pattern, period=stream.period, buffer=stream.buffer).done()
        if "underrun" not in done.err:
            dom0.check(pattern, dom0.played(guest))
            return
        assert_continued(pattern, dom0.pieces(pattern, guest), again=stream.period)
    pytest.fail(f"{stream}: an underrun in each of {TRIES} tries")


def record(dom0: Dom0, guest: Guest, stream: Stream) -> None:
    pattern = stream.pattern()
    dom0.offer(pattern)
    frames = pattern.frames + stream.rate // 4
    for _ in range(TRIES):
        # A card that records from a file has the file's format, from when it was connected.
        reconnect(guest)
        job, path = guest.arecord(pattern, frames, period=stream.period, buffer=stream.buffer)
        if "overrun" not in job.done().err:
            guest.check(pattern, path)
            return
    pytest.fail(f"{stream}: an overrun in each of {TRIES} tries")


def reconnect(guest: Guest) -> None:
    """Have a guest's driver connect anew."""
    driver = "/sys/bus/xen/drivers/vsnd"
    guest.run(f"echo vsnd-0 >{driver}/unbind && echo vsnd-0 >{driver}/bind")
    guest.await_card()


@pytest.fixture
def own(dom0: Dom0, backend: Backend) -> Guest:
    """Give a guest whose card these tests may change; the last of them ends it."""
    return dom0.lasting(GuestConfig("own", "stock"))


def test_create_does_not_wait_for_the_card(dom0: Dom0, own: Guest, figures: Figures) -> None:
    """How much longer it takes is for a person to read; ten seconds are libxl's own limit."""
    bare = dom0.create(GuestConfig("bare", "stock", vsnd=None), wait=False)
    dom0.destroy(bare)
    figures.add("xl create without a card", "s", bare.created_in)
    figures.add("xl create with a card", "s", own.created_in)
    assert own.created_in < 10


def test_arecord_records_bit_exact(dom0: Dom0, own: Guest) -> None:
    """All formats, and floating point played too.

    xl writes `f32_le` into the store for what the protocol's header, and so Linux, calls
    `float_le`: a stock guest has no floating point unless dom0 spells it the header's way.
    """
    node = f"/local/domain/{own.domid}/device/vsnd/0/sample-formats"
    formats = dom0.read(node)
    assert formats is not None
    dom0.run(f"xenstore-write {node} '{formats.replace('f32_le', 'float_le')}'")
    try:
        for stream in (*STREAMS, FLOATING):
            record(dom0, own, stream)
        play(dom0, own, FLOATING)
    finally:
        # xl cannot read the header's spelling, and knows no such device.
        dom0.run(f"xenstore-write {node} '{formats}'")
        dom0.offer(Pattern())


def test_aplay_stopped_for_two_seconds_goes_on_in_order(dom0: Dom0, stock: Guest) -> None:
    pattern = Pattern(frames=3 * 48000, seed=41)
    path = stock.make(pattern, "raw")
    dom0.forget_played(stock)
    done = stock.run(
        f"aplay {stock.alsa(pattern, period=2400)} {path} &"
        " until grep -q RUNNING /proc/asound/card0/pcm0p/sub0/status; do sleep 0.05; done;"
        " sleep 1; kill -STOP $!; sleep 2; kill -CONT $!; wait $!"
    )
    assert "underrun" in done.err, "it was not stopped for long enough"
    # A period again: see test_faults.py, for what is the same in a guest that was paused.
    assert_continued(pattern, dom0.pieces(pattern, stock), again=2400)


def test_card_opened_50_times_keeps_its_events_in_step(dom0: Dom0, stock: Guest) -> None:
    """Linux drops all events for ever after one that is not the next: then nothing more is played.

    Each of the 50 plays more than its buffer holds, for which it needs events.
    """
    short = Pattern(frames=4800, seed=42)
    options = stock.alsa(short, period=480, buffer=1920)
    path = stock.make(short, "raw")
    dom0.forget_played(stock)
    stock.run(f"for i in $(seq 50); do aplay {options} {path} || exit 1; done", limit=400.0)
    files = dom0.fetch(f"{PLAYED}/{stock.name}-*")
    assert len(files) == 50
    for file in files:
        # Not whether each of them was on time.
        assert_continued(short, short.pieces(str(file)), again=480)
    plays_bit_exact(dom0, stock, 43)


def test_speaker_test_has_no_underrun_in_ten_seconds(
    dom0: Dom0, own: Guest, backend: Backend
) -> None:
    reconnect(own)
    # Each of the two channels has its 3 s, twice.
    done = own.run("speaker-test -D hw:0,0 -t sine -F S16_LE -r 48000 -c 2 -p 50000 -b 200000 -l 2")
    said = done.out + done.err
    assert not re.search("error|xrun|underrun|failed", said, re.IGNORECASE), said
    reconnect(own)  # at the end of a connection the backend says what it was like
    ended = r"ended: (\d+) frames, (\d+) gaps, (\d+) bad requests"
    connections = re.findall(f"{own.name}.* playback .*{ended}", backend.log())
    frames, gaps, bad = map(int, connections[-1])
    assert frames >= 10 * 48000
    assert gaps == 0
    assert bad == 0


def test_detach_and_shutdown_do_not_wait_for_the_card(
    dom0: Dom0, own: Guest, figures: Figures
) -> None:
    """How long they take is for a person to read; libxl would wait ten seconds for the backend."""
    taken = dom0.timed(f"xl vsnd-detach {own.domid} 0")
    figures.add("xl vsnd-detach", "s", taken)
    assert taken < 10
    own.run("while [ -e /sys/devices/vsnd-0 ]; do sleep 0.1; done")
    dom0.attach(own)
    own.await_card()
    figures.add("xl shutdown with a card", "s", dom0.timed(f"xl shutdown -w {own.domid}"))
    dom0.await_gone(own)
    console = dom0.run(f"cat /var/log/xen/console/guest-{own.name}.log").out
    assert "timeout closing device" not in console
    assert "reboot: " in console
