# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest service: sound for a guest's ordinary users, who can open none of Xen's devices.

docs/guest-service.md says what it lets through to whom, and what that protects from what.
"""
