# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest's part of the checks: does what they ask for, until its domain ends."""

from __future__ import annotations

import asyncio

from domain import serve

if __name__ == "__main__":
    asyncio.run(serve())
