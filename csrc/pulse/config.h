/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What PulseAudio's own headers want to have been told by its configuration, for Linux with glibc.
 * Included before any of them. The build adds PACKAGE_VERSION, the version of PulseAudio that the
 * modules are built for.
 *
 * Names that change a structure must be the distribution's choice: csrc/pulse/layout.c checks it.
 */
#ifndef XA_PULSE_CONFIG_H
#define XA_PULSE_CONFIG_H

#define PACKAGE "xenaudio"

#define HAVE_ATOMIC_BUILTINS 1
#define HAVE_ATOMIC_BUILTINS_MEMORY_MODEL 1
#define HAVE_CLOCK_GETTIME 1
#define HAVE_SYS_RESOURCE_H 1
#define HAVE_SYS_SOCKET_H 1
#define HAVE_SYS_UN_H 1

#endif
