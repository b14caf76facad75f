# SPDX-License-Identifier: LGPL-2.1-or-later
"""The conformance suite (tests/conformance) on a real Xen, by which the stand-in is measured."""

from __future__ import annotations

import json
import shlex
import shutil
from typing import Any

from tests.conformance import cards
from tests.conformance.expected import EXPECTED, different

from .dom0 import Dom0
from .guest import GuestConfig
from .images import TREE

SUITE = TREE / "tests/conformance"
OBSERVED = TREE / "build/test/conformance-xen.json"
"""What was observed last: what becomes of EXPECTED with another Xen."""

AS_WITHOUT_OUR_PACKAGES = "echo 1024 >/sys/module/xen_gntalloc/parameters/limit"
"""The table has Linux' own limit of shared pages, which xenaudio-guest raises."""

PARSE = """
while read -r vsnd; do
    printf 'name = "parsed"\\nkernel = "none"\\nmemory = 1\\nvsnd = %s\\n' "$vsnd" >/run/parse.cfg
    xl create --dryrun --quiet /run/parse.cfg >/dev/null 2>&1
    case $? in
    0) echo taken ;;
    1) echo refused ;;
    *) echo crashes ;;
    esac
done
"""


def toolstack(dom0: Dom0, config: GuestConfig) -> list[str]:
    """Return xl's commands that the suite wants."""
    (dom0.machine.share / f"{cards.NAME}.cfg").write_text(config.text())
    return [
        f"xl create -q -p /host/{cards.NAME}.cfg",
        f"xl unpause {cards.NAME}",
        shlex.join(["xl", "vsnd-attach", cards.NAME, *cards.FEW_KEYS]),
        f"xl vsnd-detach {cards.NAME} 0",
        f"xl destroy {cards.NAME}",
        PARSE,
    ]


def test_xen_is_what_the_table_says(dom0: Dom0) -> None:
    dom0.stop_backend()  # the suite is one
    shutil.copytree(SUITE, dom0.machine.share / "conformance", dirs_exist_ok=True)
    config = GuestConfig(cards.NAME, "debian", vsnd=cards.ALL_KEYS, memory=128)
    command = shlex.join(["/host/conformance/checks.py", *toolstack(dom0, config)])
    dom0.run(AS_WITHOUT_OUR_PACKAGES)
    suite = dom0.start(f"exec python3 {command}")
    guest = dom0.adopt(config, suite)
    guest.run(AS_WITHOUT_OUR_PACKAGES)
    guest.put([SUITE / "domain.py", SUITE / "peer.py"], "/run/conformance")
    peer = guest.start("exec python3 /run/conformance/peer.py")
    done = suite.wait(600.0)
    assert done.exit == 0, f"{done}\n{'' if peer.running else peer.wait()}"
    dom0.await_gone(guest)
    observed: dict[str, Any] = {}
    for line in done.out.splitlines():
        check = json.loads(line)
        observed[check["name"]] = check["observed"]
    OBSERVED.parent.mkdir(parents=True, exist_ok=True)
    OBSERVED.write_text(json.dumps(observed, indent=1) + "\n")
    assert different(EXPECTED, observed) == {}
