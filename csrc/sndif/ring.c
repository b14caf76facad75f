/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The request ring of one stream, both ends (ring.h).
 */
#include "ring.h"

#include <errno.h>

#include "shared.h"

_Static_assert(sizeof(union xen_sndif_sring_entry) == 64, "an entry is 64 octets");
_Static_assert(offsetof(struct xen_sndif_sring, ring) == 64, "entries begin at octet 64");
_Static_assert((XA_RING_ENTRIES & (XA_RING_ENTRIES - 1)) == 0 &&
                   64 + XA_RING_ENTRIES * 64 <= XA_PAGE_SIZE &&
                   64 + 2 * XA_RING_ENTRIES * 64 > XA_PAGE_SIZE,
               "as many entries as fit, rounded down to a power of two");

static union xen_sndif_sring_entry *ring_entry(struct xen_sndif_sring *sring, uint32_t index)
{
    return sring->ring + (index & (XA_RING_ENTRIES - 1));
}

/* Publishes a producer index; true when the peer's event index is among the entries new with it. */
static bool ring_push(uint32_t *shared_prod, const uint32_t *shared_event, uint32_t *pushed,
                      uint32_t prod)
{
    uint32_t old = *pushed;

    *pushed = prod;
    xa_store_seq(shared_prod, prod);
    return prod - xa_load_seq(shared_event) < prod - old;
}

void xa_front_ring_init(struct xa_front_ring *ring, void *page)
{
    memset(page, 0, XA_PAGE_SIZE);
    *ring = (struct xa_front_ring){.sring = page};
    xa_store_relaxed(&ring->sring->req_event, 1);
    xa_store_relaxed(&ring->sring->rsp_event, 1);
}

uint32_t xa_front_ring_free(const struct xa_front_ring *ring)
{
    return XA_RING_ENTRIES - (ring->req_prod_pvt - ring->rsp_cons);
}

int xa_front_ring_put(struct xa_front_ring *ring, const struct xensnd_req *req)
{
    if (xa_front_ring_free(ring) == 0)
        return -ENOSPC;
    xa_copy_to_shared(&ring_entry(ring->sring, ring->req_prod_pvt)->req, req, sizeof(*req));
    ring->req_prod_pvt++;
    return 0;
}

bool xa_front_ring_push(struct xa_front_ring *ring)
{
    return ring_push(&ring->sring->req_prod, &ring->sring->req_event, &ring->req_pushed,
                     ring->req_prod_pvt);
}

/* 1 when responses up to rsp_prod are there to take, 0 when none is, -EPROTO when rsp_prod tells of
 * more of them than requests are unanswered (an index that went back looks just like that). */
static int front_ring_unread(const struct xa_front_ring *ring, uint32_t rsp_prod)
{
    uint32_t unread = rsp_prod - ring->rsp_cons;

    if (unread > ring->req_pushed - ring->rsp_cons)
        return -EPROTO;
    return unread > 0;
}

int xa_front_ring_get(struct xa_front_ring *ring, struct xensnd_resp *resp)
{
    int unread = front_ring_unread(ring, xa_load_acquire(&ring->sring->rsp_prod));

    if (unread > 0) {
        xa_copy_from_shared(resp, &ring_entry(ring->sring, ring->rsp_cons)->rsp, sizeof(*resp));
        ring->rsp_cons++;
    }
    return unread;
}

int xa_front_ring_arm(struct xa_front_ring *ring)
{
    int unread = front_ring_unread(ring, xa_load_acquire(&ring->sring->rsp_prod));

    if (unread != 0)
        return unread;
    xa_store_seq(&ring->sring->rsp_event, ring->rsp_cons + 1);
    return front_ring_unread(ring, xa_load_seq(&ring->sring->rsp_prod));
}

void xa_back_ring_attach(struct xa_back_ring *ring, void *page)
{
    *ring = (struct xa_back_ring){.sring = page};
}

/* 1 when requests up to req_prod are there to take, 0 when none is, -EPROTO when req_prod tells of
 * more unanswered requests than the ring has entries, or has gone back behind one that was taken.
 */
static int back_ring_unread(const struct xa_back_ring *ring, uint32_t req_prod)
{
    uint32_t unanswered = req_prod - ring->rsp_prod_pvt;
    uint32_t taken = ring->req_cons - ring->rsp_prod_pvt;

    if (unanswered > XA_RING_ENTRIES || unanswered < taken)
        return -EPROTO;
    return unanswered > taken;
}

int xa_back_ring_adopt(struct xa_back_ring *ring, void *page)
{
    uint32_t rsp_prod;

    xa_back_ring_attach(ring, page);
    rsp_prod = xa_load_relaxed(&ring->sring->rsp_prod);
    ring->req_cons = ring->rsp_prod_pvt = ring->rsp_pushed = rsp_prod;
    return back_ring_unread(ring, xa_load_acquire(&ring->sring->req_prod)) < 0 ? -EPROTO : 0;
}

int xa_back_ring_get(struct xa_back_ring *ring, struct xensnd_req *req)
{
    int unread = back_ring_unread(ring, xa_load_acquire(&ring->sring->req_prod));

    if (unread > 0) {
        xa_copy_from_shared(req, &ring_entry(ring->sring, ring->req_cons)->req, sizeof(*req));
        ring->req_cons++;
    }
    return unread;
}

int xa_back_ring_put(struct xa_back_ring *ring, const struct xensnd_resp *resp)
{
    if (ring->rsp_prod_pvt == ring->req_cons)
        return -EINVAL;
    xa_copy_to_shared(&ring_entry(ring->sring, ring->rsp_prod_pvt)->rsp, resp, sizeof(*resp));
    ring->rsp_prod_pvt++;
    return 0;
}

bool xa_back_ring_push(struct xa_back_ring *ring)
{
    return ring_push(&ring->sring->rsp_prod, &ring->sring->rsp_event, &ring->rsp_pushed,
                     ring->rsp_prod_pvt);
}

int xa_back_ring_arm(struct xa_back_ring *ring)
{
    int unread = back_ring_unread(ring, xa_load_acquire(&ring->sring->req_prod));

    if (unread != 0)
        return unread;
    xa_store_seq(&ring->sring->req_event, ring->req_cons + 1);
    return back_ring_unread(ring, xa_load_seq(&ring->sring->req_prod));
}
