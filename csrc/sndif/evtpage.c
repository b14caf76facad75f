/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event page of one stream, both ends (evtpage.h).
 */
#include "evtpage.h"

#include <errno.h>

#include "shared.h"

_Static_assert(sizeof(struct xensnd_evt) == 64, "an event is 64 octets");
_Static_assert(sizeof(struct xensnd_event_page) == 64, "events begin at octet 64");
_Static_assert(XA_EVTPAGE_ENTRIES == XENSND_IN_RING_LEN, "as many events as fit in the page");

/* 2^32 modulo 63: how far the slots jump back when the indices wrap. */
#define WRAP_JUMP 4u

static struct xensnd_evt *evtpage_entry(struct xensnd_event_page *page, uint32_t index)
{
    return (struct xensnd_evt *) (page + 1) + index % XA_EVTPAGE_ENTRIES;
}

/* How many events may be unread for another one at index `prod` to overwrite none of them. Indices
 * 0 to 3 have the slots of the last four before the wrap; any other index has that of the one 63
 * before. */
static uint32_t evtpage_limit(uint32_t prod)
{
    return prod < WRAP_JUMP ? WRAP_JUMP : XA_EVTPAGE_ENTRIES;
}

void xa_evtpage_back_attach(struct xa_evtpage_back *back, void *page)
{
    *back = (struct xa_evtpage_back){.page = page};
}

int xa_evtpage_back_adopt(struct xa_evtpage_back *back, void *page)
{
    xa_evtpage_back_attach(back, page);
    back->prod = xa_load_relaxed(&back->page->in_prod);
    back->next_id = (uint16_t) back->prod;
    return xa_evtpage_back_drained(back) < 0 ? -EPROTO : 0;
}

int xa_evtpage_back_cur_pos(struct xa_evtpage_back *back, uint64_t position)
{
    back->held = true;
    back->held_position = position;
    return xa_evtpage_back_flush(back);
}

int xa_evtpage_back_flush(struct xa_evtpage_back *back)
{
    struct xensnd_evt evt;
    uint32_t unread;

    if (!back->held)
        return 0;
    unread = back->prod - xa_load_acquire(&back->page->in_cons);
    if (unread > XA_EVTPAGE_ENTRIES)
        return -EPROTO;
    if (unread >= evtpage_limit(back->prod))
        return 0;
    /* All of it: an initialiser need not reach the octets of a union beyond its first member, and
     * the guest would read what the stack held. */
    memset(&evt, 0, sizeof(evt));
    evt.id = back->next_id;
    evt.type = XENSND_EVT_CUR_POS;
    evt.op.cur_pos.position = back->held_position;
    xa_copy_to_shared(evtpage_entry(back->page, back->prod), &evt, sizeof(evt));
    back->prod++;
    back->next_id++;
    back->held = false;
    xa_store_release(&back->page->in_prod, back->prod);
    return 1;
}

int xa_evtpage_back_drained(const struct xa_evtpage_back *back)
{
    uint32_t unread = back->prod - xa_load_acquire(&back->page->in_cons);

    if (unread > XA_EVTPAGE_ENTRIES)
        return -EPROTO;
    return unread == 0;
}

void xa_evtpage_back_discard(struct xa_evtpage_back *back)
{
    back->held = false;
}

void xa_evtpage_front_init(struct xa_evtpage_front *front, void *page)
{
    memset(page, 0, XA_PAGE_SIZE);
    *front = (struct xa_evtpage_front){.page = page};
}

int xa_evtpage_front_get(struct xa_evtpage_front *front, struct xensnd_evt *evt)
{
    uint32_t unread = xa_load_acquire(&front->page->in_prod) - front->cons;

    if (unread > XA_EVTPAGE_ENTRIES)
        return -EPROTO;
    if (unread == 0)
        return 0;
    xa_copy_from_shared(evt, evtpage_entry(front->page, front->cons), sizeof(*evt));
    if (evt->id != front->next_id)
        return -EPROTO;
    front->next_id++;
    front->cons++;
    xa_store_release(&front->page->in_cons, front->cons);
    return 1;
}
