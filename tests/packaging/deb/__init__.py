# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages, built, checked, installed and heard, in containers of each suite."""
