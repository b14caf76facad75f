/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one guest may have the engine do: one bucket for all of its streams, how it empties and
 * fills, how long a guest is at rest, and how much memory it may hold. (The engine's mutex keeps
 * all of it to one thread at a time, so one thread is what there is here.)
 */
#include "backend/allowance.h"

#include <stddef.h>

#include "check.h"

#define MS UINT64_C(1000000)
#define START (1000 * MS)

/* Tokens left, found by spending them one at a time: the last one begins the rest. */
static uint32_t count_tokens(struct xa_allowance *a, uint64_t now)
{
    uint32_t spent = 1;

    while (spent < 1000000 && !xa_allowance_spend(a, now, 1))
        spent++;
    return spent;
}

/* The first millisecond from `now` on at which the guest is served again. */
static uint64_t rest_ms(struct xa_allowance *a, uint64_t now)
{
    uint64_t ms = 0;

    while (ms < 100000 && !xa_allowance_awake(a, now + ms * MS))
        ms++;
    return ms;
}

static void the_streams_of_a_guest_share_one_allowance(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *first = xa_allowance_join(&list, 7, START);
    struct xa_allowance *other = xa_allowance_join(&list, 8, START);
    struct xa_allowance *second = xa_allowance_join(&list, 7, START);

    CHECK(first && other);
    CHECK(first == second);
    CHECK(first != other);
    CHECK_EQ(first->streams, 2);
    CHECK_EQ(other->streams, 1);
    CHECK(xa_allowance_spend(first, START, 1000000));
    CHECK(!xa_allowance_awake(second, START));
    CHECK(xa_allowance_awake(other, START));
    xa_allowance_leave(&list, first);
    xa_allowance_leave(&list, other);
    xa_allowance_leave(&list, second);
    CHECK(list == NULL);
}

static void the_last_stream_to_leave_frees_it(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *of[3];

    for (uint16_t domid = 0; domid < 3; domid++)
        of[domid] = xa_allowance_join(&list, domid, START);
    xa_allowance_join(&list, 1, START);
    xa_allowance_leave(&list, of[1]);
    CHECK(xa_allowance_join(&list, 1, START) == of[1]);
    xa_allowance_leave(&list, of[1]);
    /* From the middle, the end and the beginning of the list. */
    xa_allowance_leave(&list, of[1]);
    xa_allowance_leave(&list, of[0]);
    CHECK(list == of[2]);
    CHECK(list->next == NULL);
    xa_allowance_leave(&list, of[2]);
    CHECK(list == NULL);
}

static void a_stream_without_one_may_leave(void)
{
    struct xa_allowance *list = NULL;

    xa_allowance_leave(&list, NULL);
    CHECK(list == NULL);
}

/* Else a guest would escape its rest by closing one of its streams and opening it again. */
static void rejoining_does_not_refill(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(xa_allowance_spend(a, START, 100000));
    xa_allowance_join(&list, 7, START);
    xa_allowance_leave(&list, a);
    CHECK(!xa_allowance_awake(a, START + MS));
    xa_allowance_leave(&list, a);
}

static void a_new_guest_has_1000_tokens(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK_EQ(count_tokens(a, START), 1000);
    CHECK(!xa_allowance_awake(a, START));
    xa_allowance_leave(&list, a);
}

static void tokens_come_back_by_the_millisecond_for_each_stream(void)
{
    for (uint32_t streams = 1; streams <= 12; streams++) {
        struct xa_allowance *list = NULL;
        struct xa_allowance *a = NULL;

        for (uint32_t i = 0; i < streams; i++)
            a = xa_allowance_join(&list, 7, START);
        CHECK(!xa_allowance_spend(a, START, 999));
        /* 8 for each stream, no more from the eighth on; for whole milliseconds. */
        CHECK_EQ(count_tokens(a, START + 4 * MS - 1), 1 + 3 * 8 * (streams < 8 ? streams : 8));
        while (list)
            xa_allowance_leave(&list, a);
    }
}

static void parts_of_a_millisecond_add_up(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(!xa_allowance_spend(a, START, 999));
    for (uint64_t now = START; now <= START + 10 * MS; now += MS / 7)
        xa_allowance_spend(a, now, 0);
    CHECK_EQ(count_tokens(a, START + 10 * MS), 1 + 80);
    xa_allowance_leave(&list, a);
}

static void no_more_than_4000_are_saved_up(void)
{
    const uint64_t ages[] = {START + 375 * MS, START + 1000000 * MS, UINT64_MAX};

    for (size_t i = 0; i < sizeof(ages) / sizeof(ages[0]); i++) {
        struct xa_allowance *list = NULL;
        struct xa_allowance *a = xa_allowance_join(&list, 7, START);

        CHECK_EQ(count_tokens(a, ages[i]), 4000);
        xa_allowance_leave(&list, a);
    }
}

/* Two threads may have taken the time in another order than they took the mutex in. */
static void a_time_before_the_last_one_gives_nothing(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(!xa_allowance_spend(a, START, 10));
    CHECK_EQ(count_tokens(a, START - 500 * MS), 990);
    xa_allowance_leave(&list, a);
}

static void a_small_debt_is_5_ms_of_rest(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(xa_allowance_awake(a, START));
    CHECK(xa_allowance_spend(a, START, 1000));
    CHECK(!xa_allowance_awake(a, START + 5 * MS - 1));
    CHECK(xa_allowance_awake(a, START + 5 * MS));
    CHECK(xa_allowance_awake(a, START)); /* it has ended for good */
    CHECK_EQ(count_tokens(a, START + 5 * MS), 5 * 8);
    xa_allowance_leave(&list, a);
}

static void a_debt_is_paid_with_rest(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(xa_allowance_spend(a, START, 1000 + 8000));
    CHECK_EQ(rest_ms(a, START), 1001);
    CHECK_EQ(count_tokens(a, START + 1001 * MS), 8);
    xa_allowance_leave(&list, a);
}

static void spending_tells_of_a_rest_only_once(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(!xa_allowance_spend(a, START, 999));
    CHECK(xa_allowance_spend(a, START, 1));
    CHECK(!xa_allowance_spend(a, START, 1));
    CHECK(!xa_allowance_spend(a, START + MS, 100));
    xa_allowance_leave(&list, a);
}

/* Work that was under way when the rest began is paid for too. */
static void a_debt_made_at_rest_lengthens_it(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(xa_allowance_spend(a, START, 1000));
    CHECK(!xa_allowance_spend(a, START, 800));
    CHECK(!xa_allowance_awake(a, START + 5 * MS));
    CHECK_EQ(rest_ms(a, START), 101);
    xa_allowance_leave(&list, a);
}

static void the_largest_debt_ends(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);

    CHECK(xa_allowance_spend(a, START, UINT32_MAX));
    CHECK(!xa_allowance_awake(a, START + UINT32_MAX / 8 * MS - 200 * MS));
    CHECK(xa_allowance_awake(a, START + UINT32_MAX / 8 * MS));
    xa_allowance_leave(&list, a);
}

static void a_guest_holds_128_mib_at_most(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);
    uint64_t one = 0, two = 0;

    CHECK_EQ(XA_MEMORY_MOST, 128 * 1024 * 1024);
    CHECK(xa_allowance_hold(a, &one, XA_MEMORY_MOST - 1));
    CHECK(!xa_allowance_hold(a, &two, 2));
    CHECK_EQ(two, 0);
    CHECK(xa_allowance_hold(a, &two, 1));
    CHECK(!xa_allowance_hold(a, &two, 2));
    CHECK_EQ(two, 1);
    CHECK_EQ(a->memory, XA_MEMORY_MOST);
    /* No more, the same and less are always granted. */
    CHECK(xa_allowance_hold(a, &one, XA_MEMORY_MOST - 1));
    CHECK(xa_allowance_hold(a, &one, 10));
    CHECK(xa_allowance_hold(a, &two, XA_MEMORY_MOST - 10));
    CHECK(!xa_allowance_hold(a, &one, UINT64_MAX));
    CHECK_EQ(one, 10);
    CHECK(xa_allowance_hold(a, &one, 0));
    CHECK(xa_allowance_hold(a, &two, 0));
    CHECK_EQ(a->memory, 0);
    xa_allowance_leave(&list, a);
}

static void memory_is_each_guests_own(void)
{
    struct xa_allowance *list = NULL;
    struct xa_allowance *a = xa_allowance_join(&list, 7, START);
    struct xa_allowance *b = xa_allowance_join(&list, 8, START);
    uint64_t of_a = 0, of_b = 0;

    CHECK(xa_allowance_hold(a, &of_a, XA_MEMORY_MOST));
    CHECK(xa_allowance_hold(b, &of_b, XA_MEMORY_MOST));
    CHECK(!xa_allowance_hold(a, &of_a, XA_MEMORY_MOST + 1));
    xa_allowance_leave(&list, a);
    xa_allowance_leave(&list, b);
}

int main(void)
{
    the_streams_of_a_guest_share_one_allowance();
    the_last_stream_to_leave_frees_it();
    a_stream_without_one_may_leave();
    rejoining_does_not_refill();
    a_new_guest_has_1000_tokens();
    tokens_come_back_by_the_millisecond_for_each_stream();
    parts_of_a_millisecond_add_up();
    no_more_than_4000_are_saved_up();
    a_time_before_the_last_one_gives_nothing();
    a_small_debt_is_5_ms_of_rest();
    a_debt_is_paid_with_rest();
    spending_tells_of_a_rest_only_once();
    a_debt_made_at_rest_lengthens_it();
    the_largest_debt_ends();
    a_guest_holds_128_mib_at_most();
    memory_is_each_guests_own();
    return check_result();
}
