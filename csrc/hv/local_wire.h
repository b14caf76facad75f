/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the stand-in's socket speaks beyond XenStore. xenaudio/localhv/wire.py has the other end.
 *
 * Each domain of the stand-in has one listening Unix stream socket. Every connection to it acts
 * with that domain's identity and rights, and is one of three things by its use: a XenStore
 * connection (plain xs_wire), the like of an open /dev/xen/gntalloc or /dev/xen/gntdev, or the like
 * of an open /dev/xen/evtchn. As with the device files, what a connection has made ends with it:
 * its references are ended, its mappings are no longer counted, its ports are closed.
 *
 * Framing is xs_wire's: struct xsd_sockmsg, then `len` octets. Requests have the types below and
 * tx_id 0; the reply has the same type and req_id, or is XS_ERROR with an errno name as in xs_wire,
 * or ESRCH.
 * Integers have the machine's byte order. File descriptors travel with SCM_RIGHTS on the first
 * octet of a reply.
 */
#ifndef XA_HV_LOCAL_WIRE_H
#define XA_HV_LOCAL_WIRE_H

#include <stdint.h>

/*
 * Grant pages to a domain. Request: xa_local_gntalloc. Reply: `count` uint32_t references, with one
 * file descriptor: a memfd of `count` pages of 4096 octets, sealed against shrinking and growing,
 * page i of which is reference i. ENOSPC: the domain's limit of references is reached.
 */
#define XA_LOCAL_GNTALLOC 0x1001u
struct xa_local_gntalloc {
    uint16_t remote;
    uint16_t reserved;
    uint32_t count; /* 1 to 1000 */
};

/* End grants. Request: uint32_t references made on this connection. Reply: empty. One whose page is
 * mapped ends, and stays good for further mappings until then, when it no longer is. */
#define XA_LOCAL_GNTDEALLOC 0x1002u

/*
 * Map pages. Request: xa_local_gntmap, then `count` uint32_t references. Reply: `count` times
 * xa_local_gntpage, with as many file descriptors as are named (each at most once, at most 128).
 * EINVAL: no such reference, granted to another domain, or its page is mapped 64 times already.
 */
#define XA_LOCAL_GNTMAP 0x1003u
struct xa_local_gntmap {
    uint16_t remote;
    uint16_t writable;
    uint32_t count; /* 1 to 128 */
};
struct xa_local_gntpage {
    uint32_t fd;   /* index into the file descriptors of this reply */
    uint32_t page; /* of that memfd */
};

/* No longer mapped. Request: xa_local_gntmap, then the references. Reply: empty. */
#define XA_LOCAL_GNTUNMAP 0x1004u

/*
 * Event channels. Request of ALLOC_UNBOUND and BIND_INTERDOMAIN: xa_local_evtchn (remote_port is 0
 * for the former). Reply: the new port, a uint32_t, with two eventfds (EFD_NONBLOCK): the first is
 * readable while the port is pending, the second is written to notify the peer. Bound, the port is
 * pending at once. ESRCH: no such domain; EINVAL: no such port, for another domain, bound already.
 */
#define XA_LOCAL_EVTCHN_ALLOC_UNBOUND 0x1011u
#define XA_LOCAL_EVTCHN_BIND_INTERDOMAIN 0x1012u
struct xa_local_evtchn {
    uint16_t remote;
    uint16_t reserved;
    uint32_t remote_port;
};

/* Close one of this connection's ports. Request: the port, a uint32_t. Reply: empty. */
#define XA_LOCAL_EVTCHN_UNBIND 0x1013u

#endif
