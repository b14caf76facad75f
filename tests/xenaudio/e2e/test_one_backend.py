# SPDX-License-Identifier: LGPL-2.1-or-later
"""A domain has one backend: a second one would take the guests' streams from the first."""

from __future__ import annotations

from machine import Backend, Machine, run_xenaudio


def test_a_second_backend_of_the_same_domain_is_refused(machine: Machine, backend: Backend) -> None:
    second = run_xenaudio("serve", "--hv", machine.dom0)
    assert second.returncode == 1
    assert second.stderr == (
        f"xenaudio serve: another backend serves {machine.dom0} already: stop that one first\n"
    )
    assert not backend.ended()


def test_a_backend_that_was_killed_does_not_keep_another_one_away(backend: Backend) -> None:
    backend.kill()
    backend.restarted().stop()
