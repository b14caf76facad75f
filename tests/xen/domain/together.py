# SPDX-License-Identifier: LGPL-2.1-or-later
"""What XenStore's connection of a domain that is not dom0 has to stand; prints a JSON object.

    together.py

`mixed`: how many of many requests, made before the ones before them were answered, got an answer
that is not theirs. `watches`: how many watches were set until XenStore `refused` (an error's name);
`lost`: whether the connection was lost by that. Needs our code.
"""

from __future__ import annotations

import asyncio
import errno
import json

from xenaudio.core.errors import XenAudioError
from xenaudio.core.hv import Hypervisor
from xenaudio.core.store import Store

ROUNDS = 20
FOLDER = "data/together"


async def main() -> None:
    with Hypervisor("xen") as hv:
        store = await Store.open(hv)
        # Of different lengths, as are the requests for them.
        texts = {f"{FOLDER}/{'n' * length}": "v" * length for length in (1, 30, 2, 50, 3)}
        for path, text in texts.items():
            await store.write(path, text)
        mixed = 0
        for _ in range(ROUNDS):
            answers = await asyncio.gather(*map(store.read, texts), return_exceptions=True)
            mixed += sum(a != text for a, text in zip(answers, texts.values(), strict=True))
        refused, watches = "", 0
        while not refused and watches < 1000:
            try:
                await store.watch(f"{FOLDER}/{watches}", lambda _: None)
                watches += 1
            except XenAudioError as error:
                refused = errno.errorcode[error.errno or 0]
        lost = store.closed
        if not lost:
            await store.rm(FOLDER)
            store.close()
    print(json.dumps({"mixed": mixed, "watches": watches, "refused": refused, "lost": lost}))


if __name__ == "__main__":
    asyncio.run(main())
