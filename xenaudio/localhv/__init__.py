# SPDX-License-Identifier: LGPL-2.1-or-later
"""The embedded stand-in for Xen: store, grants and event channels on one machine, no root."""

from .domains import Domain, LocalHvError
from .hypervisor import LocalHypervisor
from .vsnd import VsndError

__all__ = ["Domain", "LocalHvError", "LocalHypervisor", "VsndError"]
