/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event page: ids without a gap, merging when it is full, wrap of the indices, and peers that
 * write impossible indices or ids.
 */
#include <errno.h>

#include "check.h"
#include "sndif/evtpage.h"

static union {
    struct xensnd_event_page head;
    uint8_t octets[XA_PAGE_SIZE];
} page;

static struct xa_evtpage_back back;
static struct xa_evtpage_front front;

static void fresh(void)
{
    xa_evtpage_front_init(&front, &page);
    xa_evtpage_back_attach(&back, &page);
}

static void fresh_at(uint32_t index)
{
    fresh();
    page.head.in_prod = page.head.in_cons = index;
    back.prod = front.cons = index;
}

/* Sends `count` positions, 1000 apart from `first`, for which there is room. */
static void send(unsigned count, uint64_t first)
{
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(xa_evtpage_back_cur_pos(&back, first + UINT64_C(1000) * i), 1);
}

/* Takes `count` events; their positions are 1000 apart from `first`. */
static void receive(unsigned count, uint64_t first)
{
    struct xensnd_evt evt;

    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(xa_evtpage_front_get(&front, &evt), 1);
        CHECK_EQ(evt.type, XENSND_EVT_CUR_POS);
        CHECK_EQ(evt.op.cur_pos.position, first + UINT64_C(1000) * i);
    }
}

static void a_new_page_is_empty(void)
{
    struct xensnd_evt evt;

    memset(&page, 0xa5, sizeof(page));
    fresh();
    for (size_t i = 0; i < sizeof(page); i++)
        CHECK(page.octets[i] == 0);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 0);
    CHECK_EQ(xa_evtpage_back_drained(&back), 1);
    CHECK_EQ(xa_evtpage_back_flush(&back), 0);
}

static void the_page_is_laid_out_as_the_protocol_says(void)
{
    fresh();
    send(2, 0x1122334455667788 - 1000);
    CHECK_EQ(page.head.in_cons, 0);
    CHECK_EQ(page.head.in_prod, 2);
    CHECK(page.octets[128] == 1);         /* id of the second event */
    CHECK(page.octets[130] == 0);         /* XENSND_EVT_CUR_POS */
    CHECK(page.octets[128 + 8] == 0x88);  /* position, lowest octet */
    CHECK(page.octets[128 + 15] == 0x11); /* and highest */
}

static void positions_arrive_in_order_with_ids_from_0(void)
{
    struct xensnd_evt evt;

    fresh();
    send(3, 5);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(xa_evtpage_front_get(&front, &evt), 1);
        CHECK_EQ(evt.id, i);
        CHECK_EQ(evt.op.cur_pos.position, 5 + 1000 * i);
    }
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 0);
}

static void drained_means_that_all_were_consumed(void)
{
    fresh();
    send(2, 0);
    CHECK_EQ(xa_evtpage_back_drained(&back), 0);
    receive(1, 0);
    CHECK_EQ(xa_evtpage_back_drained(&back), 0);
    receive(1, 1000);
    CHECK_EQ(xa_evtpage_back_drained(&back), 1);
}

static void a_full_page_merges_into_the_next_event_and_skips_no_id(void)
{
    struct xensnd_evt evt;

    fresh();
    send(XA_EVTPAGE_ENTRIES, 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 70000), 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 80000), 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 90000), 0);
    CHECK_EQ(xa_evtpage_back_flush(&back), 0);
    receive(1, 0);
    CHECK_EQ(xa_evtpage_back_flush(&back), 1);
    CHECK_EQ(xa_evtpage_back_flush(&back), 0);
    receive(XA_EVTPAGE_ENTRIES - 1, 1000);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 1);
    CHECK_EQ(evt.id, XA_EVTPAGE_ENTRIES);
    CHECK_EQ(evt.op.cur_pos.position, 90000);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 0);
}

static void a_later_position_supersedes_the_held_one(void)
{
    fresh();
    send(XA_EVTPAGE_ENTRIES, 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 70000), 0);
    receive(XA_EVTPAGE_ENTRIES, 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 80000), 1);
    CHECK_EQ(xa_evtpage_back_flush(&back), 0);
    receive(1, 80000);
}

static void a_discarded_position_is_never_sent(void)
{
    struct xensnd_evt evt;

    fresh();
    send(XA_EVTPAGE_ENTRIES, 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 70000), 0);
    xa_evtpage_back_discard(&back);
    receive(XA_EVTPAGE_ENTRIES, 0);
    CHECK_EQ(xa_evtpage_back_flush(&back), 0);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 0);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 0), 1); /* the next stream's, with the next id */
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 1);
    CHECK_EQ(evt.id, XA_EVTPAGE_ENTRIES);
}

static void ids_wrap_at_16_bits(void)
{
    struct xensnd_evt evt;

    fresh();
    for (unsigned i = 0; i < 0x10003; i++) {
        send(1, i);
        CHECK_EQ(xa_evtpage_front_get(&front, &evt), 1);
        CHECK_EQ(evt.id, i & 0xffff);
    }
}

static void no_event_is_overwritten_while_the_indices_wrap(void)
{
    /* However many are unread when in_prod passes 0. */
    for (unsigned unread = 1; unread <= XA_EVTPAGE_ENTRIES; unread++) {
        uint64_t sent = 0, received = 0;

        fresh_at(0u - unread);
        send(unread, 0);
        sent = unread;
        CHECK_EQ(page.head.in_prod, 0);
        for (unsigned i = 0; i < 200; i++) {
            if (xa_evtpage_back_cur_pos(&back, 1000 * sent) == 1)
                sent++;
            else
                xa_evtpage_back_discard(&back);
            if (i % 3 != 0) {
                receive(1, 1000 * received);
                received++;
            }
            if (sent == received)
                break;
        }
        receive((unsigned) (sent - received), 1000 * received);
        CHECK(page.head.in_prod >= 4 && page.head.in_prod < 300);
        CHECK_EQ(xa_evtpage_back_drained(&back), 1);
    }
}

static void at_the_wrap_four_events_may_be_unread(void)
{
    fresh_at(UINT32_MAX - 2);
    send(4, 0); /* indices 2^32 - 3 to 2^32 - 1, and 0 */
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 9), 0);
    receive(1, 0);
    CHECK_EQ(xa_evtpage_back_flush(&back), 1);
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 10), 0);
    receive(2, 1000);
    send(2, 2000);                   /* indices 2 and 3 */
    send(XA_EVTPAGE_ENTRIES - 4, 0); /* from index 4 on, 63 again */
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 10), 0);
}

/* ---- hostile frontends ---- */

static void an_impossible_in_cons_is_refused(void)
{
    static const uint32_t impossible[] = {4, 100, 0x80000003, UINT32_MAX - 63};

    fresh();
    send(3, 0);
    for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++) {
        page.head.in_cons = impossible[i];
        CHECK_EQ(xa_evtpage_back_cur_pos(&back, 1), -EPROTO);
        CHECK_EQ(xa_evtpage_back_flush(&back), -EPROTO);
        CHECK_EQ(xa_evtpage_back_drained(&back), -EPROTO);
        CHECK_EQ(back.prod, 3);
        CHECK_EQ(back.next_id, 3);
    }
}

static void an_in_cons_that_goes_back_only_delays_events(void)
{
    fresh();
    send(XA_EVTPAGE_ENTRIES, 0);
    receive(XA_EVTPAGE_ENTRIES, 0);
    page.head.in_cons = 0;
    CHECK_EQ(xa_evtpage_back_cur_pos(&back, 1), 0);
    CHECK_EQ(xa_evtpage_back_drained(&back), 0);
}

static void the_backends_own_index_in_the_page_is_not_believed(void)
{
    fresh();
    send(1, 0);
    page.head.in_prod = 0x12345678;
    send(1, 1000);
    CHECK_EQ(page.head.in_prod, 2);
    receive(2, 0);
}

/* ---- hostile backends ---- */

static void an_impossible_in_prod_is_refused(void)
{
    static const uint32_t impossible[] = {64, 0x7fffffff, 0x80000000, UINT32_MAX};
    struct xensnd_evt evt = {.id = 4242};

    fresh();
    for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++) {
        page.head.in_prod = impossible[i];
        CHECK_EQ(xa_evtpage_front_get(&front, &evt), -EPROTO);
        CHECK_EQ(evt.id, 4242);
        CHECK_EQ(front.cons, 0);
    }
}

static void an_in_prod_that_goes_back_is_refused(void)
{
    struct xensnd_evt evt;

    fresh();
    send(2, 0);
    receive(2, 0);
    page.head.in_prod = 1;
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), -EPROTO);
}

static void an_id_out_of_step_is_refused(void)
{
    struct xensnd_evt evt;

    fresh();
    back.next_id = 1; /* one was burnt */
    send(1, 0);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), -EPROTO);
    CHECK_EQ(page.head.in_cons, 0);

    fresh();
    send(1, 0);
    receive(1, 0);
    back.next_id = 0; /* counted anew */
    send(1, 0);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), -EPROTO);
    CHECK_EQ(page.head.in_cons, 1);
}

static void an_entry_changed_after_it_was_taken_changes_nothing(void)
{
    struct xensnd_evt evt;

    fresh();
    send(1, 7);
    CHECK_EQ(xa_evtpage_front_get(&front, &evt), 1);
    memset(page.octets + 64, 0xff, 64);
    CHECK_EQ(evt.op.cur_pos.position, 7);
}

static void a_backend_that_takes_over_skips_and_repeats_no_id(void)
{
    static const unsigned before[] = {0, 1, 63, 64, 65535, 65536, 70000};

    for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
        fresh();
        for (unsigned n = 0; n < before[i]; n++) {
            send(1, n);
            if (n + 2 < before[i]) /* two are left unread */
                receive(1, n);
        }
        memset(&back, 0xa5, sizeof(back));
        CHECK_EQ(xa_evtpage_back_adopt(&back, &page), 0);
        CHECK_EQ(xa_evtpage_back_flush(&back), 0); /* nothing is held */
        for (unsigned n = before[i] < 2 ? 0 : before[i] - 2; n < before[i]; n++)
            receive(1, n);
        send(3, 9000);
        receive(3, 9000);
    }
}

static void a_page_with_impossible_indices_is_not_taken_over(void)
{
    fresh_at(100);
    page.head.in_cons = 100 - XA_EVTPAGE_ENTRIES;
    CHECK_EQ(xa_evtpage_back_adopt(&back, &page), 0);
    page.head.in_cons--;
    CHECK_EQ(xa_evtpage_back_adopt(&back, &page), -EPROTO);
    page.head.in_cons = 101;
    CHECK_EQ(xa_evtpage_back_adopt(&back, &page), -EPROTO);
}

int main(void)
{
    a_new_page_is_empty();
    the_page_is_laid_out_as_the_protocol_says();
    positions_arrive_in_order_with_ids_from_0();
    drained_means_that_all_were_consumed();
    a_full_page_merges_into_the_next_event_and_skips_no_id();
    a_later_position_supersedes_the_held_one();
    a_discarded_position_is_never_sent();
    ids_wrap_at_16_bits();
    no_event_is_overwritten_while_the_indices_wrap();
    at_the_wrap_four_events_may_be_unread();
    an_impossible_in_cons_is_refused();
    an_in_cons_that_goes_back_only_delays_events();
    the_backends_own_index_in_the_page_is_not_believed();
    an_impossible_in_prod_is_refused();
    an_in_prod_that_goes_back_is_refused();
    an_id_out_of_step_is_refused();
    an_entry_changed_after_it_was_taken_changes_nothing();
    a_backend_that_takes_over_skips_and_repeats_no_id();
    a_page_with_impossible_indices_is_not_taken_over();
    return check_result();
}
