# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ansible module: a sound file that a guest plays, to see whether it arrives."""

from __future__ import annotations

import wave

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.known_sound import CHANNELS, RATE, TIMES, frames

DOCUMENTATION = r"""
module: known_sound
short_description: A sound file that known_sound_heard finds again
description:
  - Writes a rising tone of a second, three times, as a WAV file for all to read. A machine that is
    too busy for a moment, and leaves a gap, does not spoil all three.
options:
  path:
    description: The file to write.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Write the known sound
  known_sound:
    path: /tmp/known.wav
"""

RETURN = r"""
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule({"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = module.params["path"]
    if not module.check_mode:
        try:
            with open(path, "wb") as file, wave.open(file, "wb") as out:
                out.setparams((CHANNELS, 2, RATE, 0, "NONE", ""))
                out.writeframes(frames() * TIMES)
            module.set_mode_if_different(path, 0o644, False)
        except OSError as error:
            module.fail_json(msg=f"{path}: {error.strerror}: expected a place for a sound file")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
