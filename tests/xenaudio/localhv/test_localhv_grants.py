# SPDX-License-Identifier: LGPL-2.1-or-later
"""Granting memory between domains: sharing, rights, limits, errors, and who maps what."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from xenaudio.localhv.wire import Request


@pytest.fixture
def guest(machine: Any) -> Any:
    return machine.create("guest")


@pytest.fixture
def front(machine: Any, guest: Any) -> Any:
    return machine.connect(guest)


@pytest.fixture
def back(machine: Any) -> Any:
    return machine.connect()


def rows(machine: Any, name: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.do(machine.hv.grant_rows, name)
    return found


def server_memfds() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return sum("xenaudio-grant" in link for link in links)


def test_both_sides_see_the_same_pages(front: Any, back: Any) -> None:
    refs, mine = front.grant(0, 3)
    assert mine[:] == bytes(3 * 4096)
    for page in range(3):
        mine[page * 4096] = page + 1
    mapped = back.map(1, [refs[2], refs[0], refs[1]])
    assert [page for _, page in mapped] == [2, 0, 1]
    assert len({fd for fd, _ in mapped}) == 1  # each memfd at most once in a reply
    theirs = mmap.mmap(mapped[0][0], 3 * 4096)
    assert [theirs[page * 4096] for page in range(3)] == [1, 2, 3]
    theirs[0] = 77
    assert mine[0] == 77


def test_pages_of_several_grants_in_one_map(front: Any, back: Any) -> None:
    first, _ = front.grant(0, 2)
    second, _ = front.grant(0, 2)
    mapped = back.map(1, [first[0], second[0], first[1], second[1]])
    fds = [fd for fd, _ in mapped]
    assert fds[0] == fds[2] != fds[1] == fds[3]


def test_references_begin_at_8(front: Any) -> None:
    refs, _ = front.grant(0, 5)
    assert refs == [8, 9, 10, 11, 12]
    assert front.grant(0)[0] == [13]


def test_the_memory_can_neither_shrink_nor_grow(front: Any) -> None:
    front.grant(0, 1)
    front.ask(Request.GNTALLOC, struct.pack("=HHI", 0, 0, 1))
    (fd,) = front.take_fds()
    for size in (0, 8192):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SEAL


def test_a_read_only_mapping(front: Any, back: Any) -> None:
    refs, mine = front.grant(0)
    ((fd, _),) = back.map(1, refs, writable=False)
    mine[0] = 5
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 4096)
    assert mmap.mmap(fd, 4096, prot=mmap.PROT_READ)[0] == 5


def test_who_may_map(machine: Any, guest: Any, front: Any, back: Any, refused: Any) -> None:
    other = machine.connect(machine.create("other"))
    refs, _ = front.grant(2)
    for who in (back, front):
        with refused("EINVAL"):
            who.map(1, refs)
    assert other.map(1, refs)
    for nobody in (0, 9, 0x7FF4):
        with refused("EINVAL"):
            other.map(nobody, refs)


@pytest.mark.parametrize("nobody", [9, 0x7FF4, 0xFFFF])
def test_pages_can_be_granted_to_nobody(front: Any, nobody: int) -> None:
    assert front.grant(nobody)[0] == [8]


def test_a_map_is_all_or_nothing(machine: Any, front: Any, back: Any, refused: Any) -> None:
    refs, _ = front.grant(0, 2)
    with refused("EINVAL"):
        back.map(1, [*refs, 999])
    assert [row["mapped"] for row in rows(machine)] == [{}, {}]
    assert back.take_fds() == []


def test_a_grant_ends_when_its_page_is_no_longer_mapped(
    machine: Any, front: Any, back: Any, refused: Any
) -> None:
    refs, mine = front.grant(0, 2)
    ((fd, _), _) = back.map(1, refs)
    theirs = mmap.mmap(fd, 8192)
    front.end_grants(refs)
    mine[0] = 9
    assert theirs[0] == 9
    ((fd, _), _) = back.map(1, refs)
    assert mmap.mmap(fd, 8192)[0] == 9
    back.unmap(1, refs)
    assert [(row["ref"], row["ended"], row["mapped"]) for row in rows(machine, "guest")] == [
        (8, True, {"Domain-0": 1}),
        (9, True, {"Domain-0": 1}),
    ]
    assert not set(front.grant(0, 10)[0]) & set(refs)  # not used again while mapped
    back.unmap(1, refs)
    with refused("EINVAL"):
        back.map(1, refs)
    assert all(not row["ended"] for row in rows(machine, "guest"))


def test_a_page_can_be_mapped_64_times(machine: Any, front: Any, back: Any, refused: Any) -> None:
    refs, _ = front.grant(0, 2)
    with refused("EINVAL"):
        back.map(1, [refs[0]] * 65)
    back.map(1, [refs[0]] * 40)
    second = machine.connect()
    second.map(1, [refs[0]] * 24)
    for who in (back, second):
        with refused("EINVAL"):
            who.map(1, [refs[1], refs[0]])
    assert [row["mapped"] for row in rows(machine)] == [{"Domain-0": 64}, {}]
    back.unmap(1, [refs[0]])
    assert second.map(1, refs)


def test_mappings_are_counted(machine: Any, front: Any, back: Any, refused: Any) -> None:
    refs, _ = front.grant(0)
    back.map(1, [*refs, *refs])
    second = machine.connect()
    second.map(1, refs)
    assert rows(machine)[0]["mapped"] == {"Domain-0": 3}
    with refused("ENOENT"):
        second.unmap(1, [*refs, *refs])
    back.unmap(1, [*refs, *refs])
    assert rows(machine)[0]["mapped"] == {"Domain-0": 1}
    with refused("ENOENT"):
        back.unmap(1, refs)
    second.unmap(1, refs)
    assert rows(machine)[0]["mapped"] == {}


def test_grants_are_ended_by_the_connection_that_made_them_only(
    machine: Any, guest: Any, front: Any, back: Any, refused: Any
) -> None:
    refs, _ = front.grant(0, 2)
    second = machine.connect(guest)
    with refused("ENOENT"):
        second.end_grants(refs)
    with refused("ENOENT"):
        front.end_grants([refs[0], 999])
    with refused("ENOENT"):
        front.end_grants([refs[0], refs[0]])
    assert back.map(1, refs)


def test_what_a_connection_made_ends_with_it(machine: Any, guest: Any, back: Any) -> None:
    before = server_memfds()
    front = machine.connect(guest)
    refs, memory = front.grant(0, 4)
    memory.close()  # it holds a file descriptor, too
    mapper = machine.connect()
    mapper.map(1, refs)
    mapper.close()
    back.read("domid")
    assert all(row["mapped"] == {} for row in rows(machine))
    back.map(1, refs[:1])
    front.close()
    back.read("domid")
    assert [(row["ref"], row["ended"]) for row in rows(machine)] == [(refs[0], True)]
    back.unmap(1, refs[:1])
    assert rows(machine) == []
    back.close()
    while machine.do(machine.hv.domain_rows)[0]["connections"]:
        pass
    assert server_memfds() == before


def test_end_grants_by_command(machine: Any, guest: Any, front: Any, back: Any) -> None:
    refs, _ = front.grant(0, 3)
    back.map(1, refs[:1])
    assert machine.do(machine.hv.end_grants, guest) == 3
    assert [row["ref"] for row in rows(machine)] == refs[:1]
    with pytest.raises(Exception, match="EINVAL"):
        back.map(1, refs[1:])


def test_a_domains_references_are_limited(
    machine: Any, front: Any, back: Any, refused: Any
) -> None:
    made = []
    with refused("ENOSPC"):
        for _ in range(40):
            made += front.grant(0, 1000)[0]
    assert len(made) == 32000
    assert len(set(made)) == len(made)
    front.end_grants(made[:500])
    front.end_grants(made[500:1000])
    front.grant(0, 1000)
    assert back.grant(1)  # the other domain is not concerned


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Request.GNTALLOC, b""),
        (Request.GNTALLOC, struct.pack("=HHI", 0, 0, 0)),
        (Request.GNTALLOC, struct.pack("=HHI", 0, 0, 1001)),
        (Request.GNTALLOC, struct.pack("=HHI", 0, 0, 0xFFFFFFFF)),
        (Request.GNTALLOC, struct.pack("=HHII", 0, 0, 1, 0)),
        (Request.GNTDEALLOC, b""),
        (Request.GNTDEALLOC, b"12345"),
        (Request.GNTMAP, b""),
        (Request.GNTMAP, struct.pack("=HHI", 1, 1, 0)),
        (Request.GNTMAP, struct.pack("=HHI", 1, 1, 1)),
        (Request.GNTMAP, struct.pack("=HHI129I", 1, 1, 129, *range(129))),
        (Request.GNTMAP, struct.pack("=HHII", 1, 1, 0xFFFFFFFF, 8)),
        (Request.GNTMAP, struct.pack("=HHII", 0x7FFF, 1, 1, 8)),
        (Request.GNTUNMAP, struct.pack("=HHIII", 1, 1, 1, 8, 9)),
    ],
)
def test_a_malformed_request(front: Any, refused: Any, kind: int, payload: bytes) -> None:
    with refused("EINVAL"):
        front.ask(kind, payload)
    assert front.grant(0)


def test_a_transaction_has_no_place_here(front: Any, refused: Any) -> None:
    with refused("EINVAL"):
        front.ask(Request.GNTALLOC, struct.pack("=HHI", 0, 0, 1), tx=1)


def test_128_pages_at_once(front: Any, back: Any) -> None:
    refs = []
    for _ in range(128):
        refs += front.grant(0)[0]
    mapped = back.map(1, refs)
    assert len({fd for fd, _ in mapped}) == 128
    assert all(Path(f"/proc/self/fd/{fd}").exists() for fd, _ in mapped)
