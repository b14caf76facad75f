# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C core's seam, used from Python, against the stand-in: two domains on one machine."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from xenaudio.core.errors import ClosedError, DeniedError, NotFoundError, XenAudioError
from xenaudio.core.hv import PAGE, EventChannel, Hypervisor
from xenaudio.core.store import Store
from xenaudio.localhv import LocalHypervisor

T = TypeVar("T")


class Machine:
    """The stand-in in a thread of its own, so that a test may block: domain 0 and one guest."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = LocalHypervisor()
        try:
            self.run(self.server.start())
            self.guest = self.run(self.server.create("guest", wait=False))
        except BaseException:
            self.stop()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        async def work() -> T:
            return function(*arguments)

        return self.run(work())

    def stop(self) -> None:
        self.run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.stop()


@pytest.fixture
def dom0(machine: Machine) -> Hypervisor:
    return Hypervisor(machine.server.dom0.socket)


@pytest.fixture
def guest(machine: Machine) -> Hypervisor:
    return Hypervisor(machine.guest.socket)


def wait_pending(channel: EventChannel) -> int:
    """The next port to fire, waited for on the descriptor."""
    assert select.select([channel], [], [], 10)[0] == [channel]
    port = channel.pending()
    assert port is not None
    return port


def map_error(hv: Hypervisor, domid: int, grefs: list[int]) -> int | None:
    """The error with which mapping fails, which it must."""
    with pytest.raises(XenAudioError) as caught:
        hv.map(domid, grefs)
    return caught.value.errno


def test_a_page_written_in_one_domain_is_read_in_the_other(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    with guest.share(0, 3) as share:
        assert bytes(share.memory) == bytes(3 * PAGE)
        with dom0.map(machine.guest.domid, list(reversed(share.grefs))) as mapped:
            share.memory[0:4] = b"here"
            mapped.memory[0:5] = b"there"
            assert bytes(mapped.memory[2 * PAGE : 2 * PAGE + 4]) == b"here"
            assert bytes(share.memory[2 * PAGE : 2 * PAGE + 5]) == b"there"


def test_more_pages_than_one_message_can_name(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    pages = 1500
    with guest.share(0, pages) as share:
        for i in range(pages):
            share.memory[i * PAGE : i * PAGE + 4] = share.grefs[i].to_bytes(4, "little")
        order = share.grefs[::-2]
        with dom0.map(machine.guest.domid, order, writable=False) as mapped:
            found = [
                int.from_bytes(mapped.memory[i * PAGE : i * PAGE + 4], "little")
                for i in range(len(order))
            ]
        assert found == order


def test_grants_and_mappings_are_over_when_their_close_returns(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    share = guest.share(0, 2)
    mapped = dom0.map(machine.guest.domid, share.grefs)
    rows = machine.call(machine.server.grant_rows)
    assert [row["mapped"] for row in rows] == [{"Domain-0": 1}] * 2
    mapped.close()
    assert [row["mapped"] for row in machine.call(machine.server.grant_rows)] == [{}] * 2
    share.close()
    assert machine.call(machine.server.grant_rows) == []


def test_what_is_mapped_stays_when_the_grant_ends(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    share = guest.share(0, 1)
    share.memory[0] = 7
    mapped = dom0.map(machine.guest.domid, share.grefs)
    grefs = share.grefs
    share.close()
    assert mapped.memory[0] == 7
    mapped.close()
    assert map_error(dom0, machine.guest.domid, grefs) == errno.EINVAL


def test_a_page_for_somebody_else(machine: Machine, guest: Hypervisor, dom0: Hypervisor) -> None:
    with guest.share(99, 1) as share:
        assert map_error(dom0, machine.guest.domid, share.grefs) == errno.EINVAL


def test_one_bad_reference_of_many_maps_nothing(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    with guest.share(0, 200) as share:
        grefs = [*share.grefs, 30000]
        assert map_error(dom0, machine.guest.domid, grefs) == errno.EINVAL
        # The failed map's connection may take a moment to be seen as closed.
        for _ in range(1000):
            rows = machine.call(machine.server.grant_rows)
            if all(row["mapped"] == {} for row in rows):
                break
        assert [row["mapped"] for row in rows] == [{}] * 200


def test_events_go_both_ways(machine: Machine, dom0: Hypervisor, guest: Hypervisor) -> None:
    with guest.event_channel() as front, dom0.event_channel() as back:
        port = front.alloc_unbound(0)
        bound = back.bind_interdomain(machine.guest.domid, port)
        # The new port fires once at once, as on Linux.
        assert wait_pending(back) == bound
        assert back.pending() is None
        assert front.pending() is None
        front.notify(port)
        front.notify(port)
        assert wait_pending(back) == bound
        assert back.pending() is None
        back.notify(bound)
        assert wait_pending(front) == port


def test_many_ports_behind_one_descriptor(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    with guest.event_channel() as front, dom0.event_channel() as back:
        ports = [front.alloc_unbound(0) for _ in range(20)]
        bound = [back.bind_interdomain(machine.guest.domid, port) for port in ports]
        assert {wait_pending(back) for _ in bound} == set(bound)
        for port in ports[::3]:
            front.notify(port)
        assert {wait_pending(back) for _ in ports[::3]} == set(bound[::3])
        assert back.pending() is None
        back.unbind(bound[0])
        front.notify(ports[0])
        assert back.pending() is None


def test_binding_what_cannot_be_bound(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    with guest.event_channel() as front, dom0.event_channel() as back:
        for_another, bound = front.alloc_unbound(99), front.alloc_unbound(0)
        back.bind_interdomain(machine.guest.domid, bound)
        for port in (for_another, 1000, bound):
            with pytest.raises(XenAudioError) as caught:
                back.bind_interdomain(machine.guest.domid, port)
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(XenAudioError) as caught:
            back.bind_interdomain(99, bound)
        assert caught.value.errno == errno.ESRCH


def test_ports_that_are_not_there(guest: Hypervisor) -> None:
    with guest.event_channel() as channel:
        for call in (channel.notify, channel.unbind):
            with pytest.raises(XenAudioError) as caught:
                call(1000)
            assert caught.value.errno == errno.ENOTCONN
        # No domain has that many, without ports by the thousand.
        with pytest.raises(XenAudioError) as caught:
            channel.unbind(100000)
        assert caught.value.errno == errno.EINVAL


def test_notifying_a_peer_that_is_gone_is_no_error(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    front = guest.event_channel()
    port = front.alloc_unbound(0)
    with dom0.event_channel() as back:
        bound = back.bind_interdomain(machine.guest.domid, port)
        front.close()
        back.notify(bound)
        machine.run(machine.server.destroy(machine.guest, wait=False))
        back.notify(bound)


def test_objects_of_many_threads_do_not_mind_each_other(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    def work(number: int) -> bool:
        for _ in range(10):
            with guest.share(0, 1 + number) as share:
                share.memory[0] = number
                with dom0.map(machine.guest.domid, share.grefs) as mapped:
                    if mapped.memory[0] != number:
                        return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_nothing_stays_open(machine: Machine, dom0: Hypervisor, guest: Hypervisor) -> None:
    def count() -> int:
        # A call through each socket: what closed before has been seen by the server after it.
        for hv in (dom0, guest):
            hv.share(0, 1).close()
        # The server is this process too: its ends close when it has looked.
        machine.run(asyncio.sleep(0))
        return len(os.listdir("/proc/self/fd"))

    def use() -> None:
        with guest.share(0, 2) as share, guest.event_channel() as front:
            port = front.alloc_unbound(0)
            with dom0.map(machine.guest.domid, share.grefs), dom0.event_channel() as back:
                back.bind_interdomain(machine.guest.domid, port)
            assert map_error(dom0, machine.guest.domid, [30000]) == errno.EINVAL

    use()
    before = count()
    for _ in range(20):
        use()
    for _ in range(1000):
        if count() <= before:
            break
    assert count() <= before


def run_in(
    dom0: Hypervisor, guest: Hypervisor, work: Callable[[Store, Store], Awaitable[None]]
) -> None:
    """Runs with domain 0's and the guest's connections to XenStore."""

    async def main() -> None:
        ours, theirs = await Store.open(dom0), await Store.open(guest)
        try:
            await asyncio.wait_for(work(ours, theirs), 30)
        finally:
            ours.close()
            theirs.close()

    asyncio.run(main())


def test_the_store_has_each_domains_rights(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    async def work(ours: Store, theirs: Store) -> None:
        home = await ours.get_domain_path(machine.guest.domid)
        assert home == f"/local/domain/{machine.guest.domid}"
        await ours.write(f"{home}/card/name", "Speakers")
        with pytest.raises(DeniedError):
            await theirs.write("card/name", "mine")
        await ours.set_perms(f"{home}/card", [f"n{machine.guest.domid}", "r0"])
        assert await ours.get_perms(f"{home}/card") == [f"n{machine.guest.domid}", "r0"]
        await theirs.write("card/0/type", "p")
        await theirs.mkdir("card/1")
        assert sorted(await ours.directory(f"{home}/card")) == ["0", "1", "name"]
        assert await ours.read_tree(f"{home}/card") == {
            "0": {"type": "p"},
            "1": "",
            "name": "Speakers",
        }
        await theirs.rm("card/0")
        with pytest.raises(NotFoundError):
            await ours.read(f"{home}/card/0/type")

    run_in(dom0, guest, work)


def test_a_watch_sees_the_other_domain(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    async def work(ours: Store, theirs: Store) -> None:
        seen: asyncio.Queue[str] = asyncio.Queue()
        token = await theirs.watch("thing", seen.put_nowait)
        assert await seen.get() == "thing"
        home = f"/local/domain/{machine.guest.domid}"
        await ours.mkdir(f"{home}/thing")
        await ours.write(f"{home}/thing/x", "1")
        assert [await seen.get(), await seen.get()] == ["thing", "thing/x"]
        await theirs.unwatch(token)
        await ours.write(f"{home}/thing/x", "2")
        await theirs.get_domain_path(0)
        assert seen.empty()

    run_in(dom0, guest, work)


def test_transactions_that_meet(machine: Machine, dom0: Hypervisor, guest: Hypervisor) -> None:
    async def work(ours: Store, theirs: Store) -> None:
        other = await Store.open(dom0)
        await ours.write("/tool/count", "0")

        async def add(store: Store, times: int) -> None:
            async def step(tx: int) -> None:
                count = int(await store.read("/tool/count", tx))
                await store.write("/tool/count", str(count + 1), tx)

            for _ in range(times):
                await store.run_transaction(step)

        await asyncio.gather(add(ours, 20), add(other, 20))
        assert await ours.read("/tool/count") == "40"

        async def give_up(tx: int) -> None:
            await ours.write("/tool/count", "lost", tx)
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await ours.run_transaction(give_up)
        assert await ours.read("/tool/count") == "40"
        other.close()

    run_in(dom0, guest, work)


def test_a_destroyed_domain_loses_its_store(
    machine: Machine, dom0: Hypervisor, guest: Hypervisor
) -> None:
    async def main() -> None:
        store = await Store.open(guest)
        await asyncio.to_thread(machine.run, machine.server.destroy(machine.guest, wait=False))
        with pytest.raises(ClosedError):
            await asyncio.wait_for(store.until(asyncio.Event()), 30)
        assert store.closed

    asyncio.run(main())
