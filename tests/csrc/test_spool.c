/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The spool between the engine's thread and an output's or input's own: alone, and with two threads
 * of which the consumer sleeps when there is nothing. A lost wake-up hangs the test, until an alarm
 * ends it. Under TSan it shows that all shared words are ordered.
 */
#include "backend/spool.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/endpoint.h"
#include "check.h"

#define NUMBERS 3000000u
#define HANG_SECONDS 240u

static void what_is_put_is_got_in_order_across_the_wrap(void)
{
    struct xa_spool spool;
    uint8_t in = 0, out = 0, octets[4096];
    uint32_t counted = 0;

    CHECK_EQ(xa_spool_init(&spool, 4000), 0);
    CHECK_EQ(spool.size, 4096);
    /* As after 4 GB: the counters wrap too. */
    spool.put = spool.got = counted = UINT32_MAX - 10000;
    for (unsigned round = 0; round < 500; round++) {
        uint32_t put = round * 37 % 4096, get = round * 91 % 4096;

        put = put < xa_spool_room(&spool) ? put : xa_spool_room(&spool);
        for (uint32_t i = 0; i < put; i++)
            octets[i] = in++;
        counted += put;
        CHECK_EQ(xa_spool_put(&spool, octets, put), counted);
        get = get < xa_spool_fill(&spool) ? get : xa_spool_fill(&spool);
        if (round % 5 == 0) {
            xa_spool_drop(&spool, get);
            out += (uint8_t) get;
            continue;
        }
        xa_spool_get(&spool, octets, get);
        for (uint32_t i = 0; i < get; i++)
            CHECK_EQ(octets[i], out++);
    }
    CHECK_EQ((uint8_t) (in - out), (uint8_t) xa_spool_fill(&spool));
    xa_spool_free(&spool);
}

static void it_is_never_larger_than_an_endpoint_may_store(void)
{
    struct xa_spool spool;

    CHECK_EQ(xa_spool_init(&spool, UINT64_C(1) << 40), 0);
    CHECK_EQ(spool.size, XA_ENDPOINT_OCTETS);
    xa_spool_free(&spool);
}

static void the_consumer_is_woken_once_for_each_time_that_it_starves(void)
{
    struct xa_spool spool;

    xa_spool_init(&spool, 4096);
    xa_spool_put(&spool, "ab", 2);
    CHECK(!xa_spool_feeds(&spool));
    CHECK(!xa_spool_starve(&spool, 0)); /* more is there than it knew of */
    xa_spool_put(&spool, "cd", 2);
    CHECK(!xa_spool_feeds(&spool));
    CHECK(xa_spool_starve(&spool, 4));
    xa_spool_put(&spool, "ef", 2);
    CHECK(xa_spool_feeds(&spool));
    CHECK(!xa_spool_feeds(&spool));
    xa_spool_free(&spool);
}

static struct xa_spool shared;
static int bell;

static void *consume(void *user)
{
    uint32_t expected = 0, wrong = 0, numbers[100];

    (void) user;
    while (expected < NUMBERS) {
        uint32_t fill = xa_spool_fill(&shared), count = fill / 4 < 100 ? fill / 4 : 100;
        eventfd_t value;

        if (!count) {
            if (xa_spool_starve(&shared, fill))
                eventfd_read(bell, &value);
            continue;
        }
        xa_spool_get(&shared, numbers, 4 * count);
        for (uint32_t i = 0; i < count; i++)
            wrong += numbers[i] != expected++;
    }
    return wrong ? (void *) &shared : NULL;
}

static void nothing_is_lost_between_two_threads_that_sleep(void)
{
    pthread_t thread;
    void *wrong;
    unsigned bells = 0;

    alarm(HANG_SECONDS);
    bell = eventfd(0, 0);
    xa_spool_init(&shared, 4096);
    pthread_create(&thread, NULL, consume, NULL);
    for (uint32_t number = 0; number < NUMBERS;) {
        uint32_t numbers[64], count = 1 + number % 64;

        if (count > NUMBERS - number)
            count = NUMBERS - number;
        if (xa_spool_room(&shared) < 4 * count) {
            sched_yield();
            continue;
        }
        for (uint32_t i = 0; i < count; i++)
            numbers[i] = number + i;
        number += count;
        xa_spool_put(&shared, numbers, 4 * count);
        if (xa_spool_feeds(&shared)) {
            eventfd_write(bell, 1);
            bells++;
        }
    }
    pthread_join(thread, &wrong);
    CHECK(wrong == NULL);
    printf("%u numbers, %u times woken\n", NUMBERS, bells);
    xa_spool_free(&shared);
    close(bell);
    alarm(0);
}

int main(void)
{
    what_is_put_is_got_in_order_across_the_wrap();
    it_is_never_larger_than_an_endpoint_may_store();
    the_consumer_is_woken_once_for_each_time_that_it_starves();
    nothing_is_lost_between_two_threads_that_sleep();
    return check_result();
}
