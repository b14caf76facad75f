# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket: programs ask the running service, a JSON object a line each way.

    {"request": "status"}           what the service is doing: xenaudio/backend/status.py
    {"error": "..."}                the answer to anything else

Nothing can be changed through it. It is its owner's and its group's (mode 0660): what guests play,
and when, is not for everybody to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from xenaudio.core.unixsocket import listening_at

log = logging.getLogger(__name__)

SOCKET = Path("/run/xenaudiod/control")
"""Where the service on Xen has it. (/run/xenaudio is the guest service's, and root's.)"""

REQUEST_MOST = 4096  # octets of a line
CLIENTS_MOST = 16
IDLE_SECONDS = 60.0
ANSWER_SECONDS = 5.0


class ControlError(Exception):
    """The service cannot be asked, or did not answer."""


@contextlib.asynccontextmanager
async def serve(path: Path, status: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Answer at a path for as long as the context lasts. OSError when it cannot be had."""
    clients: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        try:
            if len(clients) <= CLIENTS_MOST:
                await _converse(reader, writer, status)
        except (OSError, ValueError, asyncio.TimeoutError):
            pass  # it went, or is slow, or its line is too long
        finally:
            clients.discard(task)
            writer.close()

    with listening_at(path, 0o660) as sock:
        server = await asyncio.start_unix_server(answer, sock=sock, limit=REQUEST_MOST)
        try:
            yield
        finally:
            server.close()
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    status: Callable[[], dict[str, Any]],
) -> None:
    while line := await asyncio.wait_for(reader.readline(), IDLE_SECONDS):
        try:
            request = json.loads(line)
            asked = request.get("request") if isinstance(request, dict) else None
        except (ValueError, RecursionError):
            asked = None
        if asked == "status":
            found = status()
        else:
            found = {"error": 'unknown request: expected {"request": "status"}'}
        writer.write(json.dumps(found).encode() + b"\n")
        await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)


def ask(path: Path, request: str) -> dict[str, Any]:
    """Ask the service at a path, and wait for the answer. ControlError, with what helps."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps({"request": request}).encode() + b"\n")
            with sock.makefile("rb") as answers:
                line = answers.readline()
            found = json.loads(line)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ControlError(
                f"{path}: no service answers there: is it running (systemctl status xenaudiod)?"
            ) from error
        except PermissionError as error:
            raise ControlError(
                f"{path}: only root and members of the group xenaudio may ask the service"
            ) from error
        except (OSError, ValueError) as error:
            raise ControlError(f"{path}: the service did not answer: {error}") from error
    if not isinstance(found, dict) or "error" in found:
        raise ControlError(f"{path}: the service said: {found}")
    return found
