# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of the whole path share."""

from fixtures import backend, machine, played

__all__ = ["backend", "machine", "played"]
