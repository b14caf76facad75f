# SPDX-License-Identifier: LGPL-2.1-or-later
"""`xenaudio localhv`: the stand-in for Xen from the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xenaudio.localhv import LocalHvError, LocalHypervisor, VsndError
from xenaudio.localhv.control import ControlServer, request
from xenaudio.localhv.hypervisor import default_directory
from xenaudio.localhv.processes import MARK


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand `localhv`."""
    parser = subparsers.add_parser(
        "localhv",
        help="a stand-in for Xen on this machine: domains, XenStore, grants, event channels",
        description="A stand-in for Xen on this machine. Start it with 'serve'; the other commands "
        "talk to it.",
    )
    add_commands(parser)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `localhv` to a parser."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--dir",
        type=Path,
        default=None,
        help="the server's directory (default: $XENAUDIO_LOCALHV, "
        "$XDG_RUNTIME_DIR/xenaudio-localhv or /tmp/xenaudio-localhv-UID)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, text: str, func: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(run=func)
        return added

    def named(name: str, text: str, func: Any) -> argparse.ArgumentParser:
        added = command(name, text, func)
        added.add_argument("name", metavar="NAME", help="the domain's name or domid")
        return added

    def waits(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--no-wait",
            dest="wait",
            action="store_false",
            help="do not wait for the devices' backend",
        )

    serve = command("serve", "run the stand-in until SIGTERM or SIGINT", _serve)
    serve.add_argument(
        "--device-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long a backend may take to reach a state (default: 10, as with xl)",
    )
    create = command("create", "make a domain", _create)
    create.add_argument("name", metavar="NAME", help="the new domain's name")
    create.add_argument("--vsnd", metavar="SPEC", help="its sound cards, as vsnd= in xl.cfg")
    waits(create)
    command("list", "list the domains", _list).add_argument("--json", action="store_true")
    named("pause", "stop a domain's processes", _simple("pause"))
    named("unpause", "let them go on", _simple("unpause"))
    waits(named("destroy", "end a domain at once", _simple("destroy", "wait")))
    named("shutdown", "ask a domain to power off, then end it", _simple("shutdown"))
    save = named("save", "save a domain to a file and end it", _save)
    save.add_argument("file", metavar="FILE", type=Path)
    restore = command("restore", "restore a saved domain, with a new domid", _restore)
    restore.add_argument("file", metavar="FILE", type=Path)
    waits(restore)
    attach = named("attach", "add sound cards to a running domain", _attach)
    attach.add_argument("--vsnd", metavar="SPEC", required=True, help="as vsnd= in xl.cfg")
    waits(attach)
    detach = named(
        "detach", "remove a sound card from a running domain", _simple("detach", "devid")
    )
    detach.add_argument("devid", metavar="DEVID", type=int, help="the device's number, from 0")
    run = named("run", "run a program as a part of a domain", _run)
    run.add_argument("argv", metavar="CMD", nargs=argparse.REMAINDER, help="-- CMD ARGUMENTS...")
    for name, text in (("grants", "list granted pages"), ("channels", "list event channel ports")):
        rows = command(name, f"{text}, of one domain or of all", _rows(name))
        rows.add_argument("name", metavar="NAME", nargs="?", help="the domain's name or domid")
        rows.add_argument("--json", action="store_true")
    named("close-channels", "a fault: close a domain's ports", _fault("close-channels", "port"))
    named("end-grants", "a fault: end a domain's grants", _fault("end-grants", "grant"))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, from 0 to 3600")
    return value


def _directory(args: argparse.Namespace) -> Path:
    return args.dir if args.dir is not None else default_directory()


def _refusable(func: Any) -> Any:
    """Turns a refusal into a message and exit code 1."""

    def call(args: argparse.Namespace) -> int:
        try:
            code: int = func(args)
        except (LocalHvError, VsndError) as error:
            print(f"xenaudio localhv: {error}", file=sys.stderr)
            return 1
        return code

    return call


@_refusable
def _serve(args: argparse.Namespace) -> int:
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve_until_told(_directory(args), args.device_timeout))
    return 0


async def _serve_until_told(directory: Path, device_timeout: float) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with LocalHypervisor(directory, device_timeout=device_timeout) as hv:
        control = ControlServer(hv)
        await control.start()
        try:
            print(f"ready: domain 0 is {hv.dom0.socket}", flush=True)
            await told.wait()
        finally:
            await control.stop()


@_refusable
def _create(args: argparse.Namespace) -> int:
    made = request(_directory(args), "create", name=args.name, vsnd=args.vsnd, wait=args.wait)
    print(f"domain {made['domid']} {made['name']}: {made['socket']}")
    return 0


@_refusable
def _list(args: argparse.Namespace) -> int:
    rows = request(_directory(args), "list")
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(
            ("Name", "ID", "State", "Cards", "Socket"),
            [
                (
                    row["name"],
                    "-" if row["domid"] is None else row["domid"],
                    row["state"],
                    len(row["vsnd"]),
                    row["socket"],
                )
                for row in rows
            ],
        )
    return 0


def _simple(command: str, *more: str) -> Any:
    @_refusable
    def call(args: argparse.Namespace) -> int:
        arguments = {key: getattr(args, key) for key in ("name", *more)}
        request(_directory(args), command, **arguments)
        return 0

    return call


@_refusable
def _save(args: argparse.Namespace) -> int:
    request(_directory(args), "save", name=args.name, file=str(args.file.absolute()))
    return 0


@_refusable
def _restore(args: argparse.Namespace) -> int:
    file = str(args.file.absolute())
    made = request(_directory(args), "restore", file=file, wait=args.wait)
    print(f"domain {made['domid']} {made['name']}: {made['socket']}")
    return 0


@_refusable
def _attach(args: argparse.Namespace) -> int:
    directory = _directory(args)
    for devid in request(directory, "attach", name=args.name, vsnd=args.vsnd, wait=args.wait):
        print(f"vsnd device {devid}")
    return 0


@_refusable
def _run(args: argparse.Namespace) -> int:
    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        raise LocalHvError("run: no command given: expected NAME -- CMD ARGUMENTS...")
    _lead_group()
    domain = request(_directory(args), "register", name=args.name)
    for name in ("XENAUDIO_HV", "XENSTORED_PATH", MARK):
        os.environ[name] = domain["socket"]
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"xenaudio localhv: {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _lead_group() -> None:
    """Becomes the leader of a process group, so that what it starts is stopped and killed with it,
    and keeps the terminal, if it has it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        terminal = -1
    try:
        in_front = terminal >= 0 and os.tcgetpgrp(terminal) == os.getpgrp()
        with suppress(PermissionError):  # it leads a session, and so a group, already
            os.setpgid(0, 0)
        if in_front:
            handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(terminal, os.getpgrp())
            signal.signal(signal.SIGTTOU, handler)
    finally:
        if terminal >= 0:
            os.close(terminal)


def _rows(command: str) -> Any:
    @_refusable
    def call(args: argparse.Namespace) -> int:
        rows = request(_directory(args), command, name=args.name)
        if args.json:
            print(json.dumps(rows, indent=2))
        elif command == "grants":
            _print_table(
                ("Domain", "Ref", "To", "Page", "State", "Mapped by"),
                [
                    (
                        row["domain"],
                        row["ref"],
                        row["remote"],
                        row["page"],
                        "ended" if row["ended"] else "granted",
                        " ".join(f"{name}:{times}" for name, times in row["mapped"].items()) or "-",
                    )
                    for row in rows
                ],
            )
        else:
            _print_table(
                ("Domain", "Port", "To", "Peer"),
                [
                    (
                        row["domain"],
                        row["port"],
                        row["remote"],
                        f"{row['peer']['domain']}:{row['peer']['port']}" if row["peer"] else "-",
                    )
                    for row in rows
                ],
            )
        return 0

    return call


def _fault(command: str, thing: str) -> Any:
    @_refusable
    def call(args: argparse.Namespace) -> int:
        count = request(_directory(args), command, name=args.name)
        print(f"{count} {thing}{'' if count == 1 else 's'}")
        return 0

    return call


def _print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = [tuple(map(str, row)) for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        padded = (word.ljust(width) for word, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command without the rest of `xenaudio`."""
    parser = argparse.ArgumentParser(prog="xenaudio localhv")
    add_commands(parser)
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
