# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which devices' nodes a backend outside the toolstack's domain removes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from fakes import BACK, FakeStore

from xenaudio.backend import driverdomain
from xenaudio.backend.driverdomain import Remover
from xenaudio.core.store import Store


class Nodes(FakeStore):
    """Nodes that can be removed."""

    async def rm(self, path: str, _tx: int = 0) -> None:
        self._check(path)
        self.remove(path)


def device(state: str, online: str) -> Nodes:
    nodes = Nodes()
    nodes.put(f"{BACK}/state", state)
    nodes.put(f"{BACK}/online", online)
    return nodes


def after(nodes: Nodes, *steps: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Take the steps, each noticed; return whether the nodes are there in the end."""
    monkeypatch.setattr(driverdomain, "CLOSED_SECONDS", 0.01)

    async def run() -> None:
        remover = Remover(cast(Store, nodes))
        for step in steps:
            step()
            remover.notice(BACK)
            await asyncio.sleep(0.05)
        await remover.stop()

    asyncio.run(run())
    return f"{BACK}/state" in nodes.nodes


@pytest.mark.parametrize(
    ("state", "online", "stays"),
    [("6", "0", False), ("6", "1", True), ("5", "0", True), ("4", "1", True)],
)
def test_one_that_is_offline_and_closed_goes(
    state: str, online: str, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert after(device(state, online), lambda: None, monkeypatch=monkeypatch) is stays


def test_one_that_closes_later_goes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = device("5", "0")
    here = []
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: (here.append(f"{BACK}/state" in nodes.nodes), nodes.put(f"{BACK}/state", "6")),
    ]
    assert not after(nodes, *steps, monkeypatch=monkeypatch)
    assert here == [True]


def test_a_device_made_in_its_place_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = device("6", "0")

    def made_anew() -> None:
        nodes.put(f"{BACK}/online", "1")
        nodes.put(f"{BACK}/state", "1")

    nodes.before_transaction = made_anew
    assert after(nodes, lambda: None, monkeypatch=monkeypatch)


@pytest.mark.parametrize("lost", [False, True])
def test_one_that_is_gone_or_out_of_reach_is_no_error(
    lost: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = device("6", "0")

    def go() -> None:
        nodes.lost = lost
        if not lost:
            nodes.remove(BACK)

    after(nodes, go, monkeypatch=monkeypatch)
    assert not caplog.records
