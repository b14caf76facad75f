/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The request ring: order, capacity, hold-off of events, wrap of the indices, and peers that write
 * impossible indices.
 */
#include <errno.h>

#include "check.h"
#include "sndif/ring.h"

static union {
    struct xen_sndif_sring sring;
    uint8_t octets[XA_PAGE_SIZE];
} page;

static struct xa_front_ring front;
static struct xa_back_ring back;

/* Both ends of an empty ring whose indices are at `index`, neither end asleep at first. */
static void fresh_at(uint32_t index)
{
    xa_front_ring_init(&front, &page);
    xa_back_ring_attach(&back, &page);
    page.sring.req_prod = page.sring.rsp_prod = index;
    page.sring.req_event = page.sring.rsp_event = index + 1;
    front.req_prod_pvt = front.req_pushed = front.rsp_cons = index;
    back.req_cons = back.rsp_prod_pvt = back.rsp_pushed = index;
}

static void fresh(void)
{
    xa_front_ring_init(&front, &page);
    xa_back_ring_attach(&back, &page);
}

static int put_request(uint16_t id)
{
    struct xensnd_req req = {.id = id, .operation = XENSND_OP_WRITE};

    req.op.rw.offset = id * 100u;
    req.op.reserved[55] = (uint8_t) id;
    return xa_front_ring_put(&front, &req);
}

static void put_requests(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(put_request((uint16_t) i), 0);
}

static int put_response(uint16_t id)
{
    struct xensnd_resp resp = {.id = id, .operation = XENSND_OP_WRITE, .status = -(int32_t) id};

    resp.resp.reserved1[55] = (uint8_t) id;
    return xa_back_ring_put(&back, &resp);
}

static void take_requests(unsigned count)
{
    struct xensnd_req req;

    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(xa_back_ring_get(&back, &req), 1);
}

static void a_new_ring_is_empty_and_asks_for_the_first_event(void)
{
    struct xensnd_req req;
    struct xensnd_resp resp;

    memset(&page, 0xa5, sizeof(page));
    fresh();
    CHECK_EQ(page.sring.req_prod, 0);
    CHECK_EQ(page.sring.rsp_prod, 0);
    CHECK_EQ(page.sring.req_event, 1);
    CHECK_EQ(page.sring.rsp_event, 1);
    for (size_t i = 16; i < sizeof(page); i++)
        CHECK(page.octets[i] == 0);
    CHECK_EQ(xa_front_ring_free(&front), XA_RING_ENTRIES);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 0);
    CHECK_EQ(xa_back_ring_get(&back, &req), 0);
}

static void the_page_is_laid_out_as_the_protocol_says(void)
{
    fresh();
    put_requests(2);
    xa_front_ring_push(&front);
    CHECK(page.octets[0] == 2);               /* req_prod */
    CHECK(page.octets[64 + 64] == 1);         /* id of the second request */
    CHECK(page.octets[64 + 64 + 2] == 3);     /* operation */
    CHECK(page.octets[64 + 64 + 8] == 100);   /* op.rw.offset */
    CHECK(page.octets[64 + 64 + 63] == 1);    /* the entry's last octet */
    CHECK(page.octets[64 + 2 * 64 + 2] == 0); /* nothing in the third */
}

static void requests_and_responses_arrive_whole_and_in_order(void)
{
    struct xensnd_req req;
    struct xensnd_resp resp;

    fresh();
    put_requests(3);
    CHECK_EQ(xa_back_ring_get(&back, &req), 0); /* not pushed yet */
    xa_front_ring_push(&front);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(xa_back_ring_get(&back, &req), 1);
        CHECK_EQ(req.id, i);
        CHECK_EQ(req.op.rw.offset, i * 100);
        CHECK_EQ(req.op.reserved[55], i);
    }
    CHECK_EQ(xa_back_ring_get(&back, &req), 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(put_response((uint16_t) i), 0);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 0); /* not pushed yet */
    xa_back_ring_push(&back);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
        CHECK_EQ(resp.id, i);
        CHECK_EQ(resp.status, -(int) i);
        CHECK_EQ(resp.resp.reserved1[55], i);
    }
    CHECK_EQ(xa_front_ring_get(&front, &resp), 0);
}

static void a_full_ring_takes_no_request_until_a_response_is_taken(void)
{
    struct xensnd_resp resp;

    fresh();
    put_requests(XA_RING_ENTRIES);
    CHECK_EQ(xa_front_ring_free(&front), 0);
    CHECK_EQ(put_request(99), -ENOSPC);
    xa_front_ring_push(&front);
    take_requests(XA_RING_ENTRIES);
    CHECK_EQ(put_response(0), 0);
    xa_back_ring_push(&back);
    CHECK_EQ(put_request(99), -ENOSPC); /* the response is there, but was not taken */
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    CHECK_EQ(xa_front_ring_free(&front), 1);
    CHECK_EQ(put_request(99), 0);
}

static void the_backend_cannot_answer_more_than_it_took(void)
{
    fresh();
    CHECK_EQ(put_response(0), -EINVAL);
    put_requests(2);
    xa_front_ring_push(&front);
    CHECK_EQ(put_response(0), -EINVAL);
    take_requests(1);
    CHECK_EQ(put_response(0), 0);
    CHECK_EQ(put_response(1), -EINVAL);
}

static void a_response_does_not_disturb_requests_that_were_not_taken(void)
{
    struct xensnd_req req;

    fresh();
    put_requests(XA_RING_ENTRIES);
    xa_front_ring_push(&front);
    for (unsigned i = 0; i < XA_RING_ENTRIES; i++) {
        CHECK_EQ(xa_back_ring_get(&back, &req), 1);
        CHECK_EQ(req.id, i);
        CHECK_EQ(put_response(req.id), 0);
        xa_back_ring_push(&back);
    }
}

static void the_first_push_notifies_and_an_active_peer_gets_no_more(void)
{
    fresh();
    put_requests(1);
    CHECK(xa_front_ring_push(&front)); /* req_event is 1: the backend sleeps */
    put_requests(1);
    CHECK(!xa_front_ring_push(&front)); /* it was notified and has not armed since */
    take_requests(2);
    put_requests(3);
    CHECK(!xa_front_ring_push(&front)); /* it is at work */
    CHECK_EQ(put_response(0), 0);
    CHECK(xa_back_ring_push(&back)); /* rsp_event is 1: the frontend sleeps */
    CHECK_EQ(put_response(1), 0);
    CHECK(!xa_back_ring_push(&back));
}

static void a_push_of_nothing_notifies_nobody(void)
{
    fresh();
    CHECK(!xa_front_ring_push(&front));
    CHECK(!xa_back_ring_push(&back));
}

static void an_armed_peer_is_notified_once(void)
{
    struct xensnd_resp resp;

    fresh();
    put_requests(1);
    xa_front_ring_push(&front);
    take_requests(1);
    CHECK_EQ(xa_back_ring_arm(&back), 0);
    CHECK_EQ(page.sring.req_event, 2);
    put_requests(4);
    CHECK(xa_front_ring_push(&front));
    put_requests(1);
    CHECK(!xa_front_ring_push(&front));

    take_requests(5);
    CHECK_EQ(put_response(0), 0);
    xa_back_ring_push(&back);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    CHECK_EQ(xa_front_ring_arm(&front), 0);
    CHECK_EQ(page.sring.rsp_event, 2);
    CHECK_EQ(put_response(1), 0);
    CHECK_EQ(put_response(2), 0);
    CHECK(xa_back_ring_push(&back));
    CHECK_EQ(put_response(3), 0);
    CHECK(!xa_back_ring_push(&back));
}

static void arming_with_work_left_says_so_and_asks_for_no_event(void)
{
    struct xensnd_resp resp;

    fresh();
    put_requests(3);
    xa_front_ring_push(&front);
    take_requests(1);
    CHECK_EQ(xa_back_ring_arm(&back), 1);
    CHECK_EQ(page.sring.req_event, 1); /* as before: the next push rings no bell */
    take_requests(2);
    CHECK_EQ(put_response(0), 0);
    CHECK_EQ(put_response(1), 0);
    xa_back_ring_push(&back);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    CHECK_EQ(xa_front_ring_arm(&front), 1);
    CHECK_EQ(page.sring.rsp_event, 1);
}

static void a_peer_may_ask_for_an_event_further_on(void)
{
    /* Xen allows it, for batches: an event only when the third request from here is there. */
    fresh();
    page.sring.req_event = 3;
    put_requests(2);
    CHECK(!xa_front_ring_push(&front));
    put_requests(1);
    CHECK(xa_front_ring_push(&front));
}

static void all_holds_while_the_indices_wrap(void)
{
    struct xensnd_req req;
    struct xensnd_resp resp;

    fresh_at(UINT32_MAX - 40);
    for (unsigned round = 0; round < 10; round++) {
        put_requests(XA_RING_ENTRIES);
        CHECK_EQ(put_request(99), -ENOSPC);
        CHECK(xa_front_ring_push(&front));
        for (unsigned i = 0; i < XA_RING_ENTRIES; i++) {
            CHECK_EQ(xa_back_ring_get(&back, &req), 1);
            CHECK_EQ(req.id, i);
            CHECK_EQ(put_response(req.id), 0);
        }
        CHECK_EQ(xa_back_ring_arm(&back), 0);
        CHECK(xa_back_ring_push(&back));
        for (unsigned i = 0; i < XA_RING_ENTRIES; i++) {
            CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
            CHECK_EQ(resp.id, i);
        }
        CHECK_EQ(xa_front_ring_arm(&front), 0);
    }
    CHECK(front.rsp_cons < 1000); /* it did wrap */
}

/* ---- hostile frontends ---- */

static void backend_refuses(uint32_t req_prod)
{
    struct xensnd_req req = {.id = 4242};
    struct xa_back_ring before = back;

    page.sring.req_prod = req_prod;
    CHECK_EQ(xa_back_ring_get(&back, &req), -EPROTO);
    CHECK_EQ(req.id, 4242);
    CHECK_EQ(xa_back_ring_arm(&back), -EPROTO);
    CHECK_EQ(back.req_cons, before.req_cons);
    CHECK_EQ(back.rsp_prod_pvt, before.rsp_prod_pvt);
}

static void more_requests_than_entries_break_the_ring(void)
{
    fresh();
    backend_refuses(XA_RING_ENTRIES + 1);
    backend_refuses(0x7fffffff);
    backend_refuses(0x80000000);
    backend_refuses(UINT32_MAX);
}

static void unanswered_requests_count_as_entries_in_use(void)
{
    struct xensnd_req req;

    fresh();
    page.sring.req_prod = XA_RING_ENTRIES;
    take_requests(XA_RING_ENTRIES);
    CHECK_EQ(xa_back_ring_get(&back, &req), 0);
    backend_refuses(XA_RING_ENTRIES + 1); /* none of the 32 is answered */
    CHECK_EQ(put_response(0), 0);
    page.sring.req_prod = XA_RING_ENTRIES + 1;
    CHECK_EQ(xa_back_ring_get(&back, &req), 1);
}

static void a_req_prod_that_goes_back_breaks_the_ring(void)
{
    fresh();
    page.sring.req_prod = 5;
    take_requests(5);
    backend_refuses(4);
    CHECK_EQ(put_response(0), 0);
    backend_refuses(4);
    backend_refuses(0);
}

static void impossible_indices_are_seen_across_the_wrap(void)
{
    fresh_at(UINT32_MAX - 1);
    backend_refuses(UINT32_MAX - 2);
    backend_refuses(XA_RING_ENTRIES - 1); /* 33 ahead */
    page.sring.req_prod = XA_RING_ENTRIES - 2;
    take_requests(XA_RING_ENTRIES);
}

static void an_entry_changed_after_it_was_taken_changes_nothing(void)
{
    struct xensnd_req req;

    fresh();
    put_requests(1);
    xa_front_ring_push(&front);
    CHECK_EQ(xa_back_ring_get(&back, &req), 1);
    memset(page.octets + 64, 0xff, 64);
    CHECK_EQ(req.id, 0);
    CHECK_EQ(req.operation, XENSND_OP_WRITE);
}

static void the_backends_own_indices_in_the_page_are_not_believed(void)
{
    struct xensnd_resp resp;

    fresh();
    put_requests(2);
    xa_front_ring_push(&front);
    take_requests(2);
    CHECK_EQ(put_response(0), 0);
    xa_back_ring_push(&back);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    CHECK_EQ(xa_front_ring_arm(&front), 0);
    page.sring.rsp_prod = 2; /* the backend's word, changed by the frontend */
    CHECK_EQ(put_response(1), 0);
    CHECK(xa_back_ring_push(&back)); /* hold-off reckons from what the backend stored last */
    CHECK_EQ(page.sring.rsp_prod, 2);
}

/* ---- hostile backends ---- */

static void frontend_refuses(uint32_t rsp_prod)
{
    struct xensnd_resp resp = {.id = 4242};
    struct xa_front_ring before = front;

    page.sring.rsp_prod = rsp_prod;
    CHECK_EQ(xa_front_ring_get(&front, &resp), -EPROTO);
    CHECK_EQ(resp.id, 4242);
    CHECK_EQ(xa_front_ring_arm(&front), -EPROTO);
    CHECK_EQ(front.rsp_cons, before.rsp_cons);
}

static void responses_without_requests_break_the_ring(void)
{
    fresh();
    frontend_refuses(1);
    frontend_refuses(XA_RING_ENTRIES + 1);
    frontend_refuses(UINT32_MAX);
    put_requests(2);
    frontend_refuses(1); /* put, but the backend cannot know of them yet */
    xa_front_ring_push(&front);
    frontend_refuses(3);
    page.sring.req_prod = 3; /* the frontend's word, changed by the backend */
    frontend_refuses(3);
}

static void a_rsp_prod_that_goes_back_breaks_the_ring(void)
{
    struct xensnd_resp resp;

    fresh();
    put_requests(3);
    xa_front_ring_push(&front);
    page.sring.rsp_prod = 2;
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
    frontend_refuses(1);
    frontend_refuses(0);
}

static void any_event_index_only_decides_whether_to_notify(void)
{
    static const uint32_t events[] = {0, 1, 2, 33, 0x7fffffff, 0x80000000, UINT32_MAX};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        fresh();
        page.sring.req_event = events[i];
        put_requests(1);
        CHECK_EQ(xa_front_ring_push(&front), events[i] == 1);
        take_requests(1);
        page.sring.rsp_event = events[i];
        CHECK_EQ(put_response(0), 0);
        CHECK_EQ(xa_back_ring_push(&back), events[i] == 1);
    }
}

static void adopt(void)
{
    memset(&back, 0xa5, sizeof(back));
    CHECK_EQ(xa_back_ring_adopt(&back, &page), 0);
}

static void a_backend_that_takes_over_goes_on_where_the_one_before_was(void)
{
    struct xensnd_req req;
    struct xensnd_resp resp;

    fresh();
    put_requests(3);
    xa_front_ring_push(&front);
    take_requests(3);
    CHECK_EQ(put_response(0), 0);
    xa_back_ring_push(&back);
    CHECK_EQ(put_response(1), 0); /* the page does not tell of it */
    adopt();
    for (uint16_t id = 1; id < 3; id++) {
        CHECK_EQ(xa_back_ring_get(&back, &req), 1);
        CHECK_EQ(req.id, id);
        CHECK_EQ(put_response(id), 0);
    }
    CHECK_EQ(xa_back_ring_get(&back, &req), 0);
    xa_back_ring_push(&back);
    for (uint16_t id = 0; id < 3; id++) {
        CHECK_EQ(xa_front_ring_get(&front, &resp), 1);
        CHECK_EQ(resp.id, id);
    }
}

static void a_ring_with_impossible_indices_is_not_taken_over(void)
{
    fresh();
    page.sring.req_prod = 40;
    page.sring.rsp_prod = 40 - XA_RING_ENTRIES;
    adopt();
    page.sring.rsp_prod = 40 - XA_RING_ENTRIES - 1;
    CHECK_EQ(xa_back_ring_adopt(&back, &page), -EPROTO);
    page.sring.rsp_prod = 41;
    CHECK_EQ(xa_back_ring_adopt(&back, &page), -EPROTO);
}

int main(void)
{
    a_new_ring_is_empty_and_asks_for_the_first_event();
    the_page_is_laid_out_as_the_protocol_says();
    requests_and_responses_arrive_whole_and_in_order();
    a_full_ring_takes_no_request_until_a_response_is_taken();
    the_backend_cannot_answer_more_than_it_took();
    a_response_does_not_disturb_requests_that_were_not_taken();
    the_first_push_notifies_and_an_active_peer_gets_no_more();
    a_push_of_nothing_notifies_nobody();
    an_armed_peer_is_notified_once();
    arming_with_work_left_says_so_and_asks_for_no_event();
    a_peer_may_ask_for_an_event_further_on();
    all_holds_while_the_indices_wrap();
    more_requests_than_entries_break_the_ring();
    unanswered_requests_count_as_entries_in_use();
    a_req_prod_that_goes_back_breaks_the_ring();
    impossible_indices_are_seen_across_the_wrap();
    an_entry_changed_after_it_was_taken_changes_nothing();
    the_backends_own_indices_in_the_page_are_not_believed();
    responses_without_requests_break_the_ring();
    a_rsp_prod_that_goes_back_breaks_the_ring();
    any_event_index_only_decides_whether_to_notify();
    a_backend_that_takes_over_goes_on_where_the_one_before_was();
    a_ring_with_impossible_indices_is_not_taken_over();
    return check_result();
}
