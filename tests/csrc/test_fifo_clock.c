/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The store of octets between guest and output, and the clock of outputs that have none. */
#include "backend/clock.h"
#include "backend/fifo.h"

#include "check.h"

static void what_goes_in_comes_out_in_order_across_the_wrap(void)
{
    uint8_t memory[7], in = 0, out = 0, octets[7];
    struct xa_fifo fifo = {.memory = memory, .size = sizeof(memory)};

    for (unsigned round = 0; round < 500; round++) {
        uint32_t put = round % 8, get = round * 5 % 8;

        put = put < xa_fifo_room(&fifo) ? put : xa_fifo_room(&fifo);
        for (uint32_t i = 0; i < put; i++)
            octets[i] = in++;
        xa_fifo_put(&fifo, octets, put);
        CHECK(fifo.fill <= fifo.size && fifo.head < fifo.size);
        get = get < fifo.fill ? get : fifo.fill;
        xa_fifo_get(&fifo, octets, get);
        for (uint32_t i = 0; i < get; i++)
            CHECK_EQ(octets[i], out++);
        CHECK_EQ((uint8_t) (in - out), fifo.fill);
    }
    CHECK(in != out || fifo.fill == 0);
}

static void peek_shows_the_oldest_octets_piece_by_piece(void)
{
    uint8_t memory[8];
    struct xa_fifo fifo = {.memory = memory, .size = sizeof(memory)};
    const uint8_t *data;

    xa_fifo_put(&fifo, "abcdef", 6);
    xa_fifo_drop(&fifo, 5);
    xa_fifo_put(&fifo, "ghijk", 5);
    CHECK_EQ(fifo.fill, 6);
    CHECK_EQ(xa_fifo_peek(&fifo, &data), 3);
    CHECK_EQ(memcmp(data, "fgh", 3), 0);
    xa_fifo_drop(&fifo, 3);
    CHECK_EQ(xa_fifo_peek(&fifo, &data), 3);
    CHECK_EQ(memcmp(data, "ijk", 3), 0);
    xa_fifo_drop(&fifo, 3);
    CHECK_EQ(xa_fifo_peek(&fifo, &data), 0);
    CHECK_EQ(xa_fifo_room(&fifo), 8);
}

static void a_clock_that_stands_wants_nothing(void)
{
    struct xa_clock clock = {.rate = 48000};

    CHECK_EQ(xa_clock_due(&clock, UINT64_MAX), 0);
    xa_clock_start(&clock, 1000);
    CHECK_EQ(xa_clock_due(&clock, 1000), 0);
    CHECK_EQ(xa_clock_due(&clock, 999), 0); /* before it began */
    CHECK_EQ(xa_clock_due(&clock, 1000 + 1000000000), 48000);
    clock.running = false;
    CHECK_EQ(xa_clock_due(&clock, UINT64_MAX), 0);
}

/* Sleeping until xa_clock_when never wakes too early, at any rate, for an hour. `ppm`: fast by. */
static void frames_are_due_when_a_clock_says_so(int32_t ppm)
{
    static const uint32_t rates[] = {1, 8000, 11025, 44100, 48000, 96000, 768000};

    for (unsigned r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
        struct xa_clock clock = {.rate = rates[r], .ppm = ppm};
        uint64_t end, now = 0, step = rates[r] / 100 + 1;
        uint64_t expected = (uint64_t) rates[r] * 3600 * (uint64_t) (1000000 + ppm) / 1000000;

        xa_clock_start(&clock, UINT64_C(123456789123));
        end = clock.origin + UINT64_C(3600) * 1000000000;
        while (now < end) {
            now = xa_clock_when(&clock, step);
            CHECK(xa_clock_due(&clock, now) >= step);
            CHECK(xa_clock_due(&clock, now - 1) < step);
            clock.passed += step;
        }
        CHECK(clock.passed - expected <= step); /* no drift */
    }
}

static void frames_are_due_when_the_clock_says_so(void)
{
    frames_are_due_when_a_clock_says_so(0);
    frames_are_due_when_a_clock_says_so(500);
    frames_are_due_when_a_clock_says_so(-300);
}

int main(void)
{
    what_goes_in_comes_out_in_order_across_the_wrap();
    peek_shows_the_oldest_octets_piece_by_piece();
    a_clock_that_stands_wants_nothing();
    frames_are_due_when_the_clock_says_so();
    return check_result();
}
