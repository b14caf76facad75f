# SPDX-License-Identifier: LGPL-2.1-or-later
"""The role's modules, importable as Ansible has them on a host; and the packages' helpers."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

ROLE = Path(__file__).resolve().parents[2] / "ansible" / "roles" / "xenaudio"

ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
sys.path.insert(0, str(ROLE / "library"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "packaging"))
