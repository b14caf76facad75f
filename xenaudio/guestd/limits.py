# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one user may have of the service at once, over all of the user's clients."""

from __future__ import annotations

import errno
from collections import Counter
from enum import Enum

from xenaudio.core.xswire import WireError


class Limit(Enum):
    """What is counted for each user, and the most of it.

    A card has up to 64 streams. Each takes two grants, one handle and, published in a transaction,
    four writes; its connection sets two watches.
    """

    CONNECTIONS = ("connections", 32)
    WATCHES = ("watches", 128)
    TRANSACTIONS = ("transactions", 8)
    WRITES = ("writes of transactions that are not committed yet", 1024)
    GRANTS = ("grants", 512)
    PAGES = ("granted pages of 4096 octets", 6144)  # modprobe.d's limit for all users is 8192
    HANDLES = ("event channel handles", 128)
    OCTETS = ("octets of replies and events that wait to be read", 1024 * 1024)

    def __init__(self, what: str, most: int) -> None:
        self.what = what
        self.most = most


class Limits:
    """Counts for each user."""

    def __init__(self) -> None:
        self._used: Counter[tuple[int, Limit]] = Counter()

    def take(self, uid: int, what: Limit, count: int = 1, error: int = errno.ENOSPC) -> None:
        """Count so much more of it. WireError when that is more than a user may have."""
        if self._used[uid, what] + count > what.most:
            raise WireError(error)
        self._used[uid, what] += count

    def give(self, uid: int, what: Limit, count: int = 1) -> None:
        """Count so much less of it."""
        self._used[uid, what] -= count
        if not self._used[uid, what]:
            del self._used[uid, what]

    def used(self, uid: int, what: Limit) -> int:
        """Return how much a user has of it."""
        return self._used[uid, what]
