# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ansible module: the `vsnd` key of a guest's xl configuration, and nothing else of it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.xl_cfg import XlCfgError, only, parse, with_setting, without_setting

DOCUMENTATION = r"""
module: xl_vsnd
short_description: The sound cards of a guest, in its xl configuration
description:
  - Sets or removes the C(vsnd) key of an xl configuration (xl.cfg(5)), and changes nothing else in
    the file. Comments, order and layout of all the rest stay octet for octet. A comment inside the
    value of C(vsnd) goes with the value.
  - What C(vsnd) is set to comes from C(xenaudio render), which refuses what xl refuses. The host
    needs the package python3-xenaudio.
  - A file that xl could not read is refused with line and column, and so is one that sets C(vsnd)
    more than once, or with C(+=). It stays as it was.
  - Where C(vsnd) says the same already, whatever its layout, nothing is changed.
options:
  path:
    description: The guest's xl configuration. It must exist, unless I(state=absent).
    type: path
    required: true
  sound:
    description:
      - The guest's sound, with the keys of C(xenaudio render --help). Its C(pulseaudio) is for the
        guest, and does not change the file.
      - Needed for I(state=present).
    type: dict
  state:
    description: Whether there is to be a C(vsnd).
    type: str
    choices: [present, absent]
    default: present
  backup:
    description:
      - Whether to keep a copy of the file, beside it, when it is changed. (Not for a file that
        lies in /etc/xen/auto itself, whose files all are started. One that is linked from there is
        copied beside the file that the link is to.)
    type: bool
    default: false
  command:
    description: The C(xenaudio) command, a path or a name to look for.
    type: path
    default: xenaudio
attributes:
  check_mode:
    support: full
    description:
      Where the C(xenaudio) command is not there yet, a change is told, and no difference.
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Give desk1 a card that plays and records
  xl_vsnd:
    path: /etc/xen/desk1.cfg
    sound:
      card:
        - short-name: Desk
          sample-rates: [48000]
          pcm:
            - name: Desk
              stream:
                - {type: playback, unique-id: out}
                - {type: capture, unique-id: mic}

- name: Leave it without sound
  xl_vsnd:
    path: /etc/xen/desk1.cfg
    state: absent
"""

RETURN = r"""
vsnd:
  description: What C(vsnd) is set to, for each card its list of strings. Empty without one.
  returned: unless the command is missing in check mode
  type: list
  elements: list
backup_file:
  description: Where the copy is.
  returned: when there is one
  type: str
"""


class SoundError(ValueError):
    """A description of a guest's sound that cannot be used; a line for each thing wrong."""


def toml(sound: dict[str, Any]) -> tuple[str, list[str]]:
    """Return a description as `xenaudio render` reads it, and for each line where it is from."""
    lines: list[str] = []
    places: list[str] = []
    _table(sound, "", "sound", lines, places)
    return "".join(f"{line}\n" for line in lines), places


def _table(
    table: dict[str, Any], header: str, place: str, lines: list[str], places: list[str]
) -> None:
    below: list[tuple[str, str, Any]] = []
    for key, value in table.items():
        name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
        inner = f"{header}.{name}" if header else name
        if isinstance(value, dict):
            below.append((f"[{inner}]", f"{place}.{key}", value))
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            below += [(f"[[{inner}]]", f"{place}.{key}[{at}]", v) for at, v in enumerate(value)]
        else:
            lines.append(f"{name} = {_value(value, f'{place}.{key}')}")
            places.append(place)
    for line, where, value in below:
        lines.append(line)
        places.append(where)
        _table(value, line.strip("[]"), where, lines, places)


def _value(value: Any, place: str) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(v, f'{place}[{at}]') for at, v in enumerate(value))}]"
    if isinstance(value, bool | int | float | str):
        # (JSON's strings are TOML's, but for DEL, which TOML wants escaped.)
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    shown = json.dumps(value, default=str)
    raise SoundError(f"{place}: {shown}: expected a text, a number, or a list of these")


def told(errors: str, places: list[str]) -> str:
    """Return the command's messages with places of the description in the place of its lines."""
    found = []
    for line in errors.splitlines():
        match = re.match(r"<stdin>:(\d+): ", line)
        if match is None:
            found.append(line)
        else:
            at = min(int(match[1]), len(places)) - 1
            found.append(f"{places[at] if at >= 0 else 'sound'}: {line[match.end() :]}")
    return "\n".join(found)


def render(module: AnsibleModule, command: str, sound: dict[str, Any]) -> str:
    """Return the value of `vsnd`, as xl.cfg has it. SoundError."""
    text, places = toml(sound)
    status, printed, errors = module.run_command(
        [command, "render", "--vsnd", "-"], data=text, environ_update={"PYTHONUTF8": "1"}
    )
    if status != 0:
        raise SoundError(told(errors, places) or f"{command} render: exit status {status}")
    (setting,) = parse(printed)
    return printed[setting.value_begin : setting.end]


def read(path: str) -> str:
    """Return a file's text. OSError."""
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replace a file at once; owner and mode stay."""
    fd, new = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    module.atomic_move(new, path)


def edited(text: str, value: str | None) -> str:
    """Return a file's text with that value of `vsnd`, or without one. XlCfgError."""
    current = only(text, "vsnd")
    if value is None:
        return without_setting(text, "vsnd")
    (wanted,) = parse(f"vsnd = {value}")
    if current is not None and current.value == wanted.value:
        return text
    return with_setting(text, "vsnd", value)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "sound": {"type": "dict"},
            "state": {"choices": ["present", "absent"], "default": "present"},
            "backup": {"type": "bool", "default": False},
            "command": {"type": "path", "default": "xenaudio"},
        },
        required_if=[("state", "present", ["sound"])],
        supports_check_mode=True,
    )
    given = module.params
    path = os.path.realpath(given["path"])
    present = given["state"] == "present"
    if not present and not os.path.lexists(given["path"]):
        module.exit_json(changed=False, vsnd=[])
    try:
        before = read(path)
        only(before, "vsnd")
    except FileNotFoundError:
        module.fail_json(msg=f"{given['path']}: there is none: expected a guest's xl configuration")
    except OSError as error:
        module.fail_json(msg=f"{given['path']}: {error.strerror}: expected an xl configuration")
    except XlCfgError as error:
        module.fail_json(msg=f"{given['path']}: {error}; nothing was changed")
    value = None
    if present:
        command = module.get_bin_path(given["command"])
        if command is None and module.check_mode:
            module.exit_json(changed=True, msg=f"not known before {given['command']} is installed")
        if command is None:
            module.fail_json(
                msg=f"{given['command']}: there is no such command: expected the package"
                " python3-xenaudio on this host"
            )
        try:
            value = render(module, command, given["sound"])
        except SoundError as error:
            module.fail_json(msg=f"{given['path']}: nothing was changed:\n{error}")
    after = edited(before, value)
    result: dict[str, Any] = {"changed": after != before}
    setting = only(after, "vsnd")
    result["vsnd"] = setting.value if setting is not None else []
    if after != before:
        result["diff"] = {
            "before_header": given["path"],
            "before": shown(before),
            "after_header": given["path"],
            "after": shown(after),
        }
    if after != before and not module.check_mode:
        if given["backup"]:
            result["backup_file"] = module.backup_local(path)
        write(module, path, after)
    module.exit_json(**result)


def shown(text: str) -> str:
    """Return a text that any terminal's encoding has."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


if __name__ == "__main__":
    main()
