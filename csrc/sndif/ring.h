/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The request ring of one stream: both ends of Xen's request/response ring (xen/io/ring.h, struct
 * xen_sndif_sring in xen/io/sndif.h), one page, 32 entries.
 *
 * The structures here are an end's private half; they do not own the page. One end is used by one
 * thread at a time. Indices are free-running 32-bit counters. Each function that can see a peer's
 * index checks it and returns -EPROTO when it is impossible; the ring is then broken for good and
 * the caller closes the device.
 */
#ifndef XA_SNDIF_RING_H
#define XA_SNDIF_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "xen.h"

#define XA_RING_ENTRIES 32u

struct xa_front_ring {
    struct xen_sndif_sring *sring;
    uint32_t req_prod_pvt;
    uint32_t req_pushed; /* req_prod as last stored: the page's own copy is the peer's to change */
    uint32_t rsp_cons;
};

struct xa_back_ring {
    struct xen_sndif_sring *sring;
    uint32_t req_cons;
    uint32_t rsp_prod_pvt;
    uint32_t rsp_pushed; /* rsp_prod as last stored */
};

/* Clears `page` (4096 octets, aligned to 64) and makes it an empty ring, as the frontend must do
 * before it publishes the page. */
void xa_front_ring_init(struct xa_front_ring *ring, void *page);

/* How many requests can be put now, 0 to XA_RING_ENTRIES. */
uint32_t xa_front_ring_free(const struct xa_front_ring *ring);

/* Puts one request, not visible to the backend before xa_front_ring_push. 0, or -ENOSPC when as
 * many requests as the ring has entries are unanswered. */
int xa_front_ring_put(struct xa_front_ring *ring, const struct xensnd_req *req);

/* Makes the requests put so far visible. True when the backend asked for an event (req_event lies
 * among them): then notify it. */
bool xa_front_ring_push(struct xa_front_ring *ring);

/* Takes the next response: 1 with *resp filled, 0 when there is none, -EPROTO. */
int xa_front_ring_get(struct xa_front_ring *ring, struct xensnd_resp *resp);

/* Asks for an event at the next response, then looks once more: 1 when a response is already there
 * (get it, do not sleep), 0 when it is safe to sleep, -EPROTO. */
int xa_front_ring_arm(struct xa_front_ring *ring);

/* Joins a ring that the frontend has just made: both indices begin at 0. */
void xa_back_ring_attach(struct xa_back_ring *ring, void *page);

/* Joins a ring in the place of a backend that is gone: its unanswered requests, also those that it
 * had taken, are there to take. 0 or -EPROTO. */
int xa_back_ring_adopt(struct xa_back_ring *ring, void *page);

/* Takes the next request: 1 with *req filled, 0 when there is none, -EPROTO. */
int xa_back_ring_get(struct xa_back_ring *ring, struct xensnd_req *req);

/* Puts the response to a request that was taken. -EINVAL when no request is unanswered (a mistake
 * of the caller's). Not visible before xa_back_ring_push. */
int xa_back_ring_put(struct xa_back_ring *ring, const struct xensnd_resp *resp);

/* Makes the responses put so far visible. True when the frontend asked for an event. */
bool xa_back_ring_push(struct xa_back_ring *ring);

/* Asks for an event at the next request, then looks once more: 1, 0 or -EPROTO as above. */
int xa_back_ring_arm(struct xa_back_ring *ring);

#endif
