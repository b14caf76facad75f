# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# How podman runs here, for every script that uses it: containers.conf, beside this file.
CONTAINERS_CONF=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/containers.conf
export CONTAINERS_CONF
