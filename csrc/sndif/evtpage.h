/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event page of one stream (struct xensnd_event_page, section "Back to front events delivery"
 * of xen/io/sndif.h): the backend produces events, the frontend consumes them. One page, 63
 * entries.
 *
 * Ids are one counter for each connection, from 0, +1 each, never skipped: Linux drops every event
 * whose id is not the next one, for ever. So when the page is full an event is not dropped but
 * merged: only the newest position is kept, and it takes the next id when there is room again.
 *
 * Indices are free-running 32-bit counters, and an entry's slot is its index modulo 63, as both
 * ends of every implementation have it. As 63 does not divide 2^32, the slots jump back from 3 to 0
 * when the indices wrap; the backend then lets at most four entries be unread, so that none is
 * overwritten.
 *
 * Private halves, as in ring.h: they do not own the page; one thread at a time for each end.
 */
#ifndef XA_SNDIF_EVTPAGE_H
#define XA_SNDIF_EVTPAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "xen.h"

#define XA_EVTPAGE_ENTRIES 63u

struct xa_evtpage_back {
    struct xensnd_event_page *page;
    uint32_t prod;
    uint16_t next_id;
    bool held;              /* a position waits for room in the page */
    uint64_t held_position; /* octets */
};

struct xa_evtpage_front {
    struct xensnd_event_page *page;
    uint32_t cons;
    uint16_t next_id;
};

/* Joins a page that the frontend has just made. */
void xa_evtpage_back_attach(struct xa_evtpage_back *back, void *page);

/* Joins a page in the place of a backend that is gone, and goes on where it was: as ids are never
 * skipped, the next one follows from in_prod. 0 or -EPROTO. */
int xa_evtpage_back_adopt(struct xa_evtpage_back *back, void *page);

/* Sends XENSND_EVT_CUR_POS with `position` (octets since OPEN). 1: sent, notify the frontend;
 * 0: the page is full, the position is held; -EPROTO: the frontend's in_cons is impossible. A held
 * position is superseded by any later one. */
int xa_evtpage_back_cur_pos(struct xa_evtpage_back *back, uint64_t position);

/* Sends the held position if there is one and there is room now. 1: sent; 0: nothing to send or
 * still no room; -EPROTO. */
int xa_evtpage_back_flush(struct xa_evtpage_back *back);

/* Whether the frontend has consumed every event: 1, 0, or -EPROTO. (Before CLOSE is answered.) */
int xa_evtpage_back_drained(const struct xa_evtpage_back *back);

/* Forgets a held position: what it told of is over (the stream is closed). */
void xa_evtpage_back_discard(struct xa_evtpage_back *back);

/* Clears `page` (4096 octets, aligned to 64) and makes it empty, before it is published. */
void xa_evtpage_front_init(struct xa_evtpage_front *front, void *page);

/* Takes the next event: 1 with *evt filled, 0 when there is none, -EPROTO when in_prod is
 * impossible or the id is not the next one. */
int xa_evtpage_front_get(struct xa_evtpage_front *front, struct xensnd_evt *evt);

#endif
