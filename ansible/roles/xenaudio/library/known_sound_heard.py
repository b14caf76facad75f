# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ansible module: waits in dom0 until the known sound of a guest arrives."""

from __future__ import annotations

import glob
import json
import os
import socket
import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.known_sound import FRAMES, RATE, frames

DOCUMENTATION = r"""
module: known_sound_heard
short_description: Whether the sound of known_sound arrives in dom0
description:
  - Asks the service (the control socket of C(xenaudio serve)) what a guest's streams do, until
    enough of a sound has come. Start it before the sound is played.
  - Where the guest plays to a file, the file must then have the sound, all frames in order, bit for
    bit, at least once of the three times. Elsewhere frames are counted, whatever they are.
options:
  domain:
    description: The guest's name in dom0.
    type: str
    required: true
  seconds:
    description: How long to wait.
    type: int
    default: 60
  control:
    description: The service's control socket.
    type: path
    default: /run/xenaudiod/control
"""

EXAMPLES = r"""
- name: Wait for the known sound of desk1
  known_sound_heard:
    domain: desk1
"""

RETURN = r"""
said:
  description: What arrived where, for people.
  returned: success
  type: str
bit_exact:
  description: Whether it was compared, and was right. Elsewhere than in a file it is not compared.
  returned: success
  type: bool
"""

ENOUGH = RATE // 4  # frames; counts are seen now and then, and go when the card is closed


class HeardError(Exception):
    """It did not arrive."""


def ask(control: str) -> dict[str, Any]:
    """Ask the service what it does. HeardError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(10)
            sock.connect(control)
            sock.sendall(b'{"request": "status"}\n')
            with sock.makefile("rb") as answers:
                found = json.loads(answers.readline())
    except (OSError, ValueError) as error:
        raise HeardError(f"{control}: no service answers there: {error}") from error
    if not isinstance(found, dict) or "error" in found:
        raise HeardError(f"{control}: the service said {found}")
    return found


def streams(status: dict[str, Any], domain: str) -> list[dict[str, Any]]:
    """Return the streams that the guest plays. HeardError when it has no card."""
    cards = [card for g in status["guests"] if g["guest"] == domain for card in g["cards"]]
    if not cards:
        names = ", ".join(guest["guest"] for guest in status["guests"]) or "no guest"
        raise HeardError(
            f"{domain}: the service has no card of it (of {names}): expected a guest of this name"
            " that was started with vsnd= in its xl configuration"
        )
    return [s for card in cards for s in card["streams"] if s["direction"] == "playback"]


def watch(control: str, domain: str, seconds: float) -> tuple[str, int]:
    """Return the route that the guest plays on, and how many frames were seen. HeardError."""
    first: dict[tuple[int, int], int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for stream in streams(ask(control), domain):
            place = (stream["pcm"], stream["stream"])
            count = stream["frames_in"]
            # It counts from 0 again when the card is connected again.
            first[place] = min(first.get(place, count), count)
            if count - first[place] >= ENOUGH:
                return stream["route"], count - first[place]
        time.sleep(0.1)
    raise HeardError(
        f"{domain}: nothing was played for {seconds:g} s: expected {FRAMES} frames of the known"
        " sound. (xenaudio status, and the journal of xenaudiod, say what the card does)"
    )


def find(route: str, since: float, seconds: float) -> str:
    """Return the file of a route that has the sound. HeardError."""
    place = route.partition(":")[2]
    folder = place if os.path.isdir(place) else os.path.dirname(place)
    wanted = frames()
    end = time.monotonic() + seconds
    looked_at: list[str] = []
    while True:
        looked_at = [p for p in glob.glob(f"{glob.escape(folder)}/*.wav") if changed(p) >= since]
        for path in looked_at:
            with open(path, "rb") as file:
                if wanted in file.read():
                    return path
        if time.monotonic() >= end:
            break
        time.sleep(0.2)
    raise HeardError(
        f"{', '.join(looked_at) or f'{folder}: no file'}: the known sound is not there bit for bit:"
        " expected it at full volume, at 48000 Hz, s16_le and two channels, with nothing beside it"
        " and no gap (a busy machine leaves some: xenaudio status counts them)"
    )


def changed(path: str) -> float:
    """Return when a file was changed last; 0 when it has gone."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def run(module: AnsibleModule) -> NoReturn:
    """Wait and look. HeardError."""
    given = module.params
    since = time.time() - 1
    route, count = watch(given["control"], given["domain"], given["seconds"])
    compared = route.partition(":")[0] == "file"
    said = f"at least {count} frames of {given['domain']} arrived for {route}; not compared there"
    if compared:
        path = find(route, since, 20)
        said = f"{FRAMES} frames of {given['domain']} are in {path}, bit for bit"
    module.exit_json(changed=False, said=said, bit_exact=compared)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "domain": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 60},
            "control": {"type": "path", "default": "/run/xenaudiod/control"},
        },
        supports_check_mode=True,
    )
    try:
        run(module)
    except (HeardError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
