# SPDX-License-Identifier: LGPL-2.1-or-later
"""The installed packages pass tests/pulse's sound bit for bit, on a PulseAudio that is not this
machine's: 17.0, trixie's. (Python, numpy and pytest are trixie's, too.)
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .container import TREE, base_image, built, container

BIT_FOR_BIT = "bit_for_bit or exactly"
NEEDED = (
    *("pulseaudio-utils", "python3-numpy", "python3-pytest"),
    *("libpulse-dev", "pkgconf"),  # tell where PulseAudio's own modules are
)


@pytest.mark.parametrize("suite", ["trixie"])
def test_sound_of_every_format_passes_bit_for_bit_both_ways(
    suite: str, record_property: Callable[[str, object], None]
) -> None:
    with container(base_image(suite), [built(suite), TREE / "tests"]) as guest:
        guest.must("apt-get", "-q", "update")
        packages = (path for path in built(suite).glob("*.deb") if "-dbgsym_" not in path.name)
        guest.install(*map(str, packages), *NEEDED)
        version = guest.must("pkg-config", "--modversion", "libpulse").strip()
        # (A copy without the tree around it, which would be what is tested.)
        guest.must("cp", "-r", str(TREE / "tests"), "/tests")
        modules = guest.must("sh", "-c", "echo /usr/lib/pulse-*/modules").strip()
        files = ["/tests/pulse/test_sink.py", "/tests/pulse/test_source.py"]
        said = guest.must(
            *("env", f"XENAUDIO_PULSE_MODULES={modules}", "PYTHONDONTWRITEBYTECODE=1"),
            *("python3", "-m", "pytest", "-q", "--rootdir=/tests", "-c", "/dev/null"),
            *("-k", BIT_FOR_BIT, *files),
        )
    passed = re.search(r"^(\d+) passed", said, re.MULTILINE)
    assert passed is not None, said
    assert "skipped" not in said
    assert int(passed[1]) >= 15, said
    record_property(f"PulseAudio {version}", f"{passed[1]} passed")
