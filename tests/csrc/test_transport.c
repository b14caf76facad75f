/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How an open PCM moves, told by outputs and inputs whose clock the test turns: no real time passes
 * here. Frames are 4 octets, a period 10 frames, a buffer 40; the clock ticks 1000 frames a second.
 */
#include "backend/transport.h"

#include <stdlib.h>

#include "backend/clock.h"
#include "check.h"
#include "sndif/position.h"

enum { RATE = 1000, FRAME = 4, PERIOD = 10, BUFFER = 40, HEARD = 4096 };
#define TICK UINT64_C(1000000) /* one frame, in nanoseconds */

/* An output that remembers what it was given. Silence is remembered as frames of 0. */
struct fake_output {
    struct xa_output base;
    struct xa_clock clock;
    uint32_t delay;
    uint32_t heard[HEARD]; /* the last HEARD frames, at number % HEARD */
    uint64_t written, silent;
    unsigned starts, stops;
    bool held;      /* by the last stop */
    uint32_t store; /* frames that it takes ahead of its clock */
};

struct fake_input {
    struct xa_input base;
    struct xa_clock clock;
    uint32_t next; /* the frame captured next: 1, 2, 3, ... */
};

static struct fake_output output;
static struct fake_input input;
static struct xa_transport t;
static uint32_t shared[BUFFER];
static uint64_t now;

static void output_start(struct xa_output *o, uint64_t at)
{
    (void) o;
    CHECK(!output.clock.running);
    xa_clock_start(&output.clock, at);
    output.starts++;
}

static void output_stop(struct xa_output *o, uint64_t at, bool hold)
{
    (void) o;
    (void) at;
    output.held = hold;
    output.clock.running = false;
    output.stops++;
}

static uint64_t output_wants(struct xa_output *o, uint64_t at)
{
    (void) o;
    return xa_clock_due(&output.clock, at + output.store * TICK);
}

static uint64_t output_lacks(struct xa_output *o, uint64_t at)
{
    (void) o;
    return xa_clock_due(&output.clock, at);
}

static void output_write(struct xa_output *o, const void *frames, uint32_t count)
{
    (void) o;
    CHECK(count > 0);
    for (uint32_t i = 0; i < count; i++)
        memcpy(&output.heard[output.written++ % HEARD], (const uint8_t *) frames + 4 * i, 4);
    output.clock.passed += count;
}

static void output_silence(struct xa_output *o, uint32_t count)
{
    (void) o;
    for (uint32_t i = 0; i < count; i++)
        output.heard[output.written++ % HEARD] = 0;
    output.silent += count;
    output.clock.passed += count;
}

static uint32_t output_delay(struct xa_output *o, uint64_t at)
{
    uint64_t heard = xa_frames_in(at - output.clock.origin, RATE);

    (void) o;
    if (output.store && output.clock.running && output.clock.passed > heard)
        return (uint32_t) (output.clock.passed - heard);
    return output.delay;
}

static uint64_t output_when(struct xa_output *o, uint64_t frames)
{
    (void) o;
    CHECK(output.clock.running);
    /* `passed` is ahead of what is heard by what it stores. */
    if (output.store)
        return now + frames * TICK;
    return xa_clock_when(&output.clock, frames);
}

static uint64_t output_lost(struct xa_output *o)
{
    (void) o;
    return 0;
}

static void output_close(struct xa_output *o)
{
    (void) o;
}

static const struct xa_output_ops output_ops = {
    .start = output_start,
    .stop = output_stop,
    .wants = output_wants,
    .lacks = output_lacks,
    .write = output_write,
    .silence = output_silence,
    .delay = output_delay,
    .when = output_when,
    .lost = output_lost,
    .close = output_close,
};

static void input_start(struct xa_input *i, uint64_t at)
{
    (void) i;
    xa_clock_start(&input.clock, at);
}

static void input_stop(struct xa_input *i)
{
    (void) i;
    input.clock.running = false;
}

static uint64_t input_ready(struct xa_input *i, uint64_t at)
{
    (void) i;
    return xa_clock_due(&input.clock, at);
}

static void input_read(struct xa_input *i, void *frames, uint32_t count)
{
    (void) i;
    for (uint32_t n = 0; n < count; n++, input.next++)
        memcpy((uint8_t *) frames + 4 * n, &input.next, 4);
    input.clock.passed += count;
}

static uint64_t input_when(struct xa_input *i, uint64_t frames)
{
    (void) i;
    return xa_clock_when(&input.clock, frames);
}

static void input_close(struct xa_input *i)
{
    (void) i;
}

static const struct xa_input_ops input_ops = {
    .start = input_start,
    .stop = input_stop,
    .ready = input_ready,
    .read = input_read,
    .when = input_when,
    .close = input_close,
};

static struct xa_pcm pcm;
static uint8_t fifo_memory[(BUFFER + 2 * PERIOD) * FRAME];

static void open_pcm(bool capture, uint32_t period)
{
    output = (struct fake_output){.base.ops = &output_ops, .clock.rate = RATE};
    input = (struct fake_input){.base.ops = &input_ops, .clock.rate = RATE, .next = 1};
    memset(shared, 0, sizeof(shared));
    now = 1000000000;
    pcm = (struct xa_pcm){
        .params = {.format = xa_format_by_code(XENSND_PCM_FORMAT_S16_LE),
                   .rate = RATE,
                   .channels = 2,
                   .frame_octets = FRAME,
                   .buffer_octets = BUFFER * FRAME,
                   .period_octets = period * FRAME},
        .shared = (uint8_t *) shared,
        .output = capture ? NULL : &output.base,
        .input = capture ? &input.base : NULL,
        .fifo_memory = fifo_memory,
        .fifo_octets = (BUFFER + 2 * period) * FRAME,
    };
    xa_transport_init(&t, capture);
    xa_transport_open(&t, &pcm);
}

static int trigger(unsigned type)
{
    xa_transport_advance(&t, now);
    return xa_transport_trigger(&t, now, type);
}

/* Writes `count` frames that are numbered from `first`, at `offset` frames. */
static int write_frames(uint32_t offset, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        shared[offset + i] = first + i;
    xa_transport_advance(&t, now);
    return xa_transport_write(&t, now, offset * FRAME, count * FRAME);
}

/* What the engine does for `frames` of time: it sleeps until the deadline and no longer. Counts how
 * often it was woken, and the events. Position only ever grows. */
static unsigned events, wakes;
static void pass(uint64_t frames)
{
    uint64_t end = now + frames * TICK;

    events = wakes = 0;
    for (;;) {
        uint64_t deadline = xa_transport_deadline(&t), before = t.position;

        if (deadline > end)
            break;
        CHECK(deadline > now || wakes == 0); /* it never spins */
        now = deadline > now ? deadline : now;
        if (xa_transport_advance(&t, now)) {
            events++;
            CHECK(t.position > before);
        }
        wakes++;
        CHECK(t.position >= before);
        if (wakes > 100 * (frames + 1)) {
            CHECK(!"it spins");
            return;
        }
    }
    now = end;
    xa_transport_advance(&t, now);
}

/* The output was given first, first + 1, ... as its frames number `at`, at + 1, ... */
static void heard(uint64_t at, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(output.heard[(at + i) % HEARD], first ? first + i : 0);
}

static void data_is_in_the_order_of_the_requests_whatever_their_offsets(void)
{
    open_pcm(false, PERIOD);
    CHECK_EQ(write_frames(20, 1, 7), 0);
    CHECK_EQ(write_frames(0, 8, 5), 0);
    CHECK_EQ(write_frames(39, 13, 1), 0);
    CHECK_EQ(write_frames(20, 14, 3), 0); /* the same place again: what was there is safe */
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_START), 0);
    pass(16);
    CHECK_EQ(output.written, 16);
    heard(0, 1, 16);
    CHECK_EQ(t.frames_in, 16);
    CHECK_EQ(t.frames_out, 16);
    CHECK_EQ(t.frames_silent, 0);
}

static void octets_outside_of_the_buffer_or_in_part_frames_are_refused(void)
{
    const uint32_t size = BUFFER * FRAME;

    open_pcm(false, PERIOD);
    CHECK_EQ(xa_transport_write(&t, now, 0, size + FRAME), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, FRAME, size), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, size, FRAME), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, size, 0), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, size - 2, FRAME), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, 0, 2), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, 0, 4 * FRAME + 1), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, UINT32_MAX, FRAME), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, UINT32_MAX - 3, FRAME), -XEN_EINVAL); /* sum: 0 */
    CHECK_EQ(xa_transport_write(&t, now, 8, UINT32_MAX - 3), -XEN_EINVAL);     /* sum: 4 */
    CHECK_EQ(xa_transport_write(&t, now, 0x7fff0000, FRAME), -XEN_EINVAL);
    CHECK_EQ(t.fifo.fill, 0);
    CHECK_EQ(xa_transport_write(&t, now, size - FRAME, FRAME), 0);
    CHECK_EQ(xa_transport_write(&t, now, 2, FRAME), 0); /* any offset inside is allowed */
    CHECK_EQ(xa_transport_write(&t, now, 0, 0), 0);
    CHECK_EQ(t.fifo.fill, 2 * FRAME);
    CHECK_EQ(xa_transport_read(&t, now, 0, FRAME), -XEN_EINVAL); /* not this direction */

    open_pcm(true, PERIOD);
    CHECK_EQ(xa_transport_read(&t, now, 8, UINT32_MAX - 3), -XEN_EINVAL);
    CHECK_EQ(xa_transport_read(&t, now, size, FRAME), -XEN_EINVAL);
    CHECK_EQ(xa_transport_write(&t, now, 0, FRAME), -XEN_EINVAL);
}

static void nothing_open_refuses_everything_and_has_no_deadline(void)
{
    xa_transport_init(&t, false);
    CHECK_EQ(xa_transport_write(&t, now, 0, 4), -XEN_EIO);
    CHECK_EQ(xa_transport_read(&t, now, 0, 4), -XEN_EIO);
    CHECK_EQ(xa_transport_trigger(&t, now, XENSND_OP_TRIGGER_START), -XEN_EIO);
    CHECK(!xa_transport_advance(&t, now));
    CHECK(xa_transport_deadline(&t) == UINT64_MAX);
    CHECK(xa_transport_close(&t, now) == NULL);
}

static void more_than_buffer_and_two_periods_is_no_space(void)
{
    open_pcm(false, PERIOD);
    CHECK_EQ(write_frames(0, 1, 40), 0);
    CHECK_EQ(write_frames(0, 41, 21), -XEN_ENOSPC);
    CHECK_EQ(write_frames(0, 41, 20), 0);
    CHECK_EQ(write_frames(0, 61, 1), -XEN_ENOSPC);
    trigger(XENSND_OP_TRIGGER_START);
    pass(5);
    CHECK_EQ(write_frames(0, 61, 5), 0);
    pass(60);
    heard(0, 1, 65);
}

static void a_start_on_nothing_plays_one_period_of_silence_then_stands(void)
{
    open_pcm(false, PERIOD);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_START), 0);
    pass(1000);
    CHECK_EQ(output.written, PERIOD);
    CHECK_EQ(output.silent, PERIOD);
    CHECK_EQ(t.position, PERIOD * FRAME);
    CHECK(!output.clock.running);
    CHECK(xa_transport_deadline(&t) == UINT64_MAX);
    CHECK(wakes <= 2);
    CHECK_EQ(t.xruns, 0); /* nothing had sounded */
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_START), 0);
    CHECK(xa_transport_deadline(&t) == UINT64_MAX);

    /* Late data resumes at once; the position waits for it to catch up. */
    CHECK_EQ(write_frames(0, 1, 30), 0);
    CHECK(output.clock.running);
    pass(9);
    CHECK_EQ(t.position, PERIOD * FRAME);
    CHECK_EQ(events, 0);
    pass(2);
    CHECK_EQ(t.position, (PERIOD + 1) * FRAME);
    CHECK_EQ(events, 1);
    heard(PERIOD, 1, 11);
    CHECK_EQ(t.xruns, 0);
    CHECK_EQ(output.starts, 2);
}

static void only_a_gap_in_the_sound_is_an_xrun(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 10);
    trigger(XENSND_OP_TRIGGER_START);
    pass(10);
    CHECK_EQ(t.frames_silent, 0);
    pass(3);
    CHECK_EQ(t.frames_silent, 3);
    CHECK_EQ(t.xruns, 0); /* it may have been the end */
    write_frames(0, 11, 5);
    pass(1);
    CHECK_EQ(t.xruns, 1);
    heard(0, 1, 10);
    heard(10, 0, 3);
    heard(13, 11, 1);
    pass(100);
    CHECK_EQ(t.xruns, 1);
    CHECK_EQ(t.frames_silent, 3 + PERIOD);
    trigger(XENSND_OP_TRIGGER_STOP);
    trigger(XENSND_OP_TRIGGER_START);
    write_frames(0, 16, 5);
    pass(2);
    CHECK_EQ(t.xruns, 1); /* a new beginning is no gap */
    CHECK_EQ(t.frames_out, 17);
}

static void what_the_position_ran_on_is_borrowed(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 20);
    trigger(XENSND_OP_TRIGGER_START);
    pass(24);
    CHECK_EQ(t.position, 24 * FRAME);
    for (uint32_t i = 0; i < 50; i++) { /* ever again late by 4 frames */
        write_frames(0, 21 + 6 * i, 6);
        pass(4);
        CHECK_EQ(t.position, (24 + 6 * i) * FRAME); /* stands still */
        pass(2);
        CHECK_EQ(t.position, (26 + 6 * i) * FRAME);
        pass(4);
        CHECK_EQ(t.position, (30 + 6 * i) * FRAME);
    }
    CHECK_EQ(t.moved, (20 + 300) * FRAME);
    CHECK_EQ(t.xruns, 50);
}

static void at_its_end_the_position_passes_what_was_written_and_tells_so(void)
{
    for (uint32_t length = 1; length <= 40; length++) {
        uint64_t told = 0;

        open_pcm(false, PERIOD);
        write_frames(0, 1, length);
        trigger(XENSND_OP_TRIGGER_START);
        for (unsigned i = 0; i < 200; i++) {
            now += TICK;
            if (xa_transport_advance(&t, now))
                told = t.position;
        }
        CHECK(told >= (uint64_t) length * FRAME); /* so a guest that drains is released */
        CHECK_EQ(t.position, (length + PERIOD) * FRAME);
    }
}

static void stop_discards_and_positions_go_on_from_a_multiple_of_the_buffer(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    pass(12);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_STOP), 0);
    CHECK_EQ(t.fifo.fill, 0);
    CHECK_EQ(t.frames_dropped, 28);
    CHECK_EQ(t.position, BUFFER * FRAME);
    CHECK_EQ(t.told, t.position);
    CHECK(!output.clock.running);
    pass(500);
    CHECK_EQ(t.position, BUFFER * FRAME);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_STOP), 0);
    CHECK_EQ(t.position, BUFFER * FRAME);
    write_frames(0, 101, 20);
    trigger(XENSND_OP_TRIGGER_START);
    pass(5);
    CHECK_EQ(t.position, (BUFFER + 5) * FRAME);
    heard(0, 1, 12);
    heard(12, 101, 5);

    /* Also when it had run on: then that is not played again. */
    pass(20);
    CHECK_EQ(t.position, (BUFFER + 20 + 5) * FRAME);
    trigger(XENSND_OP_TRIGGER_STOP);
    write_frames(0, 201, 20);
    trigger(XENSND_OP_TRIGGER_START);
    pass(3);
    CHECK_EQ(t.position, (2 * BUFFER + 3) * FRAME);
}

static void after_a_stop_there_is_a_period_on_credit_again(void)
{
    open_pcm(false, PERIOD);
    trigger(XENSND_OP_TRIGGER_START);
    pass(50);
    CHECK_EQ(output.silent, PERIOD);
    trigger(XENSND_OP_TRIGGER_STOP);
    trigger(XENSND_OP_TRIGGER_START);
    CHECK(xa_transport_deadline(&t) > now);
    pass(50);
    CHECK_EQ(output.silent, 2 * PERIOD);
    CHECK_EQ(t.frames_silent, 2 * PERIOD);
}

static void pause_keeps_what_is_stored(void)
{
    open_pcm(false, PERIOD);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_PAUSE), -XEN_EINVAL);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_RESUME), -XEN_EINVAL);
    write_frames(0, 1, 20);
    trigger(XENSND_OP_TRIGGER_START);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_RESUME), -XEN_EINVAL);
    pass(7);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_PAUSE), 0);
    CHECK(output.held);
    CHECK(xa_transport_deadline(&t) == UINT64_MAX);
    pass(1000);
    CHECK_EQ(t.position, 7 * FRAME);
    CHECK_EQ(write_frames(20, 21, 5), 0);
    CHECK(!output.clock.running); /* paused is not dry */
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_RESUME), 0);
    pass(18);
    heard(0, 1, 25);
    CHECK_EQ(t.xruns, 0);
    CHECK_EQ(t.frames_dropped, 0);
    CHECK_EQ(trigger(17), -XEN_EINVAL);
    CHECK_EQ(trigger(255), -XEN_EINVAL);
    CHECK(output.clock.running);
}

static void paused_while_dry_it_resumes_dry(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 5);
    trigger(XENSND_OP_TRIGGER_START);
    pass(50);
    CHECK_EQ(t.position, 15 * FRAME);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_PAUSE), 0);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_RESUME), 0);
    pass(50);
    CHECK_EQ(t.position, 15 * FRAME); /* no second period on credit */
    write_frames(0, 6, 20);
    pass(20);
    CHECK_EQ(t.position, 25 * FRAME);
    CHECK_EQ(t.xruns, 1);
}

static void events_come_one_frame_past_the_multiples(void)
{
    uint64_t last = 0;
    unsigned count = 0;

    open_pcm(false, PERIOD);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    for (unsigned frame = 1; frame <= 400; frame++) {
        now += TICK;
        if (xa_transport_advance(&t, now)) {
            CHECK_EQ(t.position % (PERIOD * FRAME), FRAME);
            CHECK_EQ(t.position - last, last ? PERIOD * FRAME : (PERIOD + 1) * FRAME);
            last = t.position;
            count++;
        }
        if (frame % 10 == 0)
            write_frames(0, 1, 10);
    }
    CHECK_EQ(count, 39);
}

static void the_deadline_is_the_next_event(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    CHECK_EQ(xa_transport_deadline(&t), now + 11 * TICK);
    pass(11);
    CHECK_EQ(events, 1);
    CHECK_EQ(wakes, 1);
    CHECK_EQ(xa_transport_deadline(&t), now + 10 * TICK);
    pass(29);
    CHECK_EQ(events, 2);
    CHECK_EQ(wakes, 2);
}

static void without_periods_there_are_no_events(void)
{
    open_pcm(false, 0);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    pass(1000);
    CHECK_EQ(events, 0);
    heard(0, 1, 40);
    CHECK_EQ(t.position, (40 + 20) * FRAME); /* runs on as if a period were half a buffer */
    CHECK(wakes < 10);
}

/* A period of 8 s is looked at every half second: outputs buffer less than that. */
static void a_long_period_is_moved_in_pieces(void)
{
    open_pcm(false, PERIOD);
    pcm.params.rate = output.clock.rate = 4;
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    CHECK_EQ(xa_transport_deadline(&t), now + 500000000);
    now += 500000000;
    CHECK(!xa_transport_advance(&t, now));
    CHECK_EQ(output.written, 2);
    CHECK_EQ(xa_transport_deadline(&t), now + 500000000);
}

static void the_position_is_what_is_heard(void)
{
    open_pcm(false, PERIOD);
    output.delay = 6;
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    pass(5);
    CHECK_EQ(t.position, 0);
    pass(11);
    CHECK_EQ(t.position, 10 * FRAME);
    CHECK_EQ(events, 0);
    CHECK(wakes <= 1); /* not once for each frame of the delay */
    pass(1);
    CHECK_EQ(events, 1);
    CHECK_EQ(t.position, 11 * FRAME);
    CHECK_EQ(t.clamps, 0);
    output.delay = 16; /* it can grow: the position waits */
    pass(4);
    CHECK_EQ(t.position, 11 * FRAME);
    pass(8);
    CHECK_EQ(t.position, 13 * FRAME);
}

static void it_never_lags_by_more_than_the_buffer_less_two_periods(void)
{
    open_pcm(false, PERIOD);
    output.delay = 21; /* one more than 40 - 2 * 10 */
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    pass(30);
    CHECK_EQ(t.position, 10 * FRAME);
    CHECK(t.clamps > 0);
    output.delay = UINT32_MAX;
    pass(1);
    CHECK_EQ(t.position, 11 * FRAME);
}

static void an_output_that_stalls_is_not_polled_without_end(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    for (unsigned i = 0; i < 20; i++) { /* it takes frames but sounds none */
        now = xa_transport_deadline(&t);
        xa_transport_advance(&t, now);
        output.delay = (uint32_t) output.written;
        CHECK(t.dry_stop || xa_transport_deadline(&t) > now);
    }
    CHECK_EQ(output.written, 50);
}

/* After a stall of the engine no more than what is stored is moved at once, and a period of
 * silence. */
static void a_long_stall_is_made_up_for_in_one_step(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    now += 3600 * 1000 * TICK;
    CHECK(xa_transport_advance(&t, now));
    CHECK_EQ(output.written, 50);
    CHECK_EQ(t.position, 50 * FRAME);
    CHECK(xa_transport_deadline(&t) == UINT64_MAX);
}

/* However much is stored and due, other streams wait for 64 KiB at most. */
static void a_stalled_output_catches_up_a_piece_at_a_time(void)
{
    enum { STORED = 200000 };
    static uint8_t memory[STORED], guest[STORED];
    unsigned calls = 0;

    open_pcm(false, PERIOD);
    pcm.params.buffer_octets = sizeof(guest);
    pcm.shared = guest;
    pcm.fifo_memory = memory;
    pcm.fifo_octets = sizeof(memory);
    xa_transport_open(&t, &pcm);
    CHECK_EQ(xa_transport_write(&t, now, 0, sizeof(guest)), 0);
    trigger(XENSND_OP_TRIGGER_START);
    now += STORED / FRAME * TICK;
    while (xa_transport_deadline(&t) <= now && calls < 1000) {
        uint64_t before = t.moved;

        xa_transport_advance(&t, now);
        CHECK(t.moved > before && t.moved - before <= 65536);
        calls++;
    }
    CHECK_EQ(calls, 4);
    CHECK_EQ(t.moved, STORED);
    CHECK_EQ(t.frames_silent, 0);
}

/* An hour at 44.1 kHz in periods of 441 frames, by a guest that fills up at each event. */
static void an_hour_does_not_drift(void)
{
    static uint8_t memory[6 * 441 * FRAME], guest[4 * 441 * FRAME];
    uint64_t began, written = 0, hour = UINT64_C(3600) * 44100;

    open_pcm(false, PERIOD);
    pcm.params.rate = output.clock.rate = 44100;
    pcm.params.format = xa_format_by_code(XENSND_PCM_FORMAT_S16_BE); /* has no level */
    pcm.params.buffer_octets = sizeof(guest);
    pcm.params.period_octets = 441 * FRAME;
    pcm.shared = guest;
    pcm.fifo_memory = memory;
    pcm.fifo_octets = sizeof(memory);
    xa_transport_open(&t, &pcm);
    CHECK_EQ(xa_transport_write(&t, now, 0, sizeof(guest)), 0);
    written = sizeof(guest);
    began = now;
    trigger(XENSND_OP_TRIGGER_START);
    while (t.moved < hour * FRAME) {
        uint32_t room;

        now = xa_transport_deadline(&t);
        CHECK(xa_transport_advance(&t, now));
        CHECK_EQ(t.position, t.moved);
        CHECK_EQ(t.position, xa_frames_in(now - began, 44100) * FRAME);
        room = xa_position_room(written, t.position, sizeof(guest));
        CHECK_EQ(xa_transport_write(&t, now, 0, room), 0);
        written += room;
    }
    CHECK(now - began >= UINT64_C(3600000000000) && now - began < UINT64_C(3600100000000));
    CHECK_EQ(t.xruns + t.frames_silent + t.clamps, 0);
    CHECK_EQ(output.starts, 1);
}

static void close_drops_what_is_stored_and_gives_the_pcm_back(void)
{
    open_pcm(false, PERIOD);
    write_frames(0, 1, 40);
    trigger(XENSND_OP_TRIGGER_START);
    pass(10);
    CHECK(xa_transport_close(&t, now) == &pcm);
    CHECK(!output.clock.running);
    CHECK_EQ(t.frames_dropped, 30);
    CHECK(xa_transport_deadline(&t) == UINT64_MAX);
    xa_transport_open(&t, &pcm);
    CHECK_EQ(t.position, 0); /* positions count from OPEN, amounts do not */
    CHECK_EQ(t.frames_out, 10);
}

static int read_frames(uint32_t offset, uint32_t count)
{
    xa_transport_advance(&t, now);
    return xa_transport_read(&t, now, offset * FRAME, count * FRAME);
}

static void captured_frames_are_read_in_order(void)
{
    open_pcm(true, PERIOD);
    CHECK_EQ(read_frames(0, 1), -XEN_EAGAIN);
    trigger(XENSND_OP_TRIGGER_START);
    CHECK_EQ(read_frames(0, 1), -XEN_EAGAIN);
    CHECK_EQ(xa_transport_deadline(&t), now + 11 * TICK);
    pass(12);
    CHECK_EQ(events, 1);
    CHECK_EQ(t.position, 12 * FRAME);
    CHECK_EQ(read_frames(30, 5), 0);
    CHECK_EQ(read_frames(0, 8), -XEN_EAGAIN);
    CHECK_EQ(read_frames(0, 7), 0);
    for (uint32_t i = 0; i < 5; i++)
        CHECK_EQ(shared[30 + i], 1 + i);
    for (uint32_t i = 0; i < 7; i++)
        CHECK_EQ(shared[i], 6 + i);
    CHECK_EQ(shared[7], 0); /* nothing beyond what was asked for */
    CHECK_EQ(t.frames_out, 12);
    CHECK_EQ(t.xruns, 0);
}

static void an_overrun_drops_the_oldest(void)
{
    open_pcm(true, PERIOD);
    trigger(XENSND_OP_TRIGGER_START);
    pass(75); /* 60 fit */
    CHECK_EQ(t.frames_dropped, 15);
    CHECK_EQ(t.xruns, 1);
    pass(10);
    CHECK_EQ(t.frames_dropped, 25);
    CHECK_EQ(t.xruns, 1); /* the same one */
    CHECK_EQ(t.position, 85 * FRAME);
    CHECK_EQ(read_frames(0, 40), 0);
    CHECK_EQ(shared[0], 26);
    CHECK_EQ(shared[39], 65);
    pass(41);
    CHECK_EQ(t.xruns, 2);
    CHECK_EQ(t.frames_dropped, 26);
}

static void a_stopped_capture_forgets_and_a_paused_one_keeps(void)
{
    open_pcm(true, PERIOD);
    trigger(XENSND_OP_TRIGGER_START);
    pass(20);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_PAUSE), 0);
    pass(100);
    CHECK_EQ(t.position, 20 * FRAME);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_RESUME), 0);
    pass(5);
    CHECK_EQ(read_frames(0, 25), 0);
    CHECK_EQ(shared[24], 25);
    pass(5);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_STOP), 0);
    CHECK_EQ(read_frames(0, 1), -XEN_EAGAIN);
    CHECK_EQ(t.position, BUFFER * FRAME);
    trigger(XENSND_OP_TRIGGER_START);
    pass(5);
    CHECK_EQ(t.position, (BUFFER + 5) * FRAME);
    CHECK_EQ(read_frames(0, 5), 0);
    CHECK_EQ(shared[0], 31);
}

static void a_stalled_capture_catches_up_a_piece_at_a_time(void)
{
    unsigned calls = 0;

    open_pcm(true, PERIOD);
    trigger(XENSND_OP_TRIGGER_START);
    now += 100 * RATE * TICK;
    while (xa_transport_deadline(&t) <= now && calls < 1000) {
        uint64_t before = t.moved;

        xa_transport_advance(&t, now);
        CHECK(t.moved > before && t.moved - before <= 65536); /* other streams wait no longer */
        calls++;
    }
    CHECK_EQ(calls, 7);
    CHECK_EQ(t.moved, 100 * RATE * FRAME);
    CHECK_EQ(t.xruns, 1);
}

static void the_peak_is_of_the_samples_moved(void)
{
    open_pcm(false, PERIOD);
    for (uint32_t i = 0; i < 20; i++)
        shared[i] = i == 15 ? 0xc0000000 : 0x00010001; /* -0.5 on the right */
    xa_transport_write(&t, now, 0, 20 * FRAME);
    trigger(XENSND_OP_TRIGGER_START);
    pass(15);
    CHECK(t.peak > 0.0f && t.peak < 0.001f);
    pass(1);
    CHECK(t.peak == 0.5f);
}

static void an_output_that_stores_is_given_samples_as_soon_as_they_are_there(void)
{
    open_pcm(false, PERIOD);
    output.store = 15;
    write_frames(0, 1, 12);
    CHECK_EQ(output.written, 0);
    trigger(XENSND_OP_TRIGGER_START);
    CHECK_EQ(output.written, 12);
    CHECK_EQ(t.position, 0); /* nothing was heard */
    write_frames(12, 13, 10);
    CHECK_EQ(output.written, 15);
    CHECK_EQ(t.fifo.fill, 7 * FRAME);
    pass(5);
    CHECK_EQ(t.position, 5 * FRAME);
    CHECK_EQ(output.written, 20);
    write_frames(22, 23, 2);
    CHECK_EQ(output.written, 20);
    heard(0, 1, 20);
}

static void an_output_that_stores_is_given_no_silence_before_a_gap_is_heard(void)
{
    open_pcm(false, PERIOD);
    output.store = 15;
    write_frames(0, 1, 12);
    trigger(XENSND_OP_TRIGGER_START);
    pass(12);
    CHECK_EQ(output.silent, 0);
    write_frames(12, 13, 4); /* in the last moment */
    pass(4);
    CHECK_EQ(output.silent, 0);
    CHECK_EQ(t.position, 16 * FRAME);
    pass(3);
    CHECK_EQ(output.silent, 3);
    CHECK_EQ(t.position, 19 * FRAME);
    write_frames(16, 17, 9);
    CHECK_EQ(t.xruns, 1);
    heard(0, 1, 16);
    heard(16, 0, 3);
    heard(19, 17, 9);
    pass(100);
    CHECK(!output.clock.running);
    CHECK(!output.held);
}

/* A backend that looks at the ring late finds the guest's last samples and their end at once. */
static void samples_that_come_too_late_for_all_that_is_due_are_told_of(void)
{
    open_pcm(false, PERIOD);
    CHECK_EQ(write_frames(0, 1, 20), 0);
    CHECK_EQ(trigger(XENSND_OP_TRIGGER_START), 0);
    now += 60 * TICK;
    CHECK_EQ(xa_transport_write(&t, now, 20 * FRAME, 10 * FRAME), 0);
    CHECK(!t.dry_stop);
    CHECK(xa_transport_advance(&t, now));
    CHECK_EQ(t.position, (30 + PERIOD) * FRAME);
    CHECK(t.dry_stop);
}

int main(void)
{
    samples_that_come_too_late_for_all_that_is_due_are_told_of();
    data_is_in_the_order_of_the_requests_whatever_their_offsets();
    octets_outside_of_the_buffer_or_in_part_frames_are_refused();
    nothing_open_refuses_everything_and_has_no_deadline();
    more_than_buffer_and_two_periods_is_no_space();
    a_start_on_nothing_plays_one_period_of_silence_then_stands();
    only_a_gap_in_the_sound_is_an_xrun();
    what_the_position_ran_on_is_borrowed();
    at_its_end_the_position_passes_what_was_written_and_tells_so();
    stop_discards_and_positions_go_on_from_a_multiple_of_the_buffer();
    after_a_stop_there_is_a_period_on_credit_again();
    pause_keeps_what_is_stored();
    paused_while_dry_it_resumes_dry();
    events_come_one_frame_past_the_multiples();
    the_deadline_is_the_next_event();
    without_periods_there_are_no_events();
    a_long_period_is_moved_in_pieces();
    the_position_is_what_is_heard();
    it_never_lags_by_more_than_the_buffer_less_two_periods();
    an_output_that_stalls_is_not_polled_without_end();
    a_long_stall_is_made_up_for_in_one_step();
    a_stalled_output_catches_up_a_piece_at_a_time();
    an_hour_does_not_drift();
    close_drops_what_is_stored_and_gives_the_pcm_back();
    captured_frames_are_read_in_order();
    an_overrun_drops_the_oldest();
    a_stopped_capture_forgets_and_a_paused_one_keeps();
    a_stalled_capture_catches_up_a_piece_at_a_time();
    the_peak_is_of_the_samples_moved();
    an_output_that_stores_is_given_samples_as_soon_as_they_are_there();
    an_output_that_stores_is_given_no_silence_before_a_gap_is_heard();
    return check_result();
}
