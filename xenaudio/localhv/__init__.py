# SPDX-License-Identifier: LGPL-2.1-or-later
"""The embedded stand-in for Xen: XenStore, grants and event channels on one machine, without root."""
