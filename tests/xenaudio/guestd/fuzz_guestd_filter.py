# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: the guest service's filter. Whatever a client asks, what is let through is a card's.

Run by `ci/test fuzz` with atheris, from the seeds in corpus/; test_guestd_fuzz.py replays those. An
input is the type of a request in its first octet, and its payload.
"""

from __future__ import annotations

import errno
import re
import sys

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["xenaudio.guestd", "xenaudio.core.xswire"]):
        from xenaudio.core.xswire import Type, WireError
        from xenaudio.guestd import nodes
else:
    from xenaudio.core.xswire import Type, WireError
    from xenaudio.guestd import nodes

DOMID = 7
READABLE = re.compile(
    r"device/vsnd(/[A-Za-z0-9@_-]+)*|/local/domain/\d+/backend/vsnd/7/\d+(/[A-Za-z0-9@_-]+)*"
)
WRITABLE = re.compile(
    r"device/vsnd/\d+/(state|version|feature-[a-z-]+"
    r"|\d\d?/\d\d?/(evt-)?(ring-ref|event-channel))"
)


def check(data: bytes) -> str:
    """Have the filter judge a request; fail if it lets through what it must not."""
    if not data:
        return "nothing"
    kind, payload = data[0], data[1:]
    if kind in nodes.REFUSED:
        return "EACCES"
    try:
        if kind == Type.WRITE:
            write = nodes.parse_write(payload, DOMID)
            assert WRITABLE.fullmatch(write.node.path), write
            assert re.fullmatch("[0-9]{1,10}", write.value), write
            assert write.node.backend is None
            named = (write.reference, write.port)
            assert named.count(None) >= 1
            assert (write.stream is None) == (named == (None, None))
            assert all(number is None or 0 <= number < 1 << 32 for number in named)
            assert nodes.is_frontends(write.node.inside)
            node = write.node
        elif kind == Type.WATCH:
            node, path, token = nodes.parse_watch(payload, DOMID)
            assert payload == path + b"\0" + token + b"\0"
        else:
            node = nodes.parse_path(payload, DOMID)
    except WireError as error:
        if error.code not in (errno.EINVAL, errno.EACCES):
            raise
        return error.name
    assert READABLE.fullmatch(node.path), node
    assert len(node.path) <= 3072
    # What is asked of the store is what was judged.
    assert node.path.endswith(node.inside)
    assert (node.backend is not None) == node.path.startswith("/")
    assert nodes.parse(node.path.encode(), DOMID) == node
    if node.device is not None:
        assert 0 <= node.device <= 0xFFFF
        assert f"/{node.device}" in node.path
    else:
        assert node.path == nodes.FOLDER
    return "let through"


def main() -> None:
    """Fuzz, with libFuzzer's options."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
