/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the guest service's socket speaks beyond XenStore. xenaudio/guestd/wire.py has the other
 * end, docs/guest-service.md says who is let do what.
 *
 * Framing is xs_wire's: struct xsd_sockmsg, then `len` octets. Requests have the types below and
 * tx_id 0; the reply has the same type and req_id, or is XS_ERROR with an errno name as in xs_wire.
 * Integers have the machine's byte order. File descriptors travel with SCM_RIGHTS on the first
 * octet of a reply.
 *
 * A connection to the socket is a client. It speaks XenStore's requests too (as far as the service
 * lets them through), and all that it was given ends with it: the further XenStore connections, the
 * grants and the event channels. The service keeps a duplicate of every descriptor that it gives
 * out, so grants and ports last until the service ends them, however the client ended.
 */
#ifndef XA_HV_GUESTD_WIRE_H
#define XA_HV_GUESTD_WIRE_H

#include <stdint.h>

/* Where the service listens if nothing else is said. */
#define XA_GUESTD_SOCKET "/run/xenaudio/guestd.sock"

/* Another XenStore connection of this client. Request: empty. Reply: empty, with one socket, which
 * speaks plain xs_wire. EBUSY: as many as a user may have. */
#define XA_GUESTD_STORE 0x2001u

/*
 * Grant fresh zeroed pages to the domain of a sound backend. Request: xa_guestd_grant. Reply:
 * xa_guestd_granted, then `count` uint32_t references, with one descriptor: to be mapped (shared)
 * at `offset` octets; page i of that mapping is reference i. EACCES: no sound card's backend is in
 * that domain; ENOSPC: as many pages as a user may have, or as the kernel allows.
 */
#define XA_GUESTD_GRANT 0x2002u
#define XA_GUESTD_GRANT_MAX 1000u
struct xa_guestd_grant {
    uint16_t remote;
    uint16_t reserved;
    uint32_t count; /* 1 to XA_GUESTD_GRANT_MAX */
};
struct xa_guestd_granted {
    uint64_t offset;
    uint32_t id; /* of these pages, for XA_GUESTD_GRANT_END */
    uint32_t reserved;
};

/* End grants. Request: the id, a uint32_t; the pages are unmapped before. Reply: empty. ENOENT. */
#define XA_GUESTD_GRANT_END 0x2003u

/*
 * An event channel handle, with ports that the domain of a sound backend may bind to. Request:
 * xa_guestd_evtchn. Reply: the handle's id, then `count` ports, each a uint32_t. With one
 * descriptor, that is an open /dev/xen/evtchn, which binds no further port; or with two eventfds
 * for each port, as in local_wire.h. EACCES: as for XA_GUESTD_GRANT; ENOSPC: as many handles as a
 * user may have.
 */
#define XA_GUESTD_EVTCHN 0x2004u
#define XA_GUESTD_PORTS_MAX 2u
struct xa_guestd_evtchn {
    uint16_t remote;
    uint16_t reserved;
    uint32_t count; /* 1 to XA_GUESTD_PORTS_MAX */
};

/* No longer used. Request: the handle's id, a uint32_t. Reply: empty. ENOENT. The service finds out
 * whether the ports may have ceased to be this domain's, and does not close it then. */
#define XA_GUESTD_EVTCHN_END 0x2005u

#endif
