# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend's part of the XenBus handshake, against a store and an engine made for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakes import BACK, FakeEngine, FakeStore, FakeStream

from xenaudio.backend import device as device_module
from xenaudio.backend.config import Config, LimitRule
from xenaudio.backend.device import Device
from xenaudio.backend.limits import GuestShare
from xenaudio.backend.pace import Pace
from xenaudio.backend.routes import RouteRule, Routes, StreamPlace
from xenaudio.core.engine import Route, RouteKind, StreamSetup
from xenaudio.core.errors import ClosedError, NotFoundError

pytestmark = pytest.mark.asyncio

FRONT = "/local/domain/7/device/vsnd/0"
INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED = "123456"


class Scene:
    """A device under test, and what it sees."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.engine = FakeEngine()
        self.share = GuestShare(Pace(1000, 1000))
        self.config = Config(Routes(Route(), Route()), (LimitRule(handshakes_per_second=1000),))
        self.store.nodes = {
            f"{BACK}/frontend": FRONT,
            f"{BACK}/frontend-id": "7",
            f"{BACK}/state": INITIALISING,
            f"{BACK}/online": "1",
            f"{FRONT}/state": INITIALISING,
            "/local/domain/7/name": "guest",
        }
        for stream, kind in enumerate("pc"):
            place = f"{FRONT}/0/{stream}"
            self.store.nodes[f"{place}/type"] = kind
            for i, node in enumerate(
                ("ring-ref", "event-channel", "evt-ring-ref", "evt-event-channel")
            ):
                self.store.nodes[f"{place}/{node}"] = str(10 * stream + i + 1)

    @property
    def state(self) -> str | None:
        return self.store.nodes.get(f"{BACK}/state")

    def frontend(self, state: str) -> None:
        self.store.put(f"{FRONT}/state", state)

    async def reaches(self, state: str) -> None:
        for _ in range(2000):
            if self.state == state:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"the state is {self.state}, not {state}: {self.store.states}")

    async def offers(self) -> None:
        """Wait until the backend itself has come to state 2."""
        for _ in range(2000):
            if self.store.states[-1:] == [INIT_WAIT]:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"it is not offered: {self.store.states}")

    async def stays(self, state: str) -> None:
        await asyncio.sleep(0.02)
        assert self.state == state, self.store.states

    async def connect(self) -> None:
        await self.reaches(INIT_WAIT)
        self.frontend(INITIALISED)
        await self.reaches(CONNECTED)
        self.frontend(CONNECTED)
        await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Device]:
        """Run the device; in the end it must end in order, and hold nothing."""
        store: Any = self.store
        engine: Any = self.engine
        nothing: Any = None
        self.device = Device(store, nothing, engine, self.config, BACK, self.share)
        # As the service does, which watches all devices' directories at once.
        self.store.watches["service"] = (BACK, self.device.wake)
        self.task = asyncio.create_task(self.device.run())
        try:
            yield self.device
            self.device.end()
            await asyncio.wait_for(self.task, 10)
        finally:
            self.task.cancel()
            self.store.watches.pop("service", None)
        assert self.engine.streams == []
        assert self.store.watches == {}


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Give a scene in which time runs faster."""
    monkeypatch.setattr(device_module, "INIT_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(device_module, "CLOSING_SECONDS", 0.05)
    return Scene()


async def test_it_offers_both_versions_and_waits_in_state_2(scene: Scene) -> None:
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        assert scene.store.nodes[f"{BACK}/versions"] == "1,2"
        await scene.stays(INIT_WAIT)
    assert scene.store.states == [INIT_WAIT, CLOSING, CLOSED]


async def test_it_connects_each_stream_as_published(scene: Scene) -> None:
    async with scene.running() as device:
        await scene.connect()
        play, record = scene.engine.setups
        assert (play.domid, play.capture, record.capture) == (7, False, True)
        assert (play.ring_ref, play.event_channel) == (1, 2)
        assert (play.evt_ring_ref, play.evt_event_channel) == (3, 4)
        assert (record.ring_ref, record.evt_event_channel) == (11, 14)
        assert [str(stream) for stream in device.streams] == ["playback 0/0", "capture 0/1"]
        assert device.streams[0].place == StreamPlace("guest", 0, 0, 0, "", 7)


async def test_it_stays_in_state_2_long_enough_for_xl_to_see(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "INIT_WAIT_SECONDS", 0.2)
    scene.frontend(INITIALISED)
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        await asyncio.sleep(0.1)
        assert scene.state == INIT_WAIT
        await scene.reaches(CONNECTED)


@pytest.mark.parametrize("left", [INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED, "9", "x"])
async def test_it_begins_anew_where_a_predecessor_was(scene: Scene, left: str) -> None:
    scene.store.nodes[f"{BACK}/state"] = left
    scene.store.nodes[f"{FRONT}/feature-renegotiate"] = "1"
    scene.frontend(CONNECTED)
    async with scene.running():
        await scene.offers()
        await scene.stays(INIT_WAIT)
        assert scene.store.states == [INIT_WAIT], "Linux would free its card at each of two"
        assert scene.engine.setups == [], "the old rings are void"
        scene.frontend(INITIALISING)
        await scene.connect()


async def test_it_goes_on_with_the_rings_of_a_predecessor(scene: Scene) -> None:
    """Linux crashes when its card is taken away while players hold it: it must not notice."""
    scene.store.nodes[f"{BACK}/state"] = CONNECTED
    scene.frontend(CONNECTED)
    async with scene.running():
        await scene.stays(CONNECTED)
        assert [setup.adopted for setup in scene.engine.setups] == [True, True]
        assert scene.store.states == []
        scene.frontend(INITIALISED)  # it began anew
        await scene.reaches(INIT_WAIT)
        await scene.reaches(CONNECTED)
        assert [setup.adopted for setup in scene.engine.setups[2:]] == [False, False]


async def test_it_closes_a_device_whose_rings_it_cannot_go_on_with(scene: Scene) -> None:
    scene.engine.refuses_capture = True
    scene.store.nodes[f"{BACK}/state"] = CONNECTED
    scene.frontend(CONNECTED)
    async with scene.running():
        await scene.reaches(CLOSED)
        assert scene.engine.streams == []
        assert scene.store.states == [CLOSING, CLOSED]


@pytest.mark.parametrize("left", [CLOSING, CLOSED])
async def test_it_waits_until_a_frontend_told_to_let_go_has(scene: Scene, left: str) -> None:
    scene.store.nodes[f"{BACK}/state"] = left
    scene.frontend(CONNECTED)
    async with scene.running():
        await scene.reaches(CLOSED)
        await scene.stays(CLOSED)
        scene.frontend(INITIALISING)
        await scene.connect()


async def test_it_leaves_a_connected_frontend_to_the_next_backend(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
    assert scene.state == CONNECTED
    assert scene.engine.streams == []


async def test_a_frontend_that_closes_is_shown_5_until_it_is_closed(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
        scene.frontend(CLOSING)
        await scene.reaches(CLOSING)
        assert scene.engine.streams == []
        scene.frontend(CLOSED)
        await scene.reaches(CLOSED)
        scene.frontend(INITIALISING)
        await scene.connect()
        assert len(scene.engine.streams) == 2


async def test_a_frontend_that_waits_for_2_when_it_is_unloaded_gets_it(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
        scene.frontend(CLOSING)
        await scene.reaches(CLOSING)
        await scene.reaches(INIT_WAIT)
        await scene.stays(INIT_WAIT)


async def test_a_frontend_that_begins_anew_without_closing_loses_its_old_rings(
    scene: Scene,
) -> None:
    async with scene.running():
        await scene.connect()
        old = list(scene.engine.streams)
        scene.frontend(INITIALISED)
        await scene.reaches(INIT_WAIT)
        assert scene.engine.streams == []
        await scene.reaches(CONNECTED)
        assert len(scene.engine.streams) == 2
        assert not set(old) & set(scene.engine.streams)


async def test_one_stream_that_cannot_be_connected_closes_the_device(scene: Scene) -> None:
    scene.engine.refuses_capture = True
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        scene.frontend(INITIALISED)
        await scene.reaches(CLOSING)
        assert scene.engine.streams == [], "the one that could be is let go"
        # The frontend is given another chance, once it has closed.
        scene.engine.refuses_capture = False
        scene.frontend(CLOSED)
        await scene.reaches(CLOSED)
        scene.frontend(INITIALISING)
        await scene.connect()


async def test_a_configuration_that_makes_no_sense_closes_the_device(scene: Scene) -> None:
    scene.store.nodes[f"{FRONT}/0/1/ring-ref"] = "many"
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        scene.frontend(INITIALISED)
        await scene.reaches(CLOSING)
        assert scene.engine.setups == []


async def test_a_broken_stream_closes_its_device_and_no_other(scene: Scene) -> None:
    async with scene.running() as device:
        await scene.connect()
        device.suspect()
        await scene.stays(CONNECTED)
        scene.engine.streams[1].broken = "its request ring has an impossible index"
        device.suspect()
        await scene.reaches(CLOSING)
        assert scene.engine.streams == []
        # One that does not follow is closed all the same.
        await scene.reaches(CLOSED)
        scene.frontend(INITIALISING)
        await scene.connect()


async def test_a_device_being_detached_goes_through_5_to_6(scene: Scene) -> None:
    scene.store.nodes[f"{FRONT}/feature-renegotiate"] = "1"
    async with scene.running():
        await scene.connect()
        scene.store.put(f"{BACK}/online", "0")
        scene.store.put(f"{BACK}/state", CLOSING)
        await asyncio.sleep(0.02)
        assert scene.engine.streams == []
        assert scene.state == CLOSING, "the frontend has its time"
        scene.frontend(CLOSED)
        await scene.reaches(CLOSED)
        await scene.stays(CLOSED)


async def test_players_end_before_a_card_is_taken_from_linux(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
        streams = list(scene.engine.streams)
        scene.store.put(f"{BACK}/online", "0")
        scene.store.put(f"{BACK}/state", CLOSING)
        await asyncio.sleep(0.02)
        assert scene.engine.streams == streams, "their requests are answered"
        assert all(stream.refuses for stream in streams)
        await scene.reaches(CLOSED)
        assert scene.engine.streams == []


async def test_a_frontend_that_does_not_close_does_not_hold_up_a_detach(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
        scene.store.put(f"{BACK}/online", "0")
        scene.store.put(f"{BACK}/state", CLOSING)
        await scene.reaches(CLOSED)


async def test_a_device_whose_frontend_never_came_is_detached_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "CLOSING_SECONDS", 3600)
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        scene.store.put(f"{BACK}/online", "0")
        scene.store.put(f"{BACK}/state", CLOSING)
        await scene.reaches(CLOSED)


async def test_it_ends_when_its_directory_is_removed(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
        scene.store.remove(BACK)
        await asyncio.wait_for(scene.task, 5)
        assert scene.engine.streams == []
    assert scene.state is None


async def test_a_directory_removed_at_the_last_moment_is_not_brought_back(scene: Scene) -> None:
    """Removed between the look at the states and the write that follows from it."""
    transactions = 0

    def remove_before_the_write() -> None:
        nonlocal transactions
        transactions += 1
        if transactions == 2:
            scene.store.remove(BACK)

    scene.store.before_transaction = remove_before_the_write
    async with scene.running():
        await asyncio.wait_for(scene.task, 5)
    assert transactions == 2
    assert scene.state is None


async def test_another_device_made_in_its_place_gets_its_own_offer(scene: Scene) -> None:
    async with scene.running():
        await scene.connect()
        nodes = {n: v for n, v in scene.store.nodes.items() if n.startswith(BACK)}
        del nodes[f"{BACK}/versions"]
        scene.store.nodes[f"{FRONT}/state"] = INITIALISING
        for node in nodes:
            del scene.store.nodes[node]
        scene.store.nodes.update(nodes)
        scene.store.put(f"{BACK}/state", INITIALISING)
        await scene.reaches(INIT_WAIT)
        assert scene.store.nodes[f"{BACK}/versions"] == "1,2"
        assert scene.engine.streams == []
        await scene.connect()


async def test_a_state_written_meanwhile_is_not_overwritten_unseen(scene: Scene) -> None:
    """The toolstack begins to detach between our look and our write."""
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        detached = False

        def detach_before_connected() -> None:
            nonlocal detached
            if scene.engine.streams and not detached:
                detached = True
                scene.store.put(f"{BACK}/online", "0")
                scene.store.put(f"{BACK}/state", CLOSING)

        scene.store.before_transaction = detach_before_connected
        scene.frontend(INITIALISED)
        await scene.reaches(CLOSED)
        assert CONNECTED not in scene.store.states


async def test_handshakes_beyond_the_pace_wait_but_not_the_rest(scene: Scene) -> None:
    scene.share = GuestShare(Pace(rate=1000, burst=1))
    scene.config = Config(limit_rules=(LimitRule("guest", handshakes_per_second=0.001),))
    async with scene.running():
        await scene.connect()
        scene.frontend(CLOSED)
        await scene.reaches(CLOSED)
        scene.frontend(INITIALISING)
        await scene.reaches(INIT_WAIT)
        scene.frontend(INITIALISED)
        await asyncio.sleep(0.1)
        assert scene.state == INIT_WAIT
        # While the guest waits for its turn, the toolstack does not.
        scene.store.put(f"{BACK}/online", "0")
        scene.store.put(f"{BACK}/state", CLOSING)
        await scene.reaches(CLOSED)


async def test_a_guest_that_writes_its_state_all_the_time_costs_a_bounded_number_of_looks(
    scene: Scene,
) -> None:
    scene.share.looks = Pace(rate=10, burst=10)
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1

    async with scene.running():
        await scene.reaches(INIT_WAIT)
        scene.store.before_transaction = count
        for _ in range(200):
            scene.frontend(INITIALISING)
            await asyncio.sleep(0.001)
        assert looks < 50


@pytest.mark.parametrize("front", [INITIALISING, INITIALISED, CONNECTED, CLOSING, CLOSED, "", "x"])
async def test_it_can_be_ended_in_any_state(scene: Scene, front: str) -> None:
    async with scene.running():
        await scene.connect()
        scene.frontend(front)
        await asyncio.sleep(0.005)
    assert scene.state == (CONNECTED if front == CONNECTED else CLOSED)


async def test_ending_waits_for_the_frontend_and_no_longer(scene: Scene) -> None:
    scene.store.nodes[f"{FRONT}/feature-renegotiate"] = "1"
    async with scene.running() as device:
        await scene.connect()
        device.end()
        await scene.reaches(CLOSING)
        assert scene.engine.streams == []
        scene.frontend(CLOSING)
        await asyncio.wait_for(scene.task, 5)
        assert scene.state == CLOSED


async def test_what_is_being_connected_when_it_ends_is_disconnected(scene: Scene) -> None:
    blocked = asyncio.Event()
    loop = asyncio.get_running_loop()
    connect = scene.engine.connect

    def slow_connect(hv: object, setup: StreamSetup) -> FakeStream:
        loop.call_soon_threadsafe(blocked.set)
        stream = connect(hv, setup)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
        return stream

    scene.engine.connect = slow_connect  # type: ignore[method-assign]
    async with scene.running() as device:
        await scene.reaches(INIT_WAIT)
        scene.frontend(INITIALISED)
        await blocked.wait()
        device.end()
    assert len(scene.engine.setups) == 1, "no further stream was begun"


async def test_a_lost_store_lets_go_of_everything_and_says_so(scene: Scene) -> None:
    scene.store.watches = {}
    async with scene.running() as device:
        await scene.connect()
        scene.store.lost = True
        device.wake()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(scene.task, 5)
        assert scene.engine.streams == []
        scene.store.watches.clear()
        scene.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_device_without_a_frontend_node_is_none(scene: Scene) -> None:
    del scene.store.nodes[f"{BACK}/frontend"]
    async with scene.running():
        await asyncio.wait_for(scene.task, 5)
    assert scene.store.states == []


async def test_a_guest_without_a_name_is_called_by_its_number(scene: Scene) -> None:
    del scene.store.nodes["/local/domain/7/name"]
    async with scene.running() as device:
        await scene.connect()
        assert str(device) == "domain 7 vsnd 0"
        assert device.streams[0].place.guest == "domain 7"


async def test_not_found_is_not_hidden_by_the_fake() -> None:
    with pytest.raises(NotFoundError):
        await FakeStore().read("/none")


async def test_a_denied_microphone_is_silence_and_the_rest_is_served(scene: Scene) -> None:
    heard = Route(RouteKind.FILE, "/in.wav", loop=True)
    rules = (RouteRule(guest="guest", microphone=False),)
    scene.config = Config(Routes(Route(), heard, rules))
    async with scene.running() as device:
        await scene.connect()
        assert [setup.route for setup in scene.engine.setups] == [Route(), Route()]
        assert [stream.microphone_denied for stream in device.streams] == [False, True]
        # Allowed, it is another route; until it connects anew, it goes on as it is.
        allowed = Config(Routes(Route(), heard))
        device.reconfigure(allowed)
        assert device.outdated() == [device.streams[1]]
        scene.frontend(CLOSED)
        await scene.reaches(CLOSED)
        scene.frontend(INITIALISING)
        await scene.connect()
        assert scene.engine.setups[3].route == heard
        assert device.outdated() == []


@pytest.mark.parametrize("limits", [{"cards": 0}, {"streams": 1}])
async def test_a_card_beyond_its_guests_limits_is_not_connected(
    scene: Scene, limits: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    scene.config = Config(limit_rules=(LimitRule("guest", **limits),))
    async with scene.running():
        await scene.reaches(INIT_WAIT)
        scene.frontend(INITIALISED)
        await scene.reaches(CLOSING)
        assert scene.engine.setups == []
        assert f"raise `{next(iter(limits))}` in [[limits]] of xenaudio.toml" in caplog.text
        scene.frontend(CLOSED)
        await scene.reaches(CLOSED)


async def test_a_guests_buffers_are_as_large_as_it_may_have(scene: Scene) -> None:
    scene.config = Config(limit_rules=(LimitRule(7, buffer_octets=8192),))
    async with scene.running():
        await scene.connect()
        assert [setup.caps.buffer_octets_max for setup in scene.engine.setups] == [8192, 8192]
