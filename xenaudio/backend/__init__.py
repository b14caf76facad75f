# SPDX-License-Identifier: LGPL-2.1-or-later
"""The backend's control plane: store watches, handshake, routing.

Samples are moved by csrc/backend.
"""
