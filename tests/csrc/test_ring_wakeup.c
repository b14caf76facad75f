/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one race of the request ring: an end pushes while the other arms, at the same instant, many
 * times over. Either the pusher is told to notify or the other finds the entry; if neither, a
 * wake-up is lost.
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "sndif/ring.h"
#include "sndif/shared.h"

#define ROUNDS 100000u
#define HANG_SECONDS 240u

static _Alignas(64) union {
    struct xen_sndif_sring sring;
    uint8_t octets[XA_PAGE_SIZE];
} page;

static struct xa_front_ring front;
static struct xa_back_ring back;

/* Rounds that each thread has come to; on cache lines of their own. */
static _Alignas(64) uint32_t front_round;
static _Alignas(64) uint32_t back_round;
static _Alignas(64) bool notified[ROUNDS], found[ROUNDS];

/* Says that this thread is here, and goes on when the other is. */
static void meet(uint32_t *mine, const uint32_t *other, uint32_t round)
{
    xa_store_release(mine, round);
    for (unsigned spins = 0; (int32_t) (xa_load_acquire(other) - round) < 0; spins++) {
        if (spins > 1000)
            sched_yield();
    }
}

/* In each round: the frontend's request against the backend's arming, then the response against the
 * frontend's. What each saw is looked at afterwards. */
static void *front_thread(void *failed)
{
    struct xensnd_req req = {.operation = XENSND_OP_WRITE};
    struct xensnd_resp resp;
    unsigned *lost = failed;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        if (xa_front_ring_put(&front, &req) != 0)
            abort();
        meet(&front_round, &back_round, 3 * round + 1);
        notified[round] = xa_front_ring_push(&front);
        meet(&front_round, &back_round, 3 * round + 2);
        if (!notified[round] && !found[round])
            ++*lost;
        meet(&front_round, &back_round, 3 * round + 3);
        found[round] = xa_front_ring_arm(&front) == 1;
        while (xa_front_ring_get(&front, &resp) == 0)
            sched_yield();
    }
    return NULL;
}

static void *back_thread(void *failed)
{
    struct xensnd_req req;
    struct xensnd_resp resp = {.operation = XENSND_OP_WRITE};

    (void) failed;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        meet(&back_round, &front_round, 3 * round + 1);
        found[round] = xa_back_ring_arm(&back) == 1;
        meet(&back_round, &front_round, 3 * round + 2);
        if (xa_back_ring_get(&back, &req) != 1 || xa_back_ring_put(&back, &resp) != 0)
            abort();
        meet(&back_round, &front_round, 3 * round + 3);
        notified[round] = xa_back_ring_push(&back);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread;
    unsigned lost_requests = 0, lost_responses = 0, raced = 0;

    alarm(HANG_SECONDS);
    xa_front_ring_init(&front, &page);
    xa_back_ring_attach(&back, &page);
    if (pthread_create(&thread, NULL, back_thread, NULL) != 0)
        abort();
    front_thread(&lost_requests);
    pthread_join(thread, NULL);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        if (!notified[round] && !found[round])
            lost_responses++;
        raced += notified[round] && found[round];
    }
    printf("%u rounds; in %u the response was both notified and found\n", ROUNDS, raced);
    CHECK_EQ(lost_requests, 0);
    CHECK_EQ(lost_responses, 0);
    CHECK_EQ(back.rsp_prod_pvt, ROUNDS);
    CHECK_EQ(front.rsp_cons, ROUNDS);
    return check_result();
}
