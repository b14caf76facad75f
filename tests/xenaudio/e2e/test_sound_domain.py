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
