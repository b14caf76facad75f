# SPDX-License-Identifier: LGPL-2.1-or-later
"""XenStore on asyncio, against a server that the test plays itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import xs_peer as xs
from xs_peer import Peer, store_and_peer

from xenaudio.core.errors import (
    ClosedError,
    ConflictError,
    DeniedError,
    NotFoundError,
    ProtocolError,
    XenAudioError,
)
from xenaudio.core.store import Store


def asynchronous(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), 30))

    return run


async def settle() -> None:
    """Let everything happen that can without a message."""
    for _ in range(5):
        await asyncio.sleep(0)


REQUESTS = {
    "read": (lambda s: s.read("a/b", tx=3), (xs.READ, 3, b"a/b\0"), b"value", "value"),
    "read nothing": (lambda s: s.read("a"), (xs.READ, 0, b"a\0"), b"", ""),
    "directory": (lambda s: s.directory("/", 4), (xs.DIRECTORY, 4, b"/\0"), b"x\0y\0", ["x", "y"]),
    "empty directory": (lambda s: s.directory("a"), (xs.DIRECTORY, 0, b"a\0"), b"", []),
    "write": (lambda s: s.write("a", "1 2", 5), (xs.WRITE, 5, b"a\x001 2"), b"OK\0", None),
    "mkdir": (lambda s: s.mkdir("a"), (xs.MKDIR, 0, b"a\0"), b"OK\0", None),
    "rm": (lambda s: s.rm("a"), (xs.RM, 0, b"a\0"), b"OK\0", None),
    "get_perms": (
        lambda s: s.get_perms("a"),
        (xs.GET_PERMS, 0, b"a\0"),
        b"n1\0r0\0",
        ["n1", "r0"],
    ),
    "set_perms": (
        lambda s: s.set_perms("a", ["n1", "r0"]),
        (xs.SET_PERMS, 0, b"a\0n1\0r0\0"),
        b"OK\0",
        None,
    ),
    "get_domain_path": (
        lambda s: s.get_domain_path(7),
        (xs.GET_DOMAIN_PATH, 0, b"7\0"),
        b"/local/domain/7\0",
        "/local/domain/7",
    ),
    "not UTF-8": (
        lambda s: s.write("a", b"\xff".decode("utf-8", "surrogateescape")),
        (xs.WRITE, 0, b"a\0\xff"),
        b"OK\0",
        None,
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
@asynchronous
async def test_a_request_and_its_reply(name: str) -> None:
    ask, sent, reply, result = REQUESTS[name]
    async with store_and_peer() as (store, peer):
        task = asyncio.ensure_future(ask(store))
        request = await peer.request()
        assert (request.type, request.tx, request.payload) == sent
        peer.answer(request, reply)
        assert await task == result


@asynchronous
async def test_a_value_that_is_not_utf_8_survives_reading() -> None:
    async with store_and_peer() as (store, peer):
        task = asyncio.create_task(store.read("a"))
        peer.answer(await peer.request(), b"\xffa")
        assert (await task).encode("utf-8", "surrogateescape") == b"\xffa"


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("ENOENT", NotFoundError, errno.ENOENT),
        ("EACCES", DeniedError, errno.EACCES),
        ("EAGAIN", ConflictError, errno.EAGAIN),
        ("EINVAL", XenAudioError, errno.EINVAL),
        ("ENOTHEARDOF", XenAudioError, errno.EIO),
    ],
)
@asynchronous
async def test_an_error_says_what_was_attempted(
    name: str, kind: type[XenAudioError], code: int
) -> None:
    async with store_and_peer() as (store, peer):
        task = asyncio.create_task(store.read("a/b"))
        peer.refuse(await peer.request(), name)
        with pytest.raises(kind, match=r"^read a/b: ") as caught:
            await task
        assert caught.value.errno == code


@asynchronous
async def test_what_cannot_be_sent_is_refused_at_once() -> None:
    async with store_and_peer() as (store, peer):
        for refused in (
            store.read("a\0b"),
            store.read(""),
            store.read("/" + "a" * 3072),
            store.write("a", "x" * 4096),
            store.write("a", "\0"),
            store.set_perms("a", []),
            store.watch("", print),
        ):
            with pytest.raises(XenAudioError) as caught:
                await refused
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(NotFoundError):
            await store.unwatch("1")
        task = asyncio.create_task(store.read("a"))
        assert (await peer.request()).payload == b"a\0"
        task.cancel()


@asynchronous
async def test_a_request_nobody_waits_for_any_more_does_not_confuse_the_next() -> None:
    async with store_and_peer() as (store, peer):
        given_up = asyncio.create_task(store.read("a"))
        first = await peer.request()
        given_up.cancel()
        task = asyncio.create_task(store.read("b"))
        second = await peer.request()
        peer.answer(second, b"B")
        peer.answer(first, b"A")
        assert await task == "B"
        assert given_up.cancelled()


@asynchronous
async def test_a_watch_calls_back_until_it_is_ended() -> None:
    async with store_and_peer() as (store, peer):
        seen: list[str] = []
        task = asyncio.create_task(store.watch("a", seen.append))
        request = await peer.request()
        path, token, rest = request.payload.split(b"\0")
        assert (request.type, path, rest) == (xs.WATCH, b"a", b"")
        # Before the reply, as xenstored may.
        peer.send(xs.WATCH_EVENT, 0, b"a\0" + token + b"\0")
        peer.answer(request)
        assert await task == token.decode()
        assert seen == ["a"]

        ended = asyncio.create_task(store.unwatch(token.decode()))
        request = await peer.request()
        assert (request.type, request.payload) == (xs.UNWATCH, b"a\0" + token + b"\0")
        peer.send(xs.WATCH_EVENT, 0, b"a/b\0" + token + b"\0")
        peer.send(xs.WATCH_EVENT, 0, b"a/b\0never heard of\0")
        peer.answer(request)
        await ended
        assert seen == ["a"]


@asynchronous
async def test_two_watches_on_one_path_have_their_own_tokens() -> None:
    async with store_and_peer() as (store, peer):
        seen: list[str] = []
        tokens = []
        for name in ("first", "second"):
            note = functools.partial(lambda name, path: seen.append(f"{name} {path}"), name)
            task = asyncio.create_task(store.watch("a", note))
            peer.answer(await peer.request())
            tokens.append(await task)
        assert tokens[0] != tokens[1]
        peer.send(xs.WATCH_EVENT, 0, b"a/x\0" + tokens[1].encode() + b"\0")
        task = asyncio.create_task(store.read("a"))
        peer.answer(await peer.request(), b"")
        await task
        assert seen == ["second a/x"]


@asynchronous
async def test_a_watch_that_is_refused_calls_nobody() -> None:
    async with store_and_peer() as (store, peer):
        seen: list[str] = []
        task = asyncio.create_task(store.watch("a", seen.append))
        request = await peer.request()
        peer.refuse(request, "EACCES")
        with pytest.raises(DeniedError):
            await task
        peer.send(xs.WATCH_EVENT, 0, b"a\0" + request.payload.split(b"\0")[1] + b"\0")
        task = asyncio.create_task(store.directory("a"))
        peer.answer(await peer.request(), b"")
        await task
        assert seen == []


async def watched(store: Store, peer: Peer, callback: Callable[[str], None]) -> bytes:
    task = asyncio.create_task(store.watch("a", callback))
    peer.answer(await peer.request())
    return (await task).encode()


@asynchronous
async def test_a_callback_that_fails_is_logged_and_the_next_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with store_and_peer() as (store, peer):
        called = asyncio.Event()

        def fails(path: str) -> None:
            raise RuntimeError(path)

        bad = await watched(store, peer, fails)
        good = await watched(store, peer, lambda path: called.set())
        with caplog.at_level(logging.ERROR):
            peer.send(xs.WATCH_EVENT, 0, b"a\0" + bad + b"\0")
            peer.send(xs.WATCH_EVENT, 0, b"a\0" + good + b"\0")
            await called.wait()
        assert "the callback for a watch on a failed" in caplog.text


@asynchronous
async def test_a_callback_may_close_the_store() -> None:
    async with store_and_peer() as (store, peer):
        seen: list[str] = []

        def close(path: str) -> None:
            seen.append(path)
            store.close()

        token = await watched(store, peer, close)
        waiting = asyncio.create_task(store.read("a"))
        await peer.request()
        peer.socket.sendall(
            2 * (xs.HEADER.pack(xs.WATCH_EVENT, 0, 0, 3 + len(token)) + b"a\0" + token + b"\0")
        )
        with pytest.raises(ClosedError):
            await waiting
        assert store.closed
        assert seen == ["a"]


@asynchronous
async def test_losing_the_connection_answers_everyone() -> None:
    async with store_and_peer() as (store, peer):
        until = asyncio.create_task(store.until(asyncio.Event()))
        tasks = [asyncio.create_task(store.read(str(i))) for i in range(3)]
        for _ in tasks:
            await peer.request()
        peer.socket.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ClosedError] * 3
        for wait in (until, store.until(asyncio.Event())):
            with pytest.raises(ClosedError, match="is lost"):
                await wait
        assert store.closed
        with pytest.raises(ClosedError):
            await store.read("a")
        store.close()


@asynchronous
async def test_a_server_that_breaks_the_protocol_is_left() -> None:
    async with store_and_peer() as (store, peer):
        task = asyncio.create_task(store.read("a"))
        request = await peer.request()
        peer.send(xs.READ, request.id + 1, b"")
        with pytest.raises(ClosedError):
            await task
        with pytest.raises(ProtocolError):
            await store.until(asyncio.Event())


@asynchronous
async def test_close_ends_what_waits_and_the_descriptor() -> None:
    async with store_and_peer() as (store, peer):
        task = asyncio.create_task(store.read("a"))
        await peer.request()
        store.close()
        with pytest.raises(ClosedError):
            await task
        with pytest.raises(EOFError):
            await peer.request()
        with pytest.raises(ClosedError, match="was closed"):
            await store.until(asyncio.Event())


@asynchronous
async def test_who_waits_to_be_stopped_is_told_of_nothing_else() -> None:
    async with store_and_peer() as (store, _peer):
        stop = asyncio.Event()
        until = asyncio.create_task(store.until(stop))
        await settle()
        assert not until.done()
        stop.set()
        await until
        assert not store.closed


@asynchronous
async def test_a_descriptor_that_cannot_be_watched_is_closed() -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(OSError):  # noqa: PT011 - epoll's own
        Store(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(XenAudioError, match="use file descriptor"):
        Store(fd)


@asynchronous
async def test_more_is_asked_than_the_socket_takes() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setblocking(False)
    store = Store(ours.detach())
    peer = Peer(theirs)
    values = [f"{i} " + "v" * 3000 for i in range(200)]
    tasks = [asyncio.create_task(store.write("a", value)) for value in values]
    for value in values:
        request = await peer.request()
        assert request.payload == b"a\0" + value.encode()
        peer.answer(request)
    await asyncio.gather(*tasks)
    store.close()
    theirs.close()


@asynchronous
async def test_a_transaction_is_committed_at_its_end() -> None:
    async with store_and_peer() as (store, peer):

        async def change() -> None:
            async with store.transaction() as tx:
                await store.write("a", "1", tx)

        task = asyncio.create_task(change())
        request = await peer.request()
        assert request.type == xs.TRANSACTION_START
        peer.answer(request, b"17\0")
        request = await peer.request()
        assert (request.type, request.tx) == (xs.WRITE, 17)
        peer.answer(request)
        request = await peer.request()
        assert (request.type, request.tx, request.payload) == (xs.TRANSACTION_END, 17, b"T\0")
        peer.answer(request)
        await task


@asynchronous
async def test_a_transaction_is_aborted_by_an_exception() -> None:
    async with store_and_peer() as (store, peer):

        async def change() -> None:
            async with store.transaction():
                raise RuntimeError("changed my mind")

        task = asyncio.create_task(change())
        peer.answer(await peer.request(), b"5\0")
        request = await peer.request()
        assert (request.type, request.tx, request.payload) == (xs.TRANSACTION_END, 5, b"F\0")
        with pytest.raises(RuntimeError, match="changed my mind"):
            await task


@asynchronous
async def test_a_transaction_cancelled_before_it_began_is_aborted() -> None:
    async with store_and_peer() as (store, peer):

        async def change() -> None:
            async with store.transaction():
                pytest.fail("it never begins")

        task = asyncio.create_task(change())
        request = await peer.request()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        peer.answer(request, b"6\0")
        request = await peer.request()
        assert (request.type, request.tx, request.payload) == (xs.TRANSACTION_END, 6, b"F\0")


@pytest.mark.parametrize("data", [b"x\0", b"\0", b"0\0", b"-1\0", b"4294967296\0"])
@asynchronous
async def test_a_transaction_needs_an_id(data: bytes) -> None:
    async with store_and_peer() as (store, peer):

        async def change() -> None:
            async with store.transaction():
                pytest.fail("it never begins")

        task = asyncio.create_task(change())
        peer.answer(await peer.request(), data)
        with pytest.raises(ProtocolError):
            await task


async def serve_conflicts(peer: Peer, conflicts: int) -> None:
    """Refuse so many commits with EAGAIN, then accept."""
    with contextlib.suppress(EOFError):
        for tx in range(1, 1000):
            peer.answer(await peer.request(), b"%d\0" % tx)
            request = await peer.request()
            assert (request.type, request.tx) == (xs.TRANSACTION_END, tx)
            if tx <= conflicts:
                peer.refuse(request, "EAGAIN")
            else:
                peer.answer(request)


@asynchronous
async def test_run_transaction_begins_again_after_a_conflict() -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_conflicts(peer, 2))
        ids: list[int] = []

        async def change(tx: int) -> str:
            ids.append(tx)
            return f"done in {tx}"

        assert await store.run_transaction(change) == "done in 3"
        assert ids == [1, 2, 3]
        server.cancel()


@asynchronous
async def test_run_transaction_gives_up_in_the_end() -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_conflicts(peer, 1000))
        ids: list[int] = []

        async def change(tx: int) -> None:
            ids.append(tx)

        with pytest.raises(ConflictError):
            await store.run_transaction(change, attempts=4)
        assert ids == [1, 2, 3, 4]
        server.cancel()


CARD = {
    b"card": (b"", b"0\0name\0"),
    b"card/0": (b"pcm", b"type\0rate\0"),
    b"card/name": (b"Speakers", b""),
    b"card/0/type": (b"p", b""),
    b"card/0/rate": (b"", b""),
}


async def serve_tree(peer: Peer, nodes: dict[bytes, tuple[bytes, bytes] | str]) -> list[int]:
    """Answer reads of a tree; return how many requests came together, round after round."""
    rounds = []
    with contextlib.suppress(EOFError):
        while True:
            batch = [await peer.request()]
            with contextlib.suppress(asyncio.TimeoutError):
                while True:
                    batch.append(await asyncio.wait_for(peer.request(), 0.05))
            rounds.append(len(batch))
            for request in batch:
                node = nodes[request.payload[:-1]]
                if isinstance(node, str):
                    peer.refuse(request, node)
                else:
                    peer.answer(request, node[0 if request.type == xs.READ else 1])
    return rounds


@asynchronous
async def test_a_tree_takes_a_round_trip_for_each_level() -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_tree(peer, dict(CARD)))
        tree = await store.read_tree("card")
        assert tree == {"0": {"": "pcm", "type": "p", "rate": ""}, "name": "Speakers"}
        store.close()
        assert await server == [2, 4, 4]


@asynchronous
async def test_what_is_below_a_node_that_is_no_folder_is_not_asked_for() -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_tree(peer, dict(CARD)))
        assert await store.read_tree("card", is_folder=lambda name: name == "name") == {
            "0": "pcm",
            "name": "Speakers",
        }
        store.close()
        assert await server == [2, 3]


@asynchronous
async def test_a_node_that_goes_away_while_a_tree_is_read_is_left_out() -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_tree(peer, {**CARD, b"card/0": "ENOENT"}))
        assert await store.read_tree("card") == {"name": "Speakers"}
        server.cancel()


@pytest.mark.parametrize(
    ("node", "error", "kind"),
    [
        (b"card", "ENOENT", NotFoundError),
        (b"card", "EACCES", DeniedError),
        (b"card/0", "EACCES", DeniedError),
    ],
)
@asynchronous
async def test_a_tree_that_cannot_be_read(
    node: bytes, error: str, kind: type[XenAudioError]
) -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_tree(peer, {**CARD, node: error}))
        with pytest.raises(kind, match=node.decode()):
            await store.read_tree("card")
        server.cancel()


@asynchronous
async def test_a_tree_has_a_limit_of_nodes() -> None:
    async with store_and_peer() as (store, peer):
        server = asyncio.create_task(serve_tree(peer, dict(CARD)))
        assert await store.read_tree("card", limit=5) != {}
        with pytest.raises(XenAudioError, match="over 4 nodes") as caught:
            await store.read_tree("card", limit=4)
        assert caught.value.errno == errno.E2BIG
        server.cancel()
