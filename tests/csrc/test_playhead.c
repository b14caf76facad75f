/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where an output is in what it was given, reckoned from its reports: no real time passes here. */
#include "backend/playhead.h"

#include <stdlib.h>

#include "check.h"

enum { RATE = 48000 };
#define MS UINT64_C(1000000)
#define FRAMES_IN_MS 48

static struct xa_playhead given(uint64_t frames)
{
    return (struct xa_playhead){.rate = RATE, .given = frames};
}

static void it_stands_until_the_first_sound_and_then_moves_with_time(void)
{
    struct xa_playhead head = given(100000);

    CHECK_EQ(xa_playhead_heard(&head, 5 * MS), 0);
    xa_playhead_start(&head, 1000 * MS, 10 * MS);
    CHECK_EQ(xa_playhead_heard(&head, 1010 * MS), 0);
    CHECK_EQ(xa_playhead_heard(&head, 1011 * MS), FRAMES_IN_MS);
    CHECK_EQ(xa_playhead_when(&head, FRAMES_IN_MS), 1011 * MS);
    CHECK_EQ(xa_playhead_when(&head, 0), 1010 * MS);
}

static void a_report_moves_it_either_way(void)
{
    struct xa_playhead head = given(100000);

    xa_playhead_start(&head, 0, 0);
    xa_playhead_report(&head, 200, 10 * MS); /* the clock says 480 */
    CHECK_EQ(xa_playhead_heard(&head, 10 * MS), 200);
    CHECK_EQ(xa_playhead_heard(&head, 12 * MS), 200 + 2 * FRAMES_IN_MS);
    xa_playhead_report(&head, 2000, 20 * MS);
    CHECK_EQ(xa_playhead_heard(&head, 20 * MS), 2000);
    xa_playhead_report(&head, 100001, 21 * MS); /* of frames that it never got */
    CHECK_EQ(xa_playhead_heard(&head, 21 * MS), 2000 + FRAMES_IN_MS);
}

static void it_never_passes_what_was_given_and_tells_by_how_much_it_would(void)
{
    struct xa_playhead head = given(480);

    xa_playhead_start(&head, 0, 0);
    CHECK_EQ(xa_playhead_dry(&head, 10 * MS), 0);
    CHECK_EQ(xa_playhead_heard(&head, 15 * MS), 480);
    CHECK_EQ(xa_playhead_dry(&head, 15 * MS), 5 * FRAMES_IN_MS);

    /* Silence was heard meanwhile: the next frame follows it. */
    xa_playhead_skip(&head, 5 * FRAMES_IN_MS);
    CHECK_EQ(xa_playhead_dry(&head, 15 * MS), 0);
    head.given += 480;
    CHECK_EQ(xa_playhead_heard(&head, 15 * MS), 480);
    CHECK_EQ(xa_playhead_heard(&head, 16 * MS), 480 + FRAMES_IN_MS);
    CHECK_EQ(xa_playhead_when(&head, 960), 25 * MS);
}

static void held_it_keeps_what_is_not_heard_and_else_counts_it_as_heard(void)
{
    struct xa_playhead head = given(48000);

    xa_playhead_start(&head, 0, 0);
    xa_playhead_stop(&head, 100 * MS, true);
    CHECK_EQ(xa_playhead_heard(&head, 900 * MS), 4800);
    xa_playhead_start(&head, 1000 * MS, 0);
    CHECK_EQ(xa_playhead_heard(&head, 1100 * MS), 9600);
    xa_playhead_report(&head, 9600, 1100 * MS);
    xa_playhead_stop(&head, 1200 * MS, false);
    CHECK_EQ(xa_playhead_heard(&head, 1200 * MS), 48000);
    xa_playhead_report(&head, 9600, 1300 * MS); /* too late */
    CHECK_EQ(xa_playhead_heard(&head, 1300 * MS), 48000);
}

/* A device whose clock is wrong, and reports a second apart. */
static void it_follows_a_clock_that_is_wrong(void)
{
    for (int ppm = -500; ppm <= 500; ppm += 100) {
        struct xa_playhead head = given(UINT64_C(1) << 40);

        xa_playhead_start(&head, 0, 0);
        for (uint64_t second = 1; second <= 3600; second++) {
            uint64_t now = second * 1000 * MS;
            int64_t heard = (int64_t) (second * RATE) * (1000000 + ppm) / 1000000;

            CHECK(llabs((int64_t) xa_playhead_heard(&head, now) - heard) <= 25);
            xa_playhead_report(&head, (uint64_t) heard, now);
        }
    }
}

int main(void)
{
    it_stands_until_the_first_sound_and_then_moves_with_time();
    a_report_moves_it_either_way();
    it_never_passes_what_was_given_and_tells_by_how_much_it_would();
    held_it_keeps_what_is_not_heard_and_else_counts_it_as_heard();
    it_follows_a_clock_that_is_wrong();
    return check_result();
}
