/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Event channel ports that are eventfds, as the stand-in has them: any number of them behind one
 * epoll descriptor. Calls have the meaning of hv.h's, and its thread rules. None blocks.
 */
#ifndef XA_HV_EVENTFDS_H
#define XA_HV_EVENTFDS_H

#include <stdbool.h>
#include <stdint.h>

struct xa_eventfd_port;

/* Begins with all zero. `epoll` is the owner's to close. */
struct xa_eventfds {
    int epoll;
    struct xa_eventfd_port *ports;
};

/* Makes the epoll descriptor; returns it, or a negative errno value. */
int xa_eventfds_open(struct xa_eventfds *eventfds);
/* Adds port `number` and takes over two descriptors that do not block (else -EPROTO): `rx` is
 * readable while the port is pending, `tx` is written to notify the peer. On failure they stay the
 * caller's. */
int xa_eventfds_add(struct xa_eventfds *eventfds, uint32_t number, int rx, int tx);
/* Closes a port; false when there is no such one. */
bool xa_eventfds_remove(struct xa_eventfds *eventfds, uint32_t number);
/* Closes all ports. */
void xa_eventfds_clear(struct xa_eventfds *eventfds);
int xa_eventfds_notify(const struct xa_eventfds *eventfds, uint32_t number);
int xa_eventfds_pending(const struct xa_eventfds *eventfds, uint32_t *number);

#endif
