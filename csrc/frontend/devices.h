/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which virtual sound cards the guest has: the numbers of its XenBus devices (device/vsnd/<n>),
 * followed as cards are attached and detached. What a card is, card.h tells.
 *
 * For event loops, as card.h is: the owner polls xa_devices_fd() and calls xa_devices_process()
 * when it is ready or xa_devices_deadline() has passed. A store that cannot be reached, refuses,
 * goes away, or owes an answer for 10 s is connected to anew, after 1 s at first and 8 s at last;
 * the list stays as it was meanwhile. One thread at a time.
 *
 * Calls may take as long as it takes to connect to the store and to set a watch: usually no time,
 * but up to 2 s for a socket whose listener is stuck (xa_hv_connect_store), and as long as
 * xenstored is stuck through /dev/xen/xenbus. So whoever must not wait has a thread for this.
 */
#ifndef XA_FRONTEND_DEVICES_H
#define XA_FRONTEND_DEVICES_H

#include <stdint.h>

#include "hv/hv.h"

/* Cards that are followed; of a guest with more, those that the store names first. */
#define XA_DEVICES_MAX 64

struct xa_devices;

struct xa_devices_callbacks {
    /* The guest has these cards, in ascending order. After the first look and whenever there are
     * others; `devices` is good during the call only. From within xa_devices_process. */
    void (*list)(void *user, const unsigned *devices, unsigned count);
    /* The store cannot be asked, and why, for people; or "" when it can again. Called when the
     * text changes. From within xa_devices_process. */
    void (*store)(void *user, const char *trouble);
};

/* Begins to follow the cards of the own domain; the rest happens in xa_devices_process. `hv` must
 * outlive the object; `callbacks` is copied. NULL: no memory. */
struct xa_devices *xa_devices_new(struct xa_hv *hv, const struct xa_devices_callbacks *callbacks,
                                  void *user);
/* NULL is allowed. Not from within a callback. */
void xa_devices_free(struct xa_devices *devices);

/* What to wait for, and for which events; -1: only the deadline. */
int xa_devices_fd(const struct xa_devices *devices, short *events);

/* When xa_devices_process must be called at the latest, microseconds; UINT64_MAX: no limit. */
uint64_t xa_devices_deadline(const struct xa_devices *devices);

/* Does what can be done at `now_us` (CLOCK_MONOTONIC). */
void xa_devices_process(struct xa_devices *devices, uint64_t now_us);

#endif
