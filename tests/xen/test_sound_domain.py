# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend in a domain that is not dom0, and so reaches dom0's XenStore through the kernel.

The domain is the guest with our code, which has a card of dom0's besides. The names of other guests
are for dom0 to read, so what they play is in files that are called after their numbers.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from .dom0 import PLAYED, Dom0
from .domain.pattern import Pattern
from .guest import CARD, Guest, GuestConfig
from .machine import Job

LOG = "/run/xenaudio.log"


class Sound:
    """A guest in which the backend runs."""

    def __init__(self, dom0: Dom0, guest: Guest) -> None:
        self.guest = guest
        self._dom0 = dom0
        self._job = self._start()

    def _start(self) -> Job:
        job = self.guest.start(
            f"mkdir -p {PLAYED}; exec xenaudio serve --hv xen --output=file:{PLAYED}/ >{LOG} 2>&1"
        )
        self.await_log("serving /local/domain/")
        return job

    def await_log(self, text: str) -> None:
        """Wait until the backend's log says something."""
        self.guest.run(
            f"for i in $(seq 300); do grep -q '{text}' {LOG} && exit 0; sleep 0.1; done;"
            f" cat {LOG}; exit 1"
        )

    def kill_and_restart(self) -> None:
        """Kill the backend and start it anew."""
        self._job.signal(signal.SIGKILL)
        self._job.wait()
        self._job = self._start()

    def stop(self) -> None:
        """End the backend."""
        self._job.signal(signal.SIGTERM)
        self._job.done()

    def card(self) -> list[str]:
        """Return a card of this backend's, for xl."""
        return [CARD[0].replace("CARD,", f"CARD, backend={self.guest.name},"), *CARD[1:]]

    def devices(self, guest: Guest) -> list[str]:
        """Return the nodes of this backend's devices for a guest."""
        folder = f"/local/domain/{self.guest.domid}/backend/vsnd/{guest.domid}"
        return self._dom0.run(f"xenstore-ls -f {folder} || true").out.splitlines()

    def check(self, pattern: Pattern, guest: Guest) -> None:
        """Find, here, what a guest played last."""
        played = f"ls -t {PLAYED}/domain_{guest.domid}-* | head -n 1"
        self.guest.check(pattern, self.guest.run(played).out.strip())


@pytest.fixture(scope="module")
def sound(booted: Dom0) -> Iterator[Sound]:
    """Give a guest that serves others."""
    booted.backend()
    sound = Sound(booted, booted.lasting(GuestConfig("debian", "debian")))
    yield sound
    sound.stop()


@pytest.fixture(scope="module")
def listener(booted: Dom0, sound: Sound) -> Iterator[Guest]:
    """Give a stock guest whose card is the sound domain's."""
    guest = booted.lasting(GuestConfig("listener", "stock", vsnd=sound.card()))
    yield guest
    booted.destroy(guest)


def plays_bit_exact(sound: Sound, guest: Guest, seed: int) -> None:
    pattern = Pattern(frames=48000, seed=seed)
    guest.aplay(pattern).done()
    sound.check(pattern, guest)


def test_stock_guest_plays_bit_exact_into_a_sound_domain(sound: Sound, listener: Guest) -> None:
    plays_bit_exact(sound, listener, 71)


def test_backend_restarted_in_a_sound_domain_finds_its_guest_again(
    sound: Sound, listener: Guest
) -> None:
    sound.kill_and_restart()
    sound.await_log(f"domain {listener.domid} vsnd 0: connected")
    listener.await_card()
    plays_bit_exact(sound, listener, 72)


def test_card_of_a_sound_domain_is_detached_and_attached_live(
    dom0: Dom0, sound: Sound, listener: Guest
) -> None:
    # xl waits 10 s for the backend's state 6, then for its nodes to go: it fails if they do not.
    dom0.detach(listener)
    assert sound.devices(listener) == []
    # The kernel's driver takes a second to let go of the device: no new one before that.
    listener.run("while [ -e /sys/devices/vsnd-0 ]; do sleep 0.1; done")
    dom0.attach(listener, sound.card())
    listener.await_card()
    plays_bit_exact(sound, listener, 73)


def test_guest_of_a_sound_domain_is_destroyed_without_waiting(dom0: Dom0, sound: Sound) -> None:
    guest = dom0.create(GuestConfig("doomed", "stock", vsnd=sound.card()), wait=False)
    assert sound.devices(guest)
    # libxl waits ten seconds for the backend's nodes to go.
    assert dom0.timed(f"xl destroy {guest.domid}") < 10
    dom0.await_gone(guest)
    assert sound.devices(guest) == []


def test_store_connection_of_a_sound_domain_stands_what_xenstore_does(sound: Sound) -> None:
    """The kernel mixes up requests that wait together, and ends no connection with a refusal."""
    found = json.loads(sound.guest.run("python3 /harness/together.py").out)
    assert found["mixed"] == 0
    # xenstored's quota of watches, of which the kernel and the agent have some.
    assert 100 < found.pop("watches") < 128
    assert found == {"mixed": 0, "refused": "E2BIG", "lost": False}
