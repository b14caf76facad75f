# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's xenstore tools against the stand-in, with each domain's rights."""

from __future__ import annotations

from typing import Any

import pytest

SPEC = "vsnd = [ ['CARD, short-name=Main', 'PCM, name=Main', 'STREAM, unique-id=0, type=p'] ]"


@pytest.fixture
def guest(machine: Any) -> Any:
    return machine.create("guest", SPEC)


@pytest.fixture
def other(machine: Any, guest: Any) -> Any:
    return machine.create("other")


def ok(machine: Any, domain: Any, *argv: str) -> str:
    done = machine.tool(domain, *argv)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).rstrip("\n")


def fails(machine: Any, domain: Any, *argv: str) -> bool:
    return machine.tool(domain, *argv).returncode != 0


def test_domain_0_reads_and_writes_everything(machine: Any, guest: Any) -> None:
    assert ok(machine, None, "xenstore-read", "/local/domain/1/name") == "guest"
    assert ok(machine, None, "xenstore-read", "/local/domain/1/device/vsnd/0/state") == "1"
    ok(machine, None, "xenstore-write", "/local/domain/1/data/note", "hello")
    assert ok(machine, guest, "xenstore-read", "data/note") == "hello"


def test_relative_paths_are_the_domains_own(machine: Any, guest: Any, other: Any) -> None:
    assert ok(machine, guest, "xenstore-read", "domid") == "1"
    assert ok(machine, other, "xenstore-read", "domid") == "2"
    assert ok(machine, None, "xenstore-read", "domid") == "0"


def test_a_guest_writes_only_below_what_is_its_own(machine: Any, guest: Any) -> None:
    ok(machine, guest, "xenstore-write", "device/vsnd/0/state", "3")
    assert ok(machine, None, "xenstore-read", "/local/domain/1/device/vsnd/0/state") == "3"
    for path in (
        "device/vsnd/1/state",  # a second device
        "name",
        "/local/domain/0/backend/vsnd/1/0/state",
        "/tool/x",
        "/x",
        "/local/domain/9/x",
    ):
        assert fails(machine, guest, "xenstore-write", path, "1"), path


def test_a_guest_reads_its_backend_but_not_another_guest(
    machine: Any, guest: Any, other: Any
) -> None:
    backend = "/local/domain/0/backend/vsnd/1/0"
    assert ok(machine, guest, "xenstore-read", f"{backend}/state") == "1"
    assert fails(machine, other, "xenstore-read", f"{backend}/state")
    assert fails(machine, other, "xenstore-read", "/local/domain/1/name")
    assert fails(machine, other, "xenstore-list", "/local/domain")
    assert fails(machine, guest, "xenstore-read", "/libxl/1/type")


def test_new_nodes_inherit_rights_and_belong_to_who_made_them(machine: Any, guest: Any) -> None:
    ok(machine, guest, "xenstore-write", "device/vsnd/0/0/0/ring-ref", "8")
    ok(machine, None, "xenstore-write", "/local/domain/1/device/vsnd/0/note/deep", "x")
    listing = ok(machine, None, "xenstore-ls", "-fp", "/local/domain/1/device/vsnd/0")
    assert '0/0/0/ring-ref = "8"   (n1,r0)' in listing.replace(
        "/local/domain/1/device/vsnd/0/0/0/", "0/0/0/"
    )
    assert '/note/deep = "x"   (n1,r0)' in listing


def test_chmod_by_the_owner_but_never_a_new_owner(machine: Any, guest: Any, other: Any) -> None:
    ok(machine, guest, "xenstore-write", "data/x", "1")
    assert fails(machine, other, "xenstore-read", "/local/domain/1/data/x")
    ok(machine, guest, "xenstore-chmod", "data/x", "n1", "r2")
    assert ok(machine, other, "xenstore-read", "/local/domain/1/data/x") == "1"
    assert fails(machine, other, "xenstore-write", "/local/domain/1/data/x", "2")
    assert fails(machine, guest, "xenstore-chmod", "data/x", "n2")
    assert fails(machine, other, "xenstore-chmod", "/local/domain/1/data/x", "b2")
    assert fails(machine, guest, "xenstore-chmod", "name", "b1")


def test_list_exists_and_rm(machine: Any, guest: Any) -> None:
    ok(machine, guest, "xenstore-write", "data/a/b", "1", "data/a/c", "2")
    assert ok(machine, guest, "xenstore-list", "data/a").split() == ["b", "c"]
    ok(machine, guest, "xenstore-exists", "data/a/b")
    ok(machine, guest, "xenstore-rm", "data/a")
    assert fails(machine, guest, "xenstore-exists", "data/a/b")


def test_ls_of_a_directory_longer_than_a_message(machine: Any) -> None:
    dom0 = machine.connect()
    names = [f"child-with-a-rather-long-name-{i:04}" for i in range(400)]
    for name in names:
        dom0.write(f"/many/{name}", "x")
    listing = ok(machine, None, "xenstore-ls", "-f", "/many").splitlines()
    assert listing == [f'/many/{name} = "x"' for name in names]


def test_watch_tells_of_the_node_and_all_below(machine: Any, guest: Any) -> None:
    import subprocess

    env = {"PATH": "/usr/bin:/bin:/usr/sbin", "XENSTORED_PATH": guest.socket}
    with subprocess.Popen(
        ["xenstore-watch", "-n", "3", "data"], env=env, stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "data\n"
        ok(machine, guest, "xenstore-write", "data/x/y", "1")
        assert watcher.stdout.readline() == "data/x/y\n"
        ok(machine, guest, "xenstore-rm", "data/x")
        assert watcher.stdout.readline() == "data/x\n"
        assert watcher.wait(20) == 0
