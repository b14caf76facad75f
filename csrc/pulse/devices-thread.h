/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of the guest's cards (frontend/devices.h), followed on a thread of its own: the store
 * may be stuck, and PulseAudio's main thread must not wait for it. Functions are for that thread.
 */
#ifndef XA_PULSE_DEVICES_THREAD_H
#define XA_PULSE_DEVICES_THREAD_H

#include "frontend/devices.h"

struct xa_pulse_devices;

struct xa_pulse_device_list {
    unsigned count;
    unsigned devices[XA_DEVICES_MAX]; /* ascending */
};

/*
 * Begins to follow the cards of the hypervisor `hypervisor` (as for xa_hv_open, NULL: the default).
 * `wake` is an eventfd that is written to when there is a new list. NULL: the reason was logged.
 */
struct xa_pulse_devices *xa_pulse_devices_new(const char *hypervisor, int wake);

/* Ends it. A thread that does not end at once, because the store is stuck, is left to itself, and
 * ends when it can. NULL is allowed. */
void xa_pulse_devices_free(struct xa_pulse_devices *devices);

/* The newest list, once (pa_xfree), or NULL: there is none since the last call. */
struct xa_pulse_device_list *xa_pulse_devices_take(struct xa_pulse_devices *devices);

#endif
