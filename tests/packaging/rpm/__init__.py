# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM packages, on a stand-in for Fedora: built, and installed by dnf into roots of stubs."""
