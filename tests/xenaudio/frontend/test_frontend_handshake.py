# SPDX-License-Identifier: LGPL-2.1-or-later
"""The frontend's configuration, published nodes and XenBus states."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_backend import S16, VSND, Setting, until

from xenaudio.backend.cardconfig import DEFAULT_RATES
from xenaudio.cli.streamclient import ClientError, check_allowed
from xenaudio.core.errors import XenAudioError
from xenaudio.core.frontend import CardNotReadyError, CardState, StreamState
from xenaudio.core.store import Store


def test_configuration_is_inherited_and_redefined(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await until(lambda: s.card.state is CardState.WAITING, "waiting")
        assert (s.card.short_name, s.card.long_name) == ("Main", "Hall 1")
        play, mic, big = s.card.streams
        assert [(x.pcm, x.index, x.capture, x.unique_id) for x in (play, mic, big)] == [
            (0, 0, False, "play"),
            (0, 1, True, "mic"),
            (1, 0, False, "big"),
        ]
        assert (play.rates, mic.rates, big.rates) == ([48000, 8000], [8000], [48000, 8000])
        assert (play.channels, mic.channels, big.channels) == ((1, 2), (1, 1), (1, 6))
        assert play.pcm_name == "Hall"
        assert [f.name for f in play.formats] == ["s16_le"]
        assert [f.name for f in big.formats] == ["s32_le", "float_le"]  # xl's spelling too
        assert (play.buffer_octets_max, big.buffer_octets_max) == (65536, 131072)

    scene(test)


def test_a_card_without_rates_has_those_that_the_backend_will_take(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await until(lambda: s.card.state is CardState.WAITING, "waiting")
        (stream,) = s.card.streams
        assert stream.rates == list(DEFAULT_RATES)
        with pytest.raises(ClientError, match=r"this stream takes 5512, 8000, .* Hz; x has 12345"):
            check_allowed(stream, 12345, 2, "x")

    scene(test, vsnd="[['CARD, short-name=Main', 'PCM', 'STREAM, unique-id=play, type=p']]")


def test_every_stream_is_published_before_state_3(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        assert await s.back.front_state() == 1
        await s.back.store.write(f"{s.back.back}/versions", "1,2,3")
        await s.back.state(2)
        await s.back.front_reaches(3)
        ports, refs = set(), set()
        for stream in ("0/0", "0/1", "1/0"):
            nodes = await s.back.nodes(stream)
            ports |= {nodes["event-channel"], nodes["evt-event-channel"]}
            refs |= {nodes["ring-ref"], nodes["evt-ring-ref"]}
            path = f"{s.back.front}/{stream}/ring-ref"
            assert await s.back.store.get_perms(path) == [f"n{s.back.guest.domid}", "r0"]
        assert len(ports) == len(refs) == 6
        assert 0 not in refs
        assert await s.back.store.read(f"{s.back.front}/version") == "2"
        await s.back.state(4)
        await s.card.connected(10)
        assert await s.back.front_state() == 4
        assert s.card.version == 2

    scene(test)


def test_close_goes_through_5_and_6(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        closing = asyncio.create_task(s.card.close())
        await s.back.front_reaches(5)
        assert len(await s.machine.call(s.machine.hv.grant_rows)) > 0
        await s.back.state(5)
        await s.back.front_reaches(6)
        await s.back.state(6)
        await closing
        s.back.forget()
        rows = await s.machine.call(s.machine.hv.grant_rows)
        assert rows == []
        assert await s.machine.call(s.machine.hv.channel_rows) == []

    scene(test)


def test_a_backend_that_does_not_answer_the_close_is_not_waited_for(
    scene: Callable[..., None],
) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        await s.card.close()
        assert await s.back.front_state() == 6

    scene(test)


@pytest.mark.parametrize("state", ["2", "3", "4", "5", "6"])
def test_a_killed_predecessors_state_is_closed_first(
    scene: Callable[..., None], state: str
) -> None:
    async def test(s: Setting) -> None:
        await s.back.store.write(f"{s.back.front}/state", state)
        await s.back.state(4)
        seen: list[int] = []

        async def look(path: str) -> None:
            seen.append(await s.back.front_state())

        tasks = []
        await s.back.store.watch(
            f"{s.back.front}/state", lambda p: tasks.append(asyncio.create_task(look(p)))
        )
        await s.card.__aenter__()
        if state not in "56":
            await s.back.front_reaches(5)
        await s.back.state(5)
        await s.back.front_reaches(6)
        await s.back.state(6)
        await s.back.front_reaches(1)
        await s.back.connect("0/0")
        await s.card.connected(10)
        await asyncio.gather(*tasks)
        assert seen[-1] == 4

    scene(test)


def test_a_backend_that_starts_anew_is_met_at_once(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        stream = s.card.find_stream(capture=False)
        first = await s.back.nodes("0/0")
        s.back.forget()
        await s.back.state(1)
        await s.back.front_reaches(1)
        assert stream.state is StreamState.OFFLINE
        await s.back.connect("0/0")
        await s.card.connected(10)
        assert stream is s.card.find_stream(capture=False)
        assert stream.state is StreamState.CLOSED
        assert await s.back.nodes("0/0") != first
        # and when 1 was too short to be seen:
        await s.back.connect("0/0")
        await s.card.connected(10)

    scene(test)


@pytest.mark.parametrize("state", [5, 6])
def test_a_backend_that_closes_is_followed_and_waited_for(
    scene: Callable[..., None], state: int
) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        await s.back.state(state)
        if state == 5:
            await s.back.front_reaches(6)
            await s.back.state(6)
        await until(lambda: s.card.state is CardState.WAITING, "waiting")
        await s.back.connect("0/0")
        await s.card.connected(10)

    scene(test)


@pytest.mark.parametrize(("versions", "chosen"), [("1", 1), ("2", 2), ("1,2", 2), ("9,1", 1)])
def test_the_best_common_version_is_chosen(
    scene: Callable[..., None], versions: str, chosen: int
) -> None:
    async def test(s: Setting) -> None:
        await s.back.store.write(f"{s.back.back}/versions", versions)
        await s.card.__aenter__()
        await s.back.connect("0/0")
        await s.card.connected(10)
        assert s.card.version == chosen

    scene(test)


def test_no_common_version_is_said(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.back.store.write(f"{s.back.back}/versions", "3,12")
        await s.card.__aenter__()
        await s.back.state(2)
        await until(lambda: s.card.state is CardState.FAILED, "failed")
        assert "versions 1 and 2" in s.card.reason

    scene(test)


def test_calls_while_not_connected_are_refused_at_once(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await until(lambda: s.card.state is CardState.WAITING, "waiting")
        stream = s.card.find_stream(capture=False)
        for call in (
            stream.open(48000, S16, 2, period_frames=480, buffer_frames=1920),
            stream.write(b"\0" * 4),
            stream.start(),
        ):
            with pytest.raises(XenAudioError) as caught:
                await call
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(CardNotReadyError, match="its state is 1, 2 is wanted"):
            await s.card.connected(0.05)

    scene(test)


@pytest.mark.parametrize(
    ("node", "value", "said"),
    [
        ("sample-rates", "48000,fast", "sample-rates"),
        ("sample-rates", "0", "sample-rates"),
        ("sample-rates", ",".join(str(r) for r in range(1, 34)), "sample-rates"),
        ("sample-formats", "mpeg,none", "sample-formats names no PCM format"),
        ("buffer-size", "-1", "buffer-size"),
        ("channels-max", "256", "channels-max"),
        ("0/0/channels-min", "3", "channels-min is larger"),
        ("0/0/type", "x", "type is neither p nor c"),
        ("99/0/type", "p", "larger than 31"),
    ],
)
def test_a_bad_configuration_is_said_and_looked_at_again_when_it_changes(
    scene: Callable[..., None], node: str, value: str, said: str
) -> None:
    async def test(s: Setting) -> None:
        path = f"{s.back.front}/{node}"
        try:
            old = await s.back.store.read(path)
        except FileNotFoundError:
            old = None
        await s.back.store.write(path, value)
        await s.card.__aenter__()
        await until(lambda: s.card.state is CardState.FAILED, "failed")
        assert said in s.card.reason
        assert await s.back.front_state() == 1
        if old is None:
            await s.back.store.rm(path if "99" not in path else f"{s.back.front}/99")
        else:
            await s.back.store.write(path, old)
        await s.back.connect("0/0")
        await s.card.connected(10)

    scene(test)


def test_a_guest_without_a_card_says_so_until_one_is_attached(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await until(lambda: s.card.state is CardState.ABSENT, "absent")
        assert "no sound card device/vsnd/0" in s.card.reason
        attach = asyncio.create_task(s.machine.do(s.machine.hv.attach(s.back.guest, VSND)))
        await until(lambda: s.card.state is CardState.WAITING, "waiting")
        await s.back.state(2)
        await attach
        await s.back.connect("0/0")
        await s.card.connected(10)

    scene(test, "[]")


def test_a_detached_card_goes_and_can_come_back(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        detach = asyncio.create_task(s.machine.do(s.machine.hv.detach(s.back.guest, 0)))
        await s.back.front_reaches(6)
        await s.back.state(6)
        await detach
        await until(lambda: s.card.state is CardState.ABSENT, "absent")

    scene(test)


def test_the_end_of_the_store_is_survived(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")

        def end_connections() -> None:
            for connection in list(s.back.guest.connections):
                connection.close()

        await s.machine.call(end_connections)
        await until(lambda: s.card.state is not CardState.CONNECTED, "loss noticed")
        await s.back.front_reaches(5)
        await s.back.state(6)
        await s.back.front_reaches(1)
        await s.back.connect("0/0")
        await s.card.connected(10)

    scene(test)


def test_a_restored_guest_negotiates_with_its_new_domid(
    scene: Callable[..., None], tmp_path: Path
) -> None:
    async def test(s: Setting) -> None:
        await s.card.__aenter__()
        await s.back.connect("0/0")
        await s.card.connected(10)
        old = s.back.guest.domid
        saving = asyncio.create_task(s.machine.do(s.machine.hv.save(s.back.guest, tmp_path / "s")))
        back = s.back.back

        async def removed() -> bool:
            return await s.back.store.read(f"{back}/state") == "5"

        await until(removed, "the toolstack removes the device")
        await s.back.state(6)
        await saving
        s.back.forget()
        restoring = asyncio.create_task(
            s.machine.do(s.machine.hv.restore(tmp_path / "s", wait=False))
        )
        s.back.guest = await restoring
        assert s.back.guest.domid != old
        await s.back.connect("0/0")
        await until(lambda: s.card.state is CardState.CONNECTED, "connected again")
        stream = s.card.find_stream(capture=False)
        opening = asyncio.create_task(
            stream.open(48000, S16, 2, period_frames=100, buffer_frames=400)
        )
        await s.back.streams["0/0"].accept_open()
        await opening

    scene(test)


def test_a_card_that_may_not_watch_says_so_and_tries_again(scene: Callable[..., None]) -> None:
    async def test(s: Setting) -> None:
        others = await Store.open(s.hv)
        watches = [others.watch(f"data/{number}", lambda _: None) for number in range(200)]
        refused = await asyncio.gather(*watches, return_exceptions=True)
        assert {e.errno for e in refused if isinstance(e, XenAudioError)} == {errno.E2BIG}
        await s.card.__aenter__()
        await until(lambda: "refused a watch" in s.card.reason, "it says so")
        assert s.card.state is CardState.ABSENT
        others.close()
        await s.back.connect("0/0")
        await s.card.connected(10)

    scene(test)
