# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C core's seam through the guest service (csrc/hv/guestd.c), against the stand-in."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guestservice import TIMEOUT, GuestService
from machine import run_xenaudio

from xenaudio.core.errors import DeniedError, XenAudioError
from xenaudio.core.hv import PAGE, EventChannel, Hypervisor


@pytest.fixture
def user(guest: GuestService) -> Iterator[Hypervisor]:
    """Give the hypervisor as a user's program has it."""
    with Hypervisor(f"guestd:{guest.address}") as hv:
        yield hv


@pytest.fixture
def dom0(guest: GuestService) -> Iterator[Hypervisor]:
    with Hypervisor(str(guest.hv.dom0.socket)) as hv:
        yield hv


@pytest.mark.parametrize("pages", [1, 2, 1000, 1001, 2500])
def test_granted_pages_are_one_memory_for_both(
    guest: GuestService, user: Hypervisor, dom0: Hypervisor, pages: int
) -> None:
    with user.share(0, pages) as share:
        assert guest.granted() == pages
        assert not any(share.memory)
        with dom0.map(guest.guest.domid, share.grefs) as mapped:
            for page in {0, pages // 2, pages - 1}:
                share.memory[page * PAGE + 5] = 17
                mapped.memory[page * PAGE + 6] = 18
            assert bytes(share.memory) == bytes(mapped.memory)
            assert sum(share.memory) >= 35
    assert guest.granted() == 0


def test_more_pages_than_a_user_may_have_are_none(guest: GuestService, user: Hypervisor) -> None:
    with pytest.raises(XenAudioError) as caught:
        user.share(0, 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert guest.granted() == 0


def test_pages_are_for_a_backend_only(user: Hypervisor) -> None:
    with pytest.raises(DeniedError):
        user.share(5, 1)


def test_a_user_maps_nobodys_pages(guest: GuestService, user: Hypervisor, dom0: Hypervisor) -> None:
    with dom0.share(guest.guest.domid, 1) as share, pytest.raises(DeniedError):
        user.map(0, share.grefs)


def await_event(channel: EventChannel) -> int:
    assert select.select([channel], [], [], TIMEOUT)[0] == [channel]
    port = channel.pending()
    assert port is not None
    return port


def test_events_go_both_ways(guest: GuestService, user: Hypervisor, dom0: Hypervisor) -> None:
    with user.event_channel() as ours, dom0.event_channel() as theirs:
        fd = ours.fileno()
        first, second = ours.alloc_unbound(0), ours.alloc_unbound(0)
        # The owner polls it from the beginning.
        assert ours.fileno() == fd
        ends = {port: theirs.bind_interdomain(guest.guest.domid, port) for port in (first, second)}
        assert {await_event(theirs), await_event(theirs)} == set(ends.values())
        while ours.pending() is not None:
            pass
        for port, end in ends.items():
            theirs.notify(end)
            assert await_event(ours) == port
            assert ours.pending() is None
            ours.notify(port)
            assert await_event(theirs) == end
    assert guest.bound() == 0


def test_a_handle_has_two_ports_of_one_domain_and_binds_no_other(
    guest: GuestService, user: Hypervisor, dom0: Hypervisor
) -> None:
    with user.event_channel() as ours, dom0.event_channel() as theirs:
        port = ours.alloc_unbound(0)
        with pytest.raises(DeniedError):
            ours.alloc_unbound(3)
        ours.alloc_unbound(0)
        with pytest.raises(DeniedError):
            ours.alloc_unbound(0)
        offered = theirs.alloc_unbound(guest.guest.domid)
        with pytest.raises(DeniedError):
            ours.bind_interdomain(0, offered)
        with pytest.raises(DeniedError):
            ours.unbind(port)
        with pytest.raises(XenAudioError) as caught:
            ours.notify(port + 100)
        assert caught.value.errno == errno.ENOTCONN


def test_an_unused_handle_costs_nothing(guest: GuestService, user: Hypervisor) -> None:
    with user.event_channel() as channel:
        assert guest.bound() == 0
        assert channel.pending() is None


def test_what_was_made_outlives_the_hypervisor(guest: GuestService) -> None:
    with Hypervisor(f"guestd:{guest.address}") as hv:
        share, channel = hv.share(0, 1), hv.event_channel()
        channel.alloc_unbound(0)
    share.memory[0] = 1
    assert (guest.granted(), guest.bound()) == (1, 2)
    share.close()
    channel.close()
    assert (guest.granted(), guest.bound()) == (0, 0)


def test_threads_may_share_a_hypervisor(guest: GuestService, user: Hypervisor) -> None:
    def work(_number: int) -> None:
        for _ in range(20):
            with user.share(0, 3) as share, user.event_channel() as channel:
                channel.alloc_unbound(0)
                share.memory[PAGE] = 1
            os.close(user.connect_store())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (guest.granted(), guest.bound()) == (0, 0)


def test_a_service_started_anew_is_used(guest: GuestService, tmp_path: Path) -> None:
    """A store is connected to on a new connection when the old one was lost."""
    accepted: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as between:
        path = guest.directory / "between"
        between.bind(str(path))
        between.listen()

        def cut_the_first() -> None:
            # Its client is lost, as when the service ends.
            first, _ = between.accept()
            first.close()
            second, _ = between.accept()
            accepted.append(second)

        cutting = threading.Thread(target=cut_the_first)
        cutting.start()
        with Hypervisor(f"guestd:{path}") as hv, pytest.raises(XenAudioError) as caught:
            hv.connect_store()
        cutting.join(TIMEOUT)
        # The second one never answers.
        assert caught.value.errno == errno.ETIMEDOUT
        assert len(accepted) == 1
        accepted[0].close()


def test_without_the_service_there_is_no_hypervisor(tmp_path: Path) -> None:
    with Hypervisor(f"guestd:{tmp_path}/none") as hv:
        for attempt in (hv.connect_store, lambda: hv.share(0, 1), hv.event_channel):
            with pytest.raises(XenAudioError) as caught:
                attempt()
            assert caught.value.errno == errno.ENODEV


def test_too_long_a_path_is_refused() -> None:
    Hypervisor("guestd:" + 107 * "x").close()
    with pytest.raises(XenAudioError) as caught:
        Hypervisor("guestd:" + 108 * "x")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_programs_say_how_the_service_cannot_be_reached(tmp_path: Path) -> None:
    sound = "/usr/share/sounds/alsa/Front_Center.wav"
    done = run_xenaudio("play", "--hv", f"guestd:{tmp_path}/none", "--wait", "0.2", sound)
    assert done.returncode == 1
    assert f"guestd:{tmp_path}/none cannot be reached: No such device" in done.stderr
