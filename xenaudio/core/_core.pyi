# SPDX-License-Identifier: LGPL-2.1-or-later
"""The extension that ffi_build.py makes; its names come from the C headers at build time."""

from typing import Any

ffi: Any
lib: Any
