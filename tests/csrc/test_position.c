/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Positions and time: exact rounding, no overflow in a century, and the limits of what a backend
 * reports and a frontend believes.
 */
#include "check.h"
#include "sndif/position.h"

#define SECOND UINT64_C(1000000000)
#define CENTURY (UINT64_C(100) * 366 * 24 * 3600 * SECOND)

static const uint32_t rates[] = {1, 7, 8000, 11025, 44100, 48000, 96000, 192000, 768000};

#define RATES (sizeof(rates) / sizeof(rates[0]))

static void frames_are_rounded_down(void)
{
    CHECK_EQ(xa_frames_in(0, 48000), 0);
    CHECK_EQ(xa_frames_in(20833, 48000), 0);
    CHECK_EQ(xa_frames_in(20834, 48000), 1);
    CHECK_EQ(xa_frames_in(SECOND - 1, 44100), 44099);
    CHECK_EQ(xa_frames_in(SECOND, 44100), 44100);
    CHECK_EQ(xa_frames_in(10 * SECOND + SECOND / 2, 44100), 463050);
    CHECK_EQ(xa_frames_in(CENTURY, 768000), CENTURY / SECOND * 768000);
}

static void time_is_rounded_up(void)
{
    CHECK_EQ(xa_ns_until(0, 48000), 0);
    CHECK_EQ(xa_ns_until(1, 48000), 20834);
    CHECK_EQ(xa_ns_until(3, 48000), 62500);
    CHECK_EQ(xa_ns_until(44100, 44100), SECOND);
    CHECK_EQ(xa_ns_until(1, 768000), 1303);
    CHECK_EQ(xa_ns_until(CENTURY / SECOND * 768000, 768000), CENTURY);
}

static void waiting_for_a_frame_is_never_too_short_nor_a_nanosecond_too_long(void)
{
    static const uint64_t frames[] = {1, 2, 3, 441, 44099, 44101, 1000000007, CENTURY / SECOND};

    for (size_t r = 0; r < RATES; r++) {
        for (size_t f = 0; f < sizeof(frames) / sizeof(frames[0]); f++) {
            uint64_t ns = xa_ns_until(frames[f], rates[r]);

            CHECK_EQ(xa_frames_in(ns, rates[r]), frames[f]);
            CHECK_EQ(xa_frames_in(ns - 1, rates[r]), frames[f] - 1);
        }
    }
}

static void events_are_due_one_frame_past_each_period(void)
{
    CHECK_EQ(xa_position_next_event(0, 1000, 4), 1004);
    CHECK_EQ(xa_position_next_event(3, 1000, 4), 1004);
    CHECK_EQ(xa_position_next_event(4, 1000, 4), 1004); /* no period has passed yet */
    CHECK_EQ(xa_position_next_event(1000, 1000, 4), 1004);
    CHECK_EQ(xa_position_next_event(1003, 1000, 4), 1004);
    CHECK_EQ(xa_position_next_event(1004, 1000, 4), 2004); /* "after", not "at" */
    CHECK_EQ(xa_position_next_event(2003, 1000, 4), 2004);
    CHECK_EQ(xa_position_next_event(2004, 1000, 4), 3004);
    CHECK_EQ(xa_position_next_event(0, 4, 4), 8);
    CHECK_EQ(xa_position_next_event(8, 4, 4), 12);
    CHECK_EQ(xa_position_next_event(5, 2, 8), 10); /* a period shorter than a frame */
    CHECK_EQ(xa_position_next_event(10, 2, 8), 12);
}

static void the_next_event_is_always_ahead_by_a_period_at_most_once_playing(void)
{
    for (uint64_t position = 40; position < 400; position++) {
        uint64_t next = xa_position_next_event(position, 36, 4);

        CHECK(next > position && next - position <= 36);
        CHECK_EQ(next % 36, 4);
    }
    CHECK_EQ(xa_position_next_event(UINT64_C(36) << 57, 36, 4), (UINT64_C(36) << 57) + 4);
}

static uint64_t heard(uint64_t consumed, uint64_t delay, bool *clamped)
{
    *clamped = !*clamped; /* so that it is seen to be set both ways */
    return xa_position_heard(consumed, delay, 8000, 1000, clamped);
}

static void the_position_reported_is_what_was_heard(void)
{
    bool clamped = true;

    CHECK_EQ(heard(50000, 0, &clamped), 50000);
    CHECK(!clamped);
    CHECK_EQ(heard(50000, 3000, &clamped), 47000);
    CHECK(!clamped);
    CHECK_EQ(heard(50000, 6000, &clamped), 44000);
    CHECK(!clamped);
}

static void the_position_reported_never_holds_back_the_guests_room(void)
{
    bool clamped = false;

    CHECK_EQ(heard(50000, 6001, &clamped), 44000);
    CHECK(clamped);
    CHECK_EQ(heard(50000, UINT64_MAX, &clamped), 44000);
    CHECK(clamped);
    CHECK_EQ(heard(6001, 7000, &clamped), 1);
    CHECK(clamped);
}

static void the_position_reported_is_not_below_0(void)
{
    bool clamped = true;

    CHECK_EQ(heard(0, 5000, &clamped), 0);
    CHECK(!clamped);
    CHECK_EQ(heard(4999, 5000, &clamped), 0);
    CHECK(!clamped);
    CHECK_EQ(heard(6000, UINT64_MAX, &clamped), 0); /* the limit would be 0 too */
    CHECK(!clamped);
}

static void a_buffer_of_less_than_two_periods_leaves_no_lag(void)
{
    bool clamped = false;

    CHECK_EQ(xa_position_heard(5000, 1, 2000, 1000, &clamped), 5000);
    CHECK(clamped);
    CHECK_EQ(xa_position_heard(5000, 1, 1999, 1000, &clamped), 5000);
    CHECK(clamped);
    CHECK_EQ(xa_position_heard(5000, 0, 1000, UINT32_MAX, &clamped), 5000);
    CHECK(!clamped);
    CHECK_EQ(xa_position_heard(5000, 1, UINT32_MAX, UINT32_MAX, &clamped), 5000);
    CHECK(clamped);
}

static void room_is_what_is_not_written_and_unheard(void)
{
    CHECK_EQ(xa_position_room(0, 0, 8000), 8000);
    CHECK_EQ(xa_position_room(8000, 0, 8000), 0);
    CHECK_EQ(xa_position_room(8000, 1, 8000), 1);
    CHECK_EQ(xa_position_room(9000, 5000, 8000), 4000);
    CHECK_EQ(xa_position_room(9000, 9000, 8000), 8000);
}

static void room_is_never_more_than_the_buffer_nor_less_than_none(void)
{
    CHECK_EQ(xa_position_room(9000, 9001, 8000), 8000); /* the backend ran on while dry */
    CHECK_EQ(xa_position_room(0, UINT64_MAX, 8000), 8000);
    CHECK_EQ(xa_position_room(8001, 0, 8000), 0);
    CHECK_EQ(xa_position_room(UINT64_MAX, 0, UINT32_MAX), 0);
    CHECK_EQ(xa_position_room(UINT64_MAX, UINT64_MAX, UINT32_MAX), UINT32_MAX);
}

static void a_position_goes_forward_and_not_far_past_what_was_written(void)
{
    CHECK(xa_position_plausible(0, 0, 0, 8000));
    CHECK(xa_position_plausible(500, 500, 9000, 8000));
    CHECK(xa_position_plausible(9000, 500, 9000, 8000));
    CHECK(xa_position_plausible(17000, 500, 9000, 8000));
    CHECK(!xa_position_plausible(17001, 500, 9000, 8000));
    CHECK(!xa_position_plausible(499, 500, 9000, 8000));
    CHECK(!xa_position_plausible(UINT64_MAX, 500, 9000, 8000));
    CHECK(xa_position_plausible(UINT64_MAX, 0, UINT64_MAX - 10, 8000));
}

int main(void)
{
    frames_are_rounded_down();
    time_is_rounded_up();
    waiting_for_a_frame_is_never_too_short_nor_a_nanosecond_too_long();
    events_are_due_one_frame_past_each_period();
    the_next_event_is_always_ahead_by_a_period_at_most_once_playing();
    the_position_reported_is_what_was_heard();
    the_position_reported_never_holds_back_the_guests_room();
    the_position_reported_is_not_below_0();
    a_buffer_of_less_than_two_periods_leaves_no_lag();
    room_is_what_is_not_written_and_unheard();
    room_is_never_more_than_the_buffer_nor_less_than_none();
    a_position_goes_forward_and_not_far_past_what_was_written();
    return check_result();
}
