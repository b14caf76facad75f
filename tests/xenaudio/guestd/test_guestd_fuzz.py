# SPDX-License-Identifier: LGPL-2.1-or-later
"""The seeds of the filter's fuzz target: what it does with each, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_guestd_filter import check

SEEDS = sorted((Path(__file__).parent / "corpus" / "fuzz_guestd_filter").iterdir())

EXPECTED = {
    "directory-dots": "EINVAL",
    "directory-folder": "let through",
    "directory-slashes": "EINVAL",
    "read-absolute": "let through",
    "read-anothers-backend": "EACCES",
    "read-backend": "let through",
    "read-disk": "EACCES",
    "read-special": "EACCES",
    "read-state": "let through",
    "read-without-end": "EINVAL",
    "remove": "EACCES",
    "watch-device": "let through",
    "watch-without-token": "EINVAL",
    "write-backend": "EACCES",
    "write-backends-state": "EACCES",
    "write-event-channel": "let through",
    "write-feature": "let through",
    "write-great-ring-ref": "EINVAL",
    "write-ring-ref": "let through",
    "write-state": "let through",
    "write-value-with-zero": "EINVAL",
    "write-wrong-state": "EINVAL",
}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_each_seed_is_judged(seed: Path) -> None:
    judged = check(seed.read_bytes())
    # A crash that was mended, and is kept as a seed, need not be named.
    assert judged == EXPECTED.get(seed.name, judged)


def test_the_seeds_are_there() -> None:
    assert {seed.name for seed in SEEDS} >= set(EXPECTED)
