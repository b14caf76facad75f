# SPDX-License-Identifier: LGPL-2.1-or-later
"""What pyproject.toml cannot say yet: the cffi extension, and its wheel's tag (abi3, >= 3.10)."""

from setuptools import setup

setup(
    cffi_modules=["xenaudio/core/ffi_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
