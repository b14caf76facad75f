# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `xenaudio` command: one file for each subcommand."""
