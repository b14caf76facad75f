/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hypervisor, as far as a sound driver needs it: a connection to XenStore, pages granted to
 * another domain and mapped from one, and event channels. The one seam between Xen and the stand-in
 * (xenaudio/localhv): everything above this header is the same code on both.
 *
 * Implementations: xen.c (libxengnttab, gntalloc, libxenevtchn), local.c (local_wire.h), and for a
 * guest's ordinary users guestd.c (guestd_wire.h).
 *
 * Calls here may block for as long as the hypervisor takes (microseconds on Xen, about a
 * millisecond on the stand-in), except those marked "never blocks". They are for set-up, not for
 * the sample path. Different objects may be used by different threads at once; one object by one
 * thread at a time. Errors are negative errno values. -ENODEV: there is no such hypervisor (no Xen
 * here, or the stand-in's domain is gone). On the stand-in, -ETIMEDOUT: no answer in 2 s.
 */
#ifndef XA_HV_HV_H
#define XA_HV_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
struct xa_hv;
struct xa_share;
struct xa_map;
struct xa_evtchn;

/*
 * Opens a hypervisor. `address`: "xen" for the real one; "guestd" or "guestd:PATH" for the guest
 * service on its usual socket or on another one; or the path of a stand-in domain's socket. A path
 * has at most 107 octets. NULL: the environment's XENAUDIO_HV, else "guestd" where its usual socket
 * may be used and Xen's devices may not, else "xen". Nothing is connected yet. NULL with errno set:
 * ENOTSUP "xen" is not compiled in, ENAMETOOLONG, ENOMEM.
 *
 * Through the guest service nothing can be mapped (-EACCES), and an event channel handle has at
 * most two ports, made with xa_evtchn_alloc_unbound, both for the same domain.
 */
struct xa_hv *xa_hv_open(const char *address);
void xa_hv_close(struct xa_hv *hv);

/* The address, as given. */
const char *xa_hv_address(const struct xa_hv *hv);

/*
 * Connects to XenStore: a file descriptor for xa_store_new, or a negative errno value. On Xen that
 * is xenstored's socket (the environment's XENSTORED_PATH and nothing else when it is set, else the
 * usual place), or /dev/xen/xenbus where this domain runs no xenstored, or lets only root in.
 */
int xa_hv_connect_store(struct xa_hv *hv);

/*
 * Grants `pages` fresh zeroed pages, readable and writable, to domain `remote`; their references go
 * to grefs[0..pages-1]. The pages are one range of memory. *share is set only on success. -EINVAL,
 * -ENOSPC (no reference left), -ENOMEM, or what the device says.
 */
int xa_share_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                 struct xa_share **share);
void *xa_share_memory(struct xa_share *share);
/* Unmaps, and ends the grants: of a page that the other domain still maps, when it has let go, and
 * perhaps a second later. Until then it can map that page again. */
void xa_share_free(struct xa_share *share);

/*
 * Maps `pages` pages that domain `remote` granted, in the order of grefs, as one range of memory.
 * -EINVAL, also when a reference is not granted to this domain or its page is mapped too often (64
 * times by a PV domain); -ENOMEM.
 */
int xa_map_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
               bool writable, struct xa_map **map);
void *xa_map_memory(struct xa_map *map);
void xa_map_free(struct xa_map *map);

/*
 * An event channel handle: any number of ports behind one file descriptor. Closing it unbinds them.
 */
int xa_evtchn_open(struct xa_hv *hv, struct xa_evtchn **evtchn);
void xa_evtchn_close(struct xa_evtchn *evtchn);
/*
 * Lets go of a handle whose ports may have ceased to be this domain's, for it may have been saved
 * and restored: then Xen has closed them, and has perhaps given their numbers to other drivers.
 * Linux (6.1) is not told. It stops with a BUG when the descriptor is closed, or closes the other
 * driver's port. So on Xen the descriptor stays open while the process lives, and one that ends
 * then should leave it to another: it is a link to /dev/xen/evtchn in /proc/self/fd.
 */
void xa_evtchn_abandon(struct xa_evtchn *evtchn);
/* Readable while an event is pending on any of the handle's ports. */
int xa_evtchn_fd(const struct xa_evtchn *evtchn);
/* Makes a port that `remote` may bind to. */
int xa_evtchn_alloc_unbound(struct xa_evtchn *evtchn, uint16_t remote, uint32_t *port);
/* Binds to `remote_port` of `remote`. The new port fires once at once, as on Linux. -ESRCH: no such
 * domain; -EINVAL: no such port, or it is for another domain, or bound already. */
int xa_evtchn_bind_interdomain(struct xa_evtchn *evtchn, uint16_t remote, uint32_t remote_port,
                               uint32_t *port);
/* -ENOTCONN when the port is not one of the handle's, or -EINVAL for so great a number that no port
 * of the domain has it. */
int xa_evtchn_unbind(struct xa_evtchn *evtchn, uint32_t port);
/* Sends an event. Never blocks. An unbound or closed peer is no error: the event goes nowhere.
 * -ENOTCONN when the port is not one of the handle's. */
int xa_evtchn_notify(struct xa_evtchn *evtchn, uint32_t port);
/* Takes the next pending port and unmasks it: 1 with *port set, 0 when none is pending, or a
 * negative errno value. Never blocks. */
int xa_evtchn_pending(struct xa_evtchn *evtchn, uint32_t *port);
/* cffi: end */

#endif
