# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of domains and devices: created, stopped, saved, restored, destroyed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xenaudio.localhv import LocalHvError, LocalHypervisor

SPEC = "[ ['CARD, short-name=Main', 'PCM, name=Main', 'STREAM, unique-id=0, type=p'] ]"
TWO = "[ ['CARD, short-name=One'], ['CARD, short-name=Two'] ]"
FRONT, BACK = "/local/domain/1/device/vsnd/0", "/local/domain/0/backend/vsnd/1/0"


class Backend:
    """Brings every vsnd backend node of domain 0 from 1 to 2, and from 5 to 6, in a thread."""

    def __init__(self, client: Any, closes: bool = True) -> None:
        self.seen: list[tuple[str, str]] = []
        self._client = client
        self._closes = closes
        client.watch("/local/domain/0/backend/vsnd", "b")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._client.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                path, _ = self._client.event()
                if not path.endswith("/state"):
                    continue
                with contextlib.suppress(self._refused()):
                    state = self._client.read(path)
                    self._note(path, state)
                    if state == "1":
                        self._client.write(path, "2")
                        self._note(path, "2")
                    elif state == "5" and self._closes:
                        assert self._client.read(path.replace("/state", "/online")) == "0"
                        self._client.write(path, "6")  # upon which the node may be gone
                        self._note(path, "6")

    def _note(self, path: str, state: str) -> None:
        if self.states(path)[-1:] != [state]:
            self.seen.append((path, state))

    def states(self, path: str) -> list[str]:
        """The states that a node went through."""
        return [state for at, state in self.seen if at == path]

    def _refused(self) -> Any:
        import sys

        return sys.modules[type(self._client).__module__].Refused


@pytest.fixture
def backend(machine: Any) -> Iterator[Backend]:
    backend = Backend(machine.connect())
    yield backend
    backend.stop()


def listing(machine: Any) -> list[str]:
    lines: list[str] = machine.tool(None, "xenstore-ls", "-fp", "/").stdout.splitlines()
    return lines


def names(machine: Any) -> list[tuple[str, int | None, str]]:
    return [(r["name"], r["domid"], r["state"]) for r in machine.do(machine.hv.domain_rows)]


# Create and destroy.


def test_create_waits_for_the_backend(machine: Any, backend: Backend) -> None:
    guest = machine.create("guest", SPEC, wait=True)
    assert (guest.name, guest.domid) == ("guest", 1)
    assert machine.connect(guest).read(f"{BACK}/state") == "2"


def test_without_a_backend_nothing_is_created(machine: Any) -> None:
    before = listing(machine)
    watcher = machine.connect()
    watcher.watch("@releaseDomain", "out")
    with pytest.raises(LocalHvError, match=r"guest is not created.*Domain-0 did not reach state 2"):
        machine.create("guest", SPEC, wait=True)
    assert watcher.event() == ("@releaseDomain", "out")
    assert [line for line in listing(machine) if "(n0)" not in line] == [
        line for line in before if "(n0)" not in line
    ]
    assert names(machine) == [("Domain-0", 0, "running")]
    assert machine.create("guest").domid == 2  # a domid is not used again


def test_only_state_2_will_do(machine: Any) -> None:
    creating = machine.begin(machine.hv.create, "guest", SPEC)
    client = machine.connect()
    while True:
        with contextlib.suppress(Exception):
            client.write(f"{BACK}/state", "4")
            client.read(f"{BACK}/frontend")
            break
    with pytest.raises(LocalHvError, match="state 2"):
        creating.result(20)


@pytest.mark.parametrize(
    "name",
    ["", "dom0", "Domain-0", "control", "7", "a b", "../x", "-x", ".x", "x" * 65, "\u00e9", "a/b"],
)
def test_a_name_that_is_none(machine: Any, name: str) -> None:
    with pytest.raises(LocalHvError, match="domain name"):
        machine.create(name)


def test_a_name_that_is_taken(machine: Any) -> None:
    machine.create("guest")
    with pytest.raises(LocalHvError, match="exists already"):
        machine.create("guest")


def test_a_domain_is_found_by_name_and_by_domid(machine: Any) -> None:
    guest = machine.create("guest")
    for name in ("guest", "1", 1, guest):
        assert machine.do(machine.hv.find, name) is guest
    assert machine.do(machine.hv.find, "dom0").domid == 0
    with pytest.raises(LocalHvError, match=r"no domain 'x': there are Domain-0, guest"):
        machine.do(machine.hv.find, "x")


def test_destroy_takes_everything_away(machine: Any, backend: Backend) -> None:
    before = machine.connect().directory("/local/domain/0")
    guest = machine.create("guest", TWO, wait=True)
    front, back = machine.connect(guest), machine.connect()
    refs, _ = front.grant(0)
    mine = front.alloc_unbound(0)
    back.map(1, refs)
    theirs = back.bind(1, mine.port)
    front.write("data/left", "x")
    back.write("/elsewhere", "")
    back.chmod("/elsewhere", "n1")
    back.watch("@releaseDomain", "out")
    machine.do(machine.hv.destroy, guest)
    assert front.closed_by_server()
    assert back.event() == ("@releaseDomain", "out")
    assert not [line for line in listing(machine) if "/1" in line or "n1" in line or "r1" in line]
    assert back.directory("/local/domain/0") == [*before]
    for devid in (0, 1):
        assert backend.states(f"{BACK[:-1]}{devid}/state") == ["1", "2", "5", "6"]
    # As long as a page of it is mapped, Xen keeps a domain as a zombie.
    assert back.map(1, refs)
    with pytest.raises(Exception, match="EINVAL"):
        back.bind(1, mine.port)
    assert [row["mapped"] for row in machine.do(machine.hv.grant_rows)] == [{"Domain-0": 2}]
    back.unmap(1, [*refs, *refs])
    with pytest.raises(Exception, match="EINVAL"):
        back.map(1, refs)
    with pytest.raises(Exception, match="ESRCH"):
        back.bind(1, mine.port)
    assert machine.do(machine.hv.grant_rows) == []
    assert [row["port"] for row in machine.do(machine.hv.channel_rows)] == [theirs.port]
    assert not Path(guest.socket).exists()
    with pytest.raises(LocalHvError, match="guest is gone"):
        machine.do(machine.hv.pause, guest)


def test_destroy_gives_up_on_a_backend_that_does_not_close(machine: Any) -> None:
    backend = Backend(machine.connect(), closes=False)
    machine.create("guest", SPEC, wait=True)
    machine.do(machine.hv.destroy, "guest")
    backend.stop()
    assert (f"{BACK}/state", "5") in backend.seen
    assert not [line for line in listing(machine) if "vsnd" in line]


def test_domain_0_stays(machine: Any) -> None:
    for method in (machine.hv.destroy, machine.hv.pause, machine.hv.shutdown):
        with pytest.raises(LocalHvError, match="domain 0 cannot be"):
            machine.do(method, "dom0")


# Devices of a running domain.


def test_attach_and_detach(machine: Any, backend: Backend) -> None:
    guest = machine.create("guest")
    assert machine.do(machine.hv.attach, guest, TWO) == [0, 1]
    client = machine.connect(guest)
    assert client.read("device/vsnd/1/short-name") == "Two"
    machine.do(machine.hv.detach, guest, 0)
    with pytest.raises(Exception, match="ENOENT"):
        client.read("device/vsnd/0")
    assert client.read("device/vsnd/1/state") == "1"
    assert machine.do(machine.hv.attach, guest, SPEC) == [2]
    for devid in (1, 2):
        machine.do(machine.hv.detach, guest, devid)
    assert not [line for line in listing(machine) if "vsnd" in line]
    assert backend.states(f"{BACK}/state") == ["1", "2", "5", "6"]


def test_attach_without_a_backend_attaches_nothing(machine: Any) -> None:
    guest = machine.create("guest")
    before = listing(machine)
    with pytest.raises(LocalHvError, match=r"nothing is attached.*state 2"):
        machine.do(machine.hv.attach, guest, SPEC)
    # libxl removes what is empty after a device is gone, so also what it had before.
    assert set(before) - set(listing(machine)) == {'/libxl/1/device = ""   (n0)'}
    assert set(listing(machine)) < set(before)
    with pytest.raises(LocalHvError, match="no card given"):
        machine.do(machine.hv.attach, guest, "[]")


def test_detach_of_what_is_not_there(machine: Any) -> None:
    machine.create("guest", SPEC)
    with pytest.raises(LocalHvError, match="guest has no vsnd device 1"):
        machine.do(machine.hv.detach, "guest", 1)


def test_detach_by_force_when_the_backend_does_not_close(machine: Any) -> None:
    backend = Backend(machine.connect(), closes=False)
    machine.create("guest", SPEC, wait=True)
    with pytest.raises(LocalHvError, match=r"by force.*state 6"):
        machine.do(machine.hv.detach, "guest", 0)
    backend.stop()
    assert not [line for line in listing(machine) if "vsnd" in line]


# Pause, save and restore.


def test_a_paused_domain_asks_for_nothing(machine: Any) -> None:
    guest = machine.create("guest")
    client = machine.connect(guest)
    client.read("domid")
    machine.do(machine.hv.pause, guest)
    client.send(2, b"domid\0", req_id=42)
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.receive()
    with pytest.raises(LocalHvError, match="is paused, not running"):
        machine.do(machine.hv.pause, guest)
    client.sock.settimeout(20)
    machine.do(machine.hv.unpause, guest)
    assert client.receive() == (2, 42, 0, b"1")
    with pytest.raises(LocalHvError, match="is running, not paused"):
        machine.do(machine.hv.unpause, guest)


def test_a_restored_domain_is_a_new_one_with_the_same_cards(
    machine: Any, backend: Backend, short_dir: Path
) -> None:
    file = short_dir / "guest.save"
    guest = machine.create("guest", SPEC, wait=True)
    front, back = machine.connect(guest), machine.connect()
    uuid = front.read("vm")
    front.watch("device/vsnd/0/state", "rel")
    front.watch(f"{BACK}/state", "abs")
    refs, _ = front.grant(0)
    mine = front.alloc_unbound(0)
    tx = front.start()
    front.read("domid", tx)
    back.watch("@releaseDomain", "out")
    back.watch("@introduceDomain", "in")

    machine.do(machine.hv.save, guest, file)
    assert back.event() == ("@releaseDomain", "out")
    assert names(machine) == [("Domain-0", 0, "running"), ("guest", None, "saved")]
    assert not [line for line in listing(machine) if "/1" in line or "vsnd" in line]
    assert machine.do(machine.hv.grant_rows) == machine.do(machine.hv.channel_rows) == []

    back.write("/local/domain/0/data", "meanwhile")
    assert machine.do(machine.hv.restore, file) is guest
    assert back.event() == ("@introduceDomain", "in")
    assert names(machine) == [("Domain-0", 0, "running"), ("guest", 2, "running")]
    # The connection is the new domain's: relative paths, rights, watches, grants.
    assert front.read("domid") == "2"
    assert front.read("vm") == uuid
    assert sorted(front.events[-2:]) == [(f"{BACK}/state", "abs"), ("device/vsnd/0/state", "rel")]
    front.events.clear()
    front.write("device/vsnd/0/state", "3")
    assert front.event() == ("device/vsnd/0/state", "rel")
    assert back.read("/local/domain/2/device/vsnd/0/short-name") == "Main"
    assert back.perms("/local/domain/2/device/vsnd/0/0/0/type") == "n2,r0"
    with pytest.raises(Exception, match="EAGAIN"):
        front.end(tx)
    for dead in (lambda: front.end_grants(refs), lambda: front.unbind(mine.port)):
        with pytest.raises(Exception, match="ENOENT"):
            dead()
    assert back.map(2, front.grant(0)[0])
    assert back.bind(2, front.alloc_unbound(0).port)


def test_a_saved_domain_is_restored_once(machine: Any, short_dir: Path) -> None:
    file = short_dir / "guest.save"
    machine.create("guest")
    machine.do(machine.hv.save, "guest", file)
    with pytest.raises(LocalHvError, match="exists already"):
        machine.create("guest")
    with pytest.raises(LocalHvError, match="saved already"):
        machine.do(machine.hv.save, "guest", file)
    machine.do(machine.hv.restore, file)
    with pytest.raises(LocalHvError, match="exists already"):
        machine.do(machine.hv.restore, file)
    machine.do(machine.hv.destroy, "guest")
    assert machine.do(machine.hv.restore, file).domid == 3  # from the file alone


def test_a_restore_without_a_backend_can_be_tried_again(machine: Any, short_dir: Path) -> None:
    file = short_dir / "guest.save"
    guest = machine.create("guest", SPEC)
    front = machine.connect(guest)
    front.watch("data", "t")
    machine.do(machine.hv.save, guest, file)
    with pytest.raises(LocalHvError, match="guest is not restored"):
        machine.do(machine.hv.restore, file)
    assert names(machine)[1] == ("guest", None, "saved")
    backend = Backend(machine.connect())
    machine.do(machine.hv.restore, file)
    backend.stop()
    assert front.read("domid") == "3"
    front.write("data/x", "")
    assert front.events[0] == ("data", "t")
    assert front.events[-1] == ("data/x", "t") or front.event() == ("data/x", "t")


def test_a_saved_domain_can_be_destroyed(machine: Any, short_dir: Path) -> None:
    guest = machine.create("guest")
    client = machine.connect(guest)
    client.watch("data", "t")
    machine.do(machine.hv.save, guest, short_dir / "f")
    machine.do(machine.hv.destroy, "guest")
    assert client.closed_by_server()
    assert names(machine) == [("Domain-0", 0, "running")]


def test_a_save_that_cannot_be_written_saves_nothing(machine: Any, short_dir: Path) -> None:
    guest = machine.create("guest", SPEC)
    with pytest.raises(LocalHvError, match="nothing is saved"):
        machine.do(machine.hv.save, guest, short_dir / "no" / "where")
    assert names(machine)[1] == ("guest", 1, "running")
    assert machine.connect(guest).read("device/vsnd/0/state") == "1"


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "not json", '{"format": "other"}', None, "items", "uuid"]
)
def test_a_file_that_is_no_saved_domain(machine: Any, short_dir: Path, content: str) -> None:
    file = short_dir / "f"
    if content in ("items", "uuid"):
        machine.create("guest", SPEC)
        machine.do(machine.hv.save, "guest", file)
        saved = json.loads(file.read_text())
        saved.update({"vsnd": {"0": ["STREAM, id=0"]}} if content == "items" else {"uuid": "x"})
        file.write_text(json.dumps(saved))
    elif content is not None:
        file.write_text(content)
    with pytest.raises(LocalHvError, match=str(file)):
        machine.do(machine.hv.restore, file)


# The machine.


def test_a_path_that_is_too_long(new_machine: Any, machine: Any, short_dir: Path) -> None:
    deep = short_dir / ("d" * 100)
    with pytest.raises(LocalHvError, match=r"1[12]\d octets, .*at most 107.*--dir"):
        new_machine(deep)
    assert not deep.exists()
    room = 107 - len(str(short_dir)) - 1
    longest = machine.create("n" * min(room, 64))
    assert machine.connect(longest).read("domid") == "1"


def test_a_domains_path_that_is_too_long(new_machine: Any, short_dir: Path) -> None:
    machine = new_machine(short_dir / ("d" * (107 - len(str(short_dir)) - 1 - len("/control"))))
    try:
        machine.create("1234567x"[1:])  # as long as "control"
        with pytest.raises(LocalHvError, match="108 octets"):
            machine.create("12345678x"[1:])
        assert len(names(machine)) == 2
    finally:
        machine.stop()


def test_a_directory_is_served_once(new_machine: Any, machine: Any, short_dir: Path) -> None:
    with pytest.raises(LocalHvError, match="served already"):
        new_machine(short_dir)
    assert machine.connect().read("domid") == "0"


def test_the_directory_is_its_owners_and_left_empty(new_machine: Any, short_dir: Path) -> None:
    machine = new_machine(short_dir / "new")
    assert stat.S_IMODE((short_dir / "new").stat().st_mode) == 0o700
    guest = machine.create("guest")
    client = machine.connect(guest)
    machine.stop()
    assert list((short_dir / "new").iterdir()) == []
    assert client.sock.fileno() == -1


def test_what_a_killed_server_left_is_no_obstacle(new_machine: Any, short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_dir / "dom0"))
    machine = new_machine(short_dir)
    assert machine.connect().read("domid") == "0"
    machine.stop()


def test_a_file_in_the_way(new_machine: Any, short_dir: Path) -> None:
    (short_dir / "dom0").write_text("precious")
    with pytest.raises(LocalHvError, match="not a socket"):
        new_machine(short_dir)
    assert (short_dir / "dom0").read_text() == "precious"


def test_many_domains_come_and_go(machine: Any, backend: Backend) -> None:
    for _ in range(5):
        guests = [machine.create(f"g{i}", SPEC, wait=True) for i in range(8)]
        clients = [machine.connect(guest) for guest in guests]
        for client in clients:
            client.watch("device", "t")
            client.grant(0)
        for guest in guests:
            machine.do(machine.hv.destroy, guest)
        assert all(client.closed_by_server() for client in clients)
    assert not [line for line in listing(machine) if "vsnd" in line or "(n0,r" in line]
    assert machine.do(machine.hv.grant_rows) == []


def test_in_the_callers_own_event_loop() -> None:
    async def use() -> Path:
        async with LocalHypervisor() as hv:
            guest = await hv.create("guest", vsnd=SPEC, wait=False)
            reader, writer = await asyncio.open_unix_connection(guest.socket)
            writer.write(b"\x02\0\0\0" + b"\x01\0\0\0" + bytes(4) + b"\x06\0\0\0" + b"domid\0")
            assert (await reader.readexactly(17))[16:] == b"1"
            await hv.destroy(guest)
            assert await reader.read() == b""
            writer.close()
            return hv.directory

    assert not asyncio.run(use()).exists()


def test_destroy_does_not_wait_where_no_backend_looks(new_machine: Any, short_dir: Path) -> None:
    machine = new_machine(short_dir, device_timeout=3600)
    machine.create("guest", SPEC)
    done = threading.Event()

    def destroy() -> None:
        machine.do(machine.hv.destroy, "guest")
        done.set()

    thread = threading.Thread(target=destroy)
    thread.start()
    deadline = time.monotonic() + 20
    while not done.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done.is_set()
    thread.join()
    machine.stop()
