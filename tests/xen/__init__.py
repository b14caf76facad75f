# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests on a real Xen: QEMU boots the hypervisor, a Debian dom0 and guests.

images.py makes what is booted, machine.py boots it and runs commands in its domains, dom0.py and
guest.py say what scenarios need in their own terms. What runs inside the domains is in domain/.
"""
