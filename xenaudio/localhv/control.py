# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stand-in's command socket, `<dir>/control`: one JSON object a line, each answered by one.

Request: {"command": NAME, ...arguments}. Answer: {"ok": true, "result": ...} or {"ok": false,
"error": TEXT}. Only the user that runs the server (and root) can use it: the directory is theirs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .domains import LocalHvError
from .hypervisor import CONTROL, LocalHypervisor
from .vsnd import VsndError

log = logging.getLogger(__name__)

_LINE_MAX = 1 << 20  # octets of a request
_UCRED = struct.Struct("3i")

# What is asked of whom, and the process that asks.
Handler = Callable[[LocalHypervisor, dict[str, Any], int], Awaitable[Any]]


class ControlServer:
    """Serves the commands of one hypervisor."""

    def __init__(self, hv: LocalHypervisor) -> None:
        self._hv = hv
        self._path = hv.directory / CONTROL
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Opens the socket. LocalHvError."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise LocalHvError(f"{self._path} exists and is not a socket: remove it")
            self._path.unlink()
        try:
            self._server = await asyncio.start_unix_server(
                self._client, self._path, limit=_LINE_MAX
            )
        except OSError as error:
            raise LocalHvError(f"cannot listen on {self._path}: {error.strerror}") from error

    async def stop(self) -> None:
        """Closes it, and whatever is under way."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with suppress(FileNotFoundError):
            self._path.unlink()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        sock = writer.get_extra_info("socket")
        pid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line, pid)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError) as error:
            log.debug("control connection of process %d ends: %r", pid, error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, line: bytes, pid: int) -> dict[str, Any]:
        try:
            request = json.loads(line)
            handler = _HANDLERS.get(request["command"])
            if handler is None:
                raise LocalHvError(f"unknown command {request['command']!r}")
            return {"ok": True, "result": await handler(self._hv, request, pid)}
        except (LocalHvError, VsndError) as error:
            return {"ok": False, "error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            return {"ok": False, "error": f"malformed request: {error!r}"}


_HANDLERS: dict[str, Handler] = {}


def _command(name: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        _HANDLERS[name] = handler
        return handler

    return add


@_command("create")
async def _create(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    domain = await hv.create(request["name"], request.get("vsnd"), wait=request.get("wait", True))
    return {"name": domain.name, "domid": domain.domid, "socket": domain.socket}


@_command("list")
async def _list(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    return hv.domain_rows()


@_command("pause")
async def _pause(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> None:
    await hv.pause(request["name"])


@_command("unpause")
async def _unpause(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> None:
    await hv.unpause(request["name"])


@_command("destroy")
async def _destroy(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> None:
    await hv.destroy(request["name"], wait=request.get("wait", True))


@_command("shutdown")
async def _shutdown(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> None:
    await hv.shutdown(request["name"])


@_command("save")
async def _save(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> None:
    await hv.save(request["name"], request["file"])


@_command("restore")
async def _restore(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    domain = await hv.restore(request["file"], wait=request.get("wait", True))
    return {"name": domain.name, "domid": domain.domid, "socket": domain.socket}


@_command("attach")
async def _attach(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    return await hv.attach(request["name"], request["vsnd"], wait=request.get("wait", True))


@_command("detach")
async def _detach(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> None:
    await hv.detach(request["name"], int(request["devid"]))


@_command("register")
async def _register(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    """The process that asks becomes the domain's."""
    domain = hv.register(request["name"], pid)
    return {"name": domain.name, "domid": domain.domid, "socket": domain.socket}


@_command("grants")
async def _grants(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    return hv.grant_rows(request.get("name"))


@_command("channels")
async def _channels(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    return hv.channel_rows(request.get("name"))


@_command("close-channels")
async def _close_channels(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    return hv.close_channels(request["name"])


@_command("end-grants")
async def _end_grants(hv: LocalHypervisor, request: dict[str, Any], pid: int) -> Any:
    return hv.end_grants(request["name"])


def request(directory: Path, command: str, **arguments: object) -> Any:
    """Asks the server of `directory` for something, and waits for the answer. LocalHvError."""
    path = directory / CONTROL
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError as error:
            raise LocalHvError(
                f"no server at {path} ({error.strerror or error}): "
                f"start one with `xenaudio localhv serve --dir {directory}`"
            ) from error
        with sock.makefile("rwb") as stream:
            try:
                stream.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
                stream.flush()
                line = stream.readline()
            except OSError as error:
                raise LocalHvError(f"the server at {path} went away: {error.strerror}") from error
    if not line.endswith(b"\n"):
        raise LocalHvError(f"the server at {path} went away before it answered")
    answer = json.loads(line)
    if not answer["ok"]:
        raise LocalHvError(answer["error"])
    return answer["result"]
