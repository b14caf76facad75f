# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sound for Xen guests: backend service, guest tools and a stand-in hypervisor."""

__version__ = "0.1.0"
