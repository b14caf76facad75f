# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend in a domain of its own for sound, with the rights and quotas of such a domain."""

from __future__ import annotations

from pathlib import Path

from machine import Machine, wait_until

GUESTS = 14  # more than the ten transactions that xenstored lets an unprivileged domain have
CARD = (
    "[['CARD, backend=sound, short-name=Main', 'PCM, name=Main', 'STREAM, unique-id=out, type=p']]"
)


def test_a_restarted_sound_domain_takes_over_more_guests_than_it_may_have_transactions(
    machine: Machine, tmp_path: Path
) -> None:
    sound = machine.create("sound", None)
    backend = machine.serve("--output", "null", hv=sound.socket)
    guests = [machine.create(f"guest{n}", CARD) for n in range(GUESTS)]
    root = f"/local/domain/{sound.domid}/backend/vsnd"
    backend.stop()
    again = backend.restarted()

    def ready() -> bool:
        states = [
            machine.xenstore("xenstore-read", f"{root}/{guest.domid}/0/state").strip()
            for guest in guests
        ]
        return states == ["2"] * GUESTS

    wait_until(ready, "every device is offered anew")
    assert "tried again" not in again.log()
    again.stop()


def test_a_card_is_detached_from_a_sound_domain_and_attached_again(machine: Machine) -> None:
    sound = machine.create("sound", None)
    backend = machine.serve("--output", "null", hv=sound.socket)
    guest = machine.create("guest", CARD)
    device = f"/local/domain/{sound.domid}/backend/vsnd/{guest.domid}/0"
    machine.detach("guest", 0)  # waits until the backend has removed its nodes, as xl does
    assert machine.attach("guest", CARD) == [0]
    assert machine.xenstore("xenstore-read", f"{device}/state").strip() == "2"
    backend.stop()


def test_a_device_that_ended_while_no_backend_ran_is_removed_by_the_next(machine: Machine) -> None:
    sound = machine.create("sound", None)
    backend = machine.serve("--output", "null", hv=sound.socket)
    guest = machine.create("guest", CARD)
    device = f"/local/domain/{sound.domid}/backend/vsnd/{guest.domid}/0"
    backend.stop()
    machine.xenstore("xenstore-write", f"{device}/online", "0", f"{device}/state", "6")
    again = backend.restarted()
    listed = f"/local/domain/{sound.domid}/backend/vsnd/{guest.domid}"
    wait_until(lambda: not machine.xenstore("xenstore-list", listed).split(), "it is removed")
    again.stop()
