# SPDX-License-Identifier: LGPL-2.1-or-later
"""A thin Python face of the C core."""
