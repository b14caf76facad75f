# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cffi extension's two names."""

from xenaudio.core._core import ffi, lib

__all__ = ["ffi", "lib"]
