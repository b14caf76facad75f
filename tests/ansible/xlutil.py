# SPDX-License-Identifier: LGPL-2.1-or-later
"""What xl itself makes of a configuration: libxlutil, which has its parser."""

from __future__ import annotations

import ctypes
import ctypes.util
import os

XLU_STRING = 0


def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    name = ctypes.util.find_library("xlutil")
    assert name is not None, "libxlutil is missing: it comes with libxen-dev"
    xlu, libc = ctypes.CDLL(name), ctypes.CDLL(None)
    pointer, text, out = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)
    libc.fopen.restype = pointer
    libc.fopen.argtypes = [text, text]
    libc.fclose.argtypes = [pointer]
    xlu.xlu_cfg_init.restype = pointer
    xlu.xlu_cfg_init.argtypes = [pointer, text]
    xlu.xlu_cfg_readdata.argtypes = [pointer, text, ctypes.c_int]
    xlu.xlu_cfg_destroy.argtypes = [pointer]
    xlu.xlu_cfg_get_string.argtypes = [pointer, text, ctypes.POINTER(text), ctypes.c_int]
    xlu.xlu_cfg_get_list.argtypes = [pointer, text, out, pointer, ctypes.c_int]
    xlu.xlu_cfg_get_listitem2.restype = pointer
    xlu.xlu_cfg_get_listitem2.argtypes = [pointer, ctypes.c_int]
    xlu.xlu_cfg_value_type.argtypes = [pointer]
    xlu.xlu_cfg_value_get_string.argtypes = [
        *(pointer, pointer),
        *(ctypes.POINTER(text), ctypes.c_int),
    ]
    xlu.xlu_cfg_value_get_list.argtypes = [pointer, pointer, out, ctypes.c_int]
    return xlu, libc


_XLU, _LIBC = _libraries()
_NOWHERE = _LIBC.fopen(os.devnull.encode(), b"w")

Value = object
"""A string, or a list of values."""


def read(text: str, *names: str) -> dict[str, Value] | None:
    """Return the values of these names that are set; None when xl refuses the text."""
    octets = text.encode("utf-8", "surrogateescape")
    config = _XLU.xlu_cfg_init(_NOWHERE, b"test")
    try:
        if _XLU.xlu_cfg_readdata(config, octets, len(octets)) != 0:
            return None
        found = {name: _get(config, name.encode()) for name in names}
        return {name: value for name, value in found.items() if value is not None}
    finally:
        _XLU.xlu_cfg_destroy(config)


def _decoded(value: ctypes.c_char_p) -> str:
    return (value.value or b"").decode("utf-8", "surrogateescape")


def _get(config: int, name: bytes) -> Value | None:
    string, items = ctypes.c_char_p(), ctypes.c_void_p()
    if _XLU.xlu_cfg_get_string(config, name, ctypes.byref(string), 1) == 0:
        return _decoded(string)
    if _XLU.xlu_cfg_get_list(config, name, ctypes.byref(items), None, 1) == 0:
        return _list(config, items)
    return None


def _list(config: int, items: ctypes.c_void_p) -> list[Value]:
    found: list[Value] = []
    while (item := _XLU.xlu_cfg_get_listitem2(items, len(found))) is not None:
        if _XLU.xlu_cfg_value_type(item) == XLU_STRING:
            string = ctypes.c_char_p()
            _XLU.xlu_cfg_value_get_string(config, item, ctypes.byref(string), 1)
            found.append(_decoded(string))
        else:
            inner = ctypes.c_void_p()
            _XLU.xlu_cfg_value_get_list(config, item, ctypes.byref(inner), 1)
            found.append(_list(config, inner))
    return found
