/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A peer that changes a shared word at the worst moment: right after it was read, so that nothing
 * may be read twice; or between the two steps of going to sleep. This file stands in for shared.h,
 * so that those moments come every time, and not once in a million races.
 */
#define XA_SNDIF_SHARED_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "check.h"

#define WORDS 1024u

static _Alignas(64) uint32_t page[WORDS];

static struct {
    bool changes_what_was_read;
    uint32_t to;
    unsigned reads[WORDS];
    /* When `on` is stored to, `word` becomes `value`. */
    const uint32_t *on;
    uint32_t *word;
    uint32_t value;
} peer;

static uint32_t shared_load(const uint32_t *word)
{
    size_t at = (size_t) (word - page);
    uint32_t value = *word;

    CHECK(at < WORDS);
    peer.reads[at % WORDS]++;
    if (peer.changes_what_was_read)
        page[at % WORDS] = peer.to;
    return value;
}

static void shared_store(uint32_t *word, uint32_t value)
{
    *word = value;
    if (word == peer.on)
        *peer.word = peer.value;
}

#define xa_load_relaxed shared_load
#define xa_load_acquire shared_load
#define xa_load_seq shared_load
#define xa_store_relaxed shared_store
#define xa_store_release shared_store
#define xa_store_seq shared_store

static void xa_copy_from_shared(void *local, const void *shared, size_t octets)
{
    for (size_t i = 0; i < octets / 4; i++) {
        uint32_t word = shared_load((const uint32_t *) shared + i);

        memcpy((uint8_t *) local + 4 * i, &word, 4);
    }
}

static void xa_copy_to_shared(void *shared, const void *local, size_t octets)
{
    for (size_t i = 0; i < octets / 4; i++) {
        uint32_t word;

        memcpy(&word, (const uint8_t *) local + 4 * i, 4);
        shared_store((uint32_t *) shared + i, word);
    }
}

/* The sources themselves, so that they use the functions above. */
#include "sndif/evtpage.c" /* NOLINT(bugprone-suspicious-include) */
#include "sndif/pagedir.c" /* NOLINT(bugprone-suspicious-include) */
#include "sndif/ring.c"    /* NOLINT(bugprone-suspicious-include) */

static struct xa_front_ring front;
static struct xa_back_ring back;
static struct xa_evtpage_front events_front;
static struct xa_evtpage_back events_back;

/* An empty ring with `requests` put and pushed. */
static void fresh_ring(unsigned requests)
{
    memset(&peer, 0, sizeof(peer));
    xa_front_ring_init(&front, page);
    xa_back_ring_attach(&back, page);
    for (unsigned i = 0; i < requests; i++) {
        struct xensnd_req req = {.id = (uint16_t) (40 + i)};

        CHECK_EQ(xa_front_ring_put(&front, &req), 0);
    }
    xa_front_ring_push(&front);
}

static void fresh_events(unsigned events)
{
    memset(&peer, 0, sizeof(peer));
    xa_evtpage_front_init(&events_front, page);
    xa_evtpage_back_attach(&events_back, page);
    for (unsigned i = 0; i < events; i++)
        CHECK_EQ(xa_evtpage_back_cur_pos(&events_back, 70 + i), 1);
}

/* From now on every word becomes `to` once it was read. */
static void change_what_is_read(uint32_t to)
{
    memset(peer.reads, 0, sizeof(peer.reads));
    peer.changes_what_was_read = true;
    peer.to = to;
}

/* Ends that; no word was read more than once. */
static void all_was_read_once(void)
{
    peer.changes_what_was_read = false;
    for (unsigned i = 0; i < WORDS; i++)
        CHECK(peer.reads[i] <= 1);
}

static void a_request_is_what_it_was_when_checked(void)
{
    struct xensnd_req req = {.id = 4242};

    fresh_ring(1);
    change_what_is_read(UINT32_MAX);
    CHECK_EQ(xa_back_ring_get(&back, &req), 1);
    all_was_read_once();
    CHECK_EQ(req.id, 40);
    CHECK_EQ(req.op.reserved[55], 0);
    CHECK_EQ(back.req_cons, 1);
}

static void a_response_is_what_it_was_when_checked(void)
{
    struct xensnd_req req;
    struct xensnd_resp resp = {.id = 40, .status = -7};

    fresh_ring(1);
    CHECK_EQ(xa_back_ring_get(&back, &req), 1);
    CHECK_EQ(xa_back_ring_put(&back, &resp), 0);
    xa_back_ring_push(&back);
    change_what_is_read(UINT32_MAX);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    all_was_read_once();
    CHECK_EQ(resp.id, 40);
    CHECK_EQ(resp.status, -7);
    CHECK_EQ(front.rsp_cons, 1);
}

static void a_push_reads_the_event_index_once(void)
{
    struct xensnd_req req = {.id = 0};

    fresh_ring(0);
    CHECK_EQ(xa_front_ring_put(&front, &req), 0);
    change_what_is_read(UINT32_MAX);
    CHECK(xa_front_ring_push(&front));
    all_was_read_once();
    CHECK_EQ(peer.reads[1], 1); /* req_event */
    CHECK_EQ(peer.reads[0], 0); /* req_prod is not read back */
}

static void an_event_is_what_it_was_when_checked(void)
{
    struct xensnd_evt evt = {.id = 4242};

    fresh_events(1);
    change_what_is_read(UINT32_MAX);
    CHECK_EQ(xa_evtpage_front_get(&events_front, &evt), 1);
    all_was_read_once();
    CHECK_EQ(evt.id, 0);
    CHECK_EQ(evt.op.cur_pos.position, 70);
}

static void the_event_pages_in_cons_is_read_once(void)
{
    fresh_events(0);
    change_what_is_read(UINT32_MAX);
    CHECK_EQ(xa_evtpage_back_cur_pos(&events_back, 1), 1);
    all_was_read_once();
    page[0] = 1;
    change_what_is_read(UINT32_MAX);
    CHECK_EQ(xa_evtpage_back_drained(&events_back), 1);
    all_was_read_once();
}

static void a_reference_is_what_it_was_when_checked(void)
{
    static grant_ref_t grefs[2 * XA_PAGEDIR_GREFS];
    struct xa_pagedir_walk walk;

    memset(&peer, 0, sizeof(peer));
    for (unsigned i = 0; i < WORDS; i++)
        page[i] = 5000 + i;
    CHECK_EQ(xa_pagedir_walk_init(&walk, 1, 2 * XA_PAGEDIR_GREFS), 0);
    change_what_is_read(0);
    CHECK_EQ(xa_pagedir_walk_page(&walk, page, grefs), 1);
    all_was_read_once();
    CHECK_EQ(walk.next, 5000);
    for (unsigned i = 0; i < XA_PAGEDIR_GREFS; i++)
        CHECK_EQ(grefs[i], 5001 + i);
}

/* The peer's producer index becomes `value` at the moment in which this end asks for an event. */
static void when_asked_for_an_event(const uint32_t *event, uint32_t *prod, uint32_t value)
{
    peer.on = event;
    peer.word = prod;
    peer.value = value;
}

static void a_request_that_comes_while_the_backend_arms_is_seen(void)
{
    fresh_ring(0);
    when_asked_for_an_event(&back.sring->req_event, &back.sring->req_prod, 1);
    CHECK_EQ(xa_back_ring_arm(&back), 1);

    fresh_ring(0);
    when_asked_for_an_event(&back.sring->req_event, &back.sring->req_prod, 33);
    CHECK_EQ(xa_back_ring_arm(&back), -EPROTO);
}

static void a_response_that_comes_while_the_frontend_arms_is_seen(void)
{
    fresh_ring(1);
    when_asked_for_an_event(&front.sring->rsp_event, &front.sring->rsp_prod, 1);
    CHECK_EQ(xa_front_ring_arm(&front), 1);

    fresh_ring(1);
    when_asked_for_an_event(&front.sring->rsp_event, &front.sring->rsp_prod, 2);
    CHECK_EQ(xa_front_ring_arm(&front), -EPROTO);
}

static void a_peer_that_arms_during_a_push_is_notified(void)
{
    struct xensnd_req req = {.id = 0};

    fresh_ring(1); /* notified of the first, so not armed any more */
    CHECK_EQ(xa_front_ring_put(&front, &req), 0);
    when_asked_for_an_event(&front.sring->req_prod, &front.sring->req_event, 2);
    CHECK(xa_front_ring_push(&front)); /* event is looked at after the index is stored */
}

int main(void)
{
    a_request_is_what_it_was_when_checked();
    a_response_is_what_it_was_when_checked();
    a_push_reads_the_event_index_once();
    an_event_is_what_it_was_when_checked();
    the_event_pages_in_cons_is_read_once();
    a_reference_is_what_it_was_when_checked();
    a_request_that_comes_while_the_backend_arms_is_seen();
    a_response_that_comes_while_the_frontend_arms_is_seen();
    a_peer_that_arms_during_a_push_is_notified();
    return check_result();
}
