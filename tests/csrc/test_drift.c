/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A day of playing with clocks that differ, in simulated time: the output's, the backend's own, and
 * the guest's. The guest fills its buffer up whenever it is told of a position, so what is stored
 * neither grows nor shrinks, and between positions it may go by its own clock.
 */
#include "backend/transport.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/clocked.h"
#include "check.h"
#include "sndif/evtpage.h"
#include "sndif/position.h"

/* So little that a day's samples are copied in seconds. */
enum { RATE = 8000, FRAME = 1, PERIOD = 160 * FRAME, BUFFER = 2 * PERIOD + 2 * FRAME };
#define SECOND UINT64_C(1000000000)
#define DAY (86400 * SECOND)

static uint8_t shared[BUFFER], fifo[BUFFER + 2 * PERIOD];
static _Alignas(XA_PAGE_SIZE) uint8_t page[XA_PAGE_SIZE];

struct guest {
    struct xa_evtpage_front events;
    int ppm;           /* by how much its clock is fast */
    uint64_t written;  /* octets */
    uint64_t position; /* the last one told, octets */
    uint64_t told_at;  /* when that was, by its clock, nanoseconds */
};

/* Up to `most`, not the same twice: how late somebody wakes up, nanoseconds. */
static uint64_t late(uint64_t most)
{
    static uint64_t state = 1;

    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (state >> 33) % most;
}

static uint64_t clock_of(int ppm, uint64_t now)
{
    struct xa_clock clock = {.ppm = ppm};

    return xa_clock_passed_in(&clock, now);
}

static void guest_follow(struct guest *g, uint64_t now)
{
    struct xensnd_evt evt;

    while (xa_evtpage_front_get(&g->events, &evt) == 1) {
        CHECK(xa_position_plausible(evt.op.cur_pos.position, g->position, g->written, BUFFER));
        g->position = evt.op.cur_pos.position;
        g->told_at = clock_of(g->ppm, now);
    }
}

static void guest_fill(struct guest *g, struct xa_transport *t, uint64_t now)
{
    uint32_t room = xa_position_room(g->written, g->position, BUFFER);

    while (room) {
        uint32_t offset = (uint32_t) (g->written % BUFFER);
        uint32_t piece = BUFFER - offset < room ? BUFFER - offset : room;

        CHECK_EQ(xa_transport_write(t, now, offset, piece), 0);
        g->written += piece;
        room -= piece;
    }
}

/* What the guest takes for heard at `now`, octets: the last position, and what passed since. */
static uint64_t guest_reckons(const struct guest *g, uint64_t now)
{
    uint64_t frames = xa_frames_in(clock_of(g->ppm, now) - g->told_at, RATE);

    return g->position + frames * FRAME;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static struct xa_pcm open_pcm(void)
{
    struct xa_pcm pcm = {.params = {.format = xa_format_by_code(XENSND_PCM_FORMAT_U8),
                                    .rate = RATE,
                                    .channels = 1,
                                    .frame_octets = FRAME,
                                    .buffer_octets = BUFFER,
                                    .period_octets = PERIOD},
                         .shared = shared,
                         .fifo_memory = fifo,
                         .fifo_octets = sizeof(fifo)};

    CHECK_EQ(xa_output_null_open(&pcm.params, &pcm.output), 0);
    return pcm;
}

static void a_day_passes(int output_ppm, int guest_ppm)
{
    struct guest g = {.ppm = guest_ppm};
    struct xa_pcm pcm = open_pcm();
    struct xa_evtpage_back events = {0};
    uint64_t now = SECOND, events_sent = 0, played, expected, worst = 0;
    uint32_t least = UINT32_MAX, most = 0;
    struct xa_transport t;
    char text[16];

    snprintf(text, sizeof(text), "%d", output_ppm);
    setenv(XA_CLOCK_PPM, text, 1);
    xa_evtpage_front_init(&g.events, page);
    xa_evtpage_back_attach(&events, page);
    xa_transport_init(&t, false);
    xa_transport_open(&t, &pcm);
    guest_fill(&g, &t, now);
    CHECK_EQ(xa_transport_trigger(&t, now, XENSND_OP_TRIGGER_START), 0);
    while (now < DAY) {
        uint64_t heard, reckoned;

        /* The engine wakes up a little late, and finds what the guest wrote since. */
        now = xa_transport_deadline(&t) + late(200000);
        guest_fill(&g, &t, now);
        least = t.fifo.fill < least ? t.fifo.fill : least;
        most = t.fifo.fill > most ? t.fifo.fill : most;
        if (xa_transport_advance(&t, now)) {
            CHECK_EQ(xa_evtpage_back_cur_pos(&events, t.position), 1);
            events_sent++;
        }
        CHECK(xa_transport_is_ahead(&t));
        guest_follow(&g, now);
        /* Half a period on it is asked for its latency. */
        now += SECOND / 100;
        xa_transport_advance(&t, now);
        heard = t.position;
        reckoned = guest_reckons(&g, now);
        worst = apart(reckoned, heard) > worst ? apart(reckoned, heard) : worst;
    }
    played = t.frames_out;
    expected = xa_frames_in(clock_of(output_ppm, now - SECOND), RATE);
    printf("output %+d ppm, guest %+d ppm: %llu periods, fill %u to %u octets of %u, gaps %llu,"
           " reckoned within %llu octets\n",
           output_ppm, guest_ppm, (unsigned long long) events_sent, least, most, BUFFER,
           (unsigned long long) t.xruns, (unsigned long long) worst);
    CHECK_EQ(t.xruns + t.frames_silent, 0);
    CHECK(apart(expected, played) <= 1);
    CHECK(least >= BUFFER - PERIOD - PERIOD / 8 && most <= BUFFER);
    CHECK(worst <= 2 * FRAME);
    xa_transport_close(&t, now);
    pcm.output->ops->close(pcm.output);
}

int main(void)
{
    a_day_passes(300, -300);
    a_day_passes(-300, 300);
    a_day_passes(0, 0);
    return check_result();
}
