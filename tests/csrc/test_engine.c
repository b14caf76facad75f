/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backend's engine as guests see it: streams of a hypervisor inside this process, with sndif's
 * front half written out step by step. Honest guests first, then hostile ones, with an honest one
 * beside them that must not notice.
 */
#include "backend/engine.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "backend/clock.h"
#include "soundfile/soundfile.h"
#include "check.h"
#include "fake_hv.h"
#include "sndif/evtpage.h"
#include "sndif/pagedir.h"
#include "sndif/position.h"
#include "sndif/ring.h"

enum { RATE = 48000, FRAME = 4, PERIOD = 480 * FRAME, BUFFER_MOST = 1 << 20 };
enum { HANG_MS = 20000 }; /* nothing here takes so long */

static char dir[] = "/tmp/xa-engine-XXXXXX";
static struct xa_hv *hv;
static struct xa_engine *engine;

/* ---- a guest ---- */

struct guest {
    struct xa_back_stream_config config;
    struct xa_back_stream *stream; /* the backend's end; NULL: not connected */
    struct xa_share *ring_share, *evt_share, *buffer_share, *dir_share;
    struct xa_evtchn *evtchn;
    uint32_t ring_port, evt_port;
    struct xa_front_ring ring;
    struct xa_evtpage_front events;
    bool deaf; /* takes no events */
    uint16_t next_id;
    uint8_t *buffer;
    uint32_t gref_directory, buffer_octets;
    uint64_t written, position;
    unsigned events_got;
};

static const char *path_of(const char *name)
{
    static char path[sizeof(dir) + 64];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void guest_init(struct guest *g, bool capture, const char *file)
{
    uint32_t gref;

    *g = (struct guest){.config = {.domid = 7,
                                   .capture = capture,
                                   .caps = {.formats = xa_format_all_mask(),
                                            .rates = {RATE},
                                            .rate_count = 1,
                                            .channels_min = 1,
                                            .channels_max = 2,
                                            .buffer_octets_max = BUFFER_MOST},
                                   .route = {.kind = file ? XA_ROUTE_FILE : XA_ROUTE_NULL}}};
    if (file)
        snprintf(g->config.route.path, sizeof(g->config.route.path), "%s", path_of(file));
    xa_share_new(hv, 0, 1, &gref, &g->ring_share);
    g->config.ring_ref = gref;
    xa_front_ring_init(&g->ring, xa_share_memory(g->ring_share));
    xa_share_new(hv, 0, 1, &gref, &g->evt_share);
    g->config.evt_ring_ref = gref;
    xa_evtpage_front_init(&g->events, xa_share_memory(g->evt_share));
    xa_evtchn_open(hv, &g->evtchn);
    xa_evtchn_alloc_unbound(g->evtchn, 0, &g->ring_port);
    xa_evtchn_alloc_unbound(g->evtchn, 0, &g->evt_port);
    g->config.event_channel = g->ring_port;
    g->config.evt_event_channel = g->evt_port;
}

static void guest_connect(struct guest *g)
{
    const char *failed;

    CHECK_EQ(xa_back_stream_connect(engine, hv, &g->config, &g->stream, &failed), 0);
}

static void guest_disconnect(struct guest *g)
{
    if (g->stream)
        xa_back_stream_disconnect(g->stream);
    g->stream = NULL;
}

static void free_buffer(struct guest *g)
{
    xa_share_free(g->buffer_share);
    xa_share_free(g->dir_share);
    g->buffer_share = g->dir_share = NULL;
}

static void guest_free(struct guest *g)
{
    guest_disconnect(g);
    free_buffer(g);
    xa_share_free(g->evt_share);
    xa_share_free(g->ring_share);
    xa_evtchn_close(g->evtchn);
}

static struct xa_back_stream_stats stats_of(struct guest *g)
{
    struct xa_back_stream_stats stats;

    xa_back_stream_read_stats(g->stream, &stats);
    return stats;
}

/* Takes what events there are. */
static void guest_events(struct guest *g)
{
    struct xensnd_evt evt;
    int got = 0;

    while (!g->deaf && (got = xa_evtpage_front_get(&g->events, &evt)) == 1) {
        CHECK_EQ(evt.type, XENSND_EVT_CUR_POS);
        CHECK(xa_position_plausible(evt.op.cur_pos.position, g->position, g->written, BUFFER_MOST));
        g->position = evt.op.cur_pos.position;
        g->events_got++;
    }
    CHECK_EQ(got, 0);
}

/* Waits at most `ms` for its event channel, and takes the events that came. */
static void guest_wait(struct guest *g, int ms)
{
    struct pollfd fd = {.fd = xa_evtchn_fd(g->evtchn), .events = POLLIN};
    uint32_t port;

    poll(&fd, 1, ms);
    while (xa_evtchn_pending(g->evtchn, &port) == 1)
        ;
    guest_events(g);
}

static void guest_put(struct guest *g, struct xensnd_req *request)
{
    request->id = g->next_id++;
    CHECK_EQ(xa_front_ring_put(&g->ring, request), 0);
}

static void guest_push(struct guest *g)
{
    if (xa_front_ring_push(&g->ring))
        xa_evtchn_notify(g->evtchn, g->ring_port);
}

/* The next response; false after HANG_MS. */
static bool guest_get(struct guest *g, struct xensnd_resp *response)
{
    uint64_t limit = xa_monotonic_ns() + HANG_MS * UINT64_C(1000000);

    while (xa_monotonic_ns() < limit) {
        if (xa_front_ring_get(&g->ring, response) == 1)
            return true;
        if (xa_front_ring_arm(&g->ring) == 0)
            guest_wait(g, 100);
    }
    CHECK(!"no response came");
    return false;
}

/* Puts a request and waits for its answer; the status. */
static int guest_ask(struct guest *g, struct xensnd_req *request)
{
    struct xensnd_resp response = {0};

    guest_put(g, request);
    guest_push(g);
    if (!guest_get(g, &response))
        return INT32_MIN;
    CHECK_EQ(response.id, request->id);
    CHECK_EQ(response.operation, request->operation);
    if (request->operation == XENSND_OP_HW_PARAM_QUERY)
        request->op.hw_param = response.resp.hw_param;
    return response.status;
}

static int guest_trigger(struct guest *g, uint8_t type)
{
    struct xensnd_req request = {.operation = XENSND_OP_TRIGGER, .op.trigger.type = type};

    return guest_ask(g, &request);
}

static int guest_rw(struct guest *g, uint8_t operation, uint32_t offset, uint32_t length)
{
    struct xensnd_req request = {.operation = operation,
                                 .op.rw = {.offset = offset, .length = length}};

    return guest_ask(g, &request);
}

static int guest_close(struct guest *g)
{
    struct xensnd_req request = {.operation = XENSND_OP_CLOSE};

    return guest_ask(g, &request);
}

/* Shares a buffer and its directory, and makes the request to open it. */
static struct xensnd_req open_request(struct guest *g, uint32_t octets, uint32_t period)
{
    static uint32_t grefs[BUFFER_MOST / XA_PAGE_SIZE + 1];
    uint32_t pages = xa_pages_for(octets), dir_gref;
    void *dir_page;

    free_buffer(g);
    xa_share_new(hv, 0, pages, grefs, &g->buffer_share);
    xa_share_new(hv, 0, 1, &dir_gref, &g->dir_share);
    dir_page = xa_share_memory(g->dir_share);
    CHECK_EQ(xa_pagedir_build(&dir_page, &dir_gref, 1, grefs, pages), 0);
    g->buffer = xa_share_memory(g->buffer_share);
    g->buffer_octets = octets;
    g->gref_directory = dir_gref;
    return (struct xensnd_req){.operation = XENSND_OP_OPEN,
                               .op.open = {.pcm_rate = RATE,
                                           .pcm_format = XENSND_PCM_FORMAT_S16_LE,
                                           .pcm_channels = 2,
                                           .buffer_sz = octets,
                                           .gref_directory = dir_gref,
                                           .period_sz = period}};
}

static int guest_open(struct guest *g, uint32_t octets, uint32_t period)
{
    struct xensnd_req request = open_request(g, octets, period);

    g->written = g->position = 0;
    return guest_ask(g, &request);
}

/* Frame number n of the pattern: no two of a test are alike. */
static uint32_t pattern(uint64_t n)
{
    return (uint32_t) (n * 2654435761u) | 1;
}

/* Writes as many of the pattern's frames as there is room for, up to `until` frames in all. */
static void guest_fill(struct guest *g, uint64_t until)
{
    uint64_t room = xa_position_room(g->written, g->position, g->buffer_octets);

    if (room > until * FRAME - g->written)
        room = until * FRAME - g->written;
    while (room) {
        uint32_t offset = (uint32_t) (g->written % g->buffer_octets);
        uint32_t piece = g->buffer_octets - offset;

        piece = piece < room ? piece : (uint32_t) room;
        for (uint32_t i = 0; i < piece / FRAME; i++) {
            uint32_t frame = pattern(g->written / FRAME + i);

            memcpy(g->buffer + offset + i * FRAME, &frame, FRAME);
        }
        CHECK_EQ(guest_rw(g, XENSND_OP_WRITE, offset, piece), 0);
        g->written += piece;
        room -= piece;
    }
}

/* Plays on until `frames` of the pattern were written and, if told so, heard. */
static void guest_play(struct guest *g, uint64_t frames, bool drain)
{
    uint64_t limit = xa_monotonic_ns() + HANG_MS * UINT64_C(1000000);

    while (xa_monotonic_ns() < limit) {
        guest_fill(g, frames);
        if (g->written == frames * FRAME && (!drain || g->position >= g->written))
            return;
        guest_wait(g, 100);
    }
    CHECK(!"playing has stopped");
}

/* The file holds exactly `frames` frames of the pattern. */
static void file_holds_pattern(const char *name, uint64_t frames)
{
    static uint32_t got[20 * RATE];
    struct xa_soundfile_info info = {0};
    struct xa_soundfile *file;
    uint32_t count, wrong = 0;

    CHECK_EQ(
        xa_soundfile_open(path_of(name), xa_format_by_code(XENSND_PCM_FORMAT_S16_LE), &info, &file),
        0);
    CHECK_EQ(info.frames, frames);
    if (info.frames != frames)
        return;
    count = xa_soundfile_read(file, got, 20 * RATE);
    for (uint32_t i = 0; i < count; i++)
        wrong += got[i] != pattern(i);
    CHECK_EQ(count, frames);
    CHECK_EQ(wrong, 0);
    xa_soundfile_close(file);
}

static void sleep_ms(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long) (ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

/* ---- honest guests ---- */

static void plays_into_a_file_bit_for_bit(void)
{
    struct guest g;
    struct xa_back_stream_stats s;
    struct xa_trace_point points[64];
    uint32_t count;

    guest_init(&g, false, "play.wav");
    guest_connect(&g);
    CHECK_EQ(stats_of(&g).state, XA_BACK_STREAM_CLOSED);
    CHECK_EQ(guest_open(&g, RATE * FRAME, PERIOD), 0);
    s = stats_of(&g);
    CHECK_EQ(s.state, XA_BACK_STREAM_OPEN);
    CHECK_EQ(s.rate, RATE);
    CHECK_EQ(s.channels, 2);
    CHECK_EQ(s.format, XENSND_PCM_FORMAT_S16_LE);
    CHECK_EQ(s.period_octets, PERIOD);
    CHECK_EQ(s.buffer_octets, RATE * FRAME);
    guest_fill(&g, 12345);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    CHECK_EQ(stats_of(&g).state, XA_BACK_STREAM_RUNNING);
    guest_play(&g, 12345, true);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_STOP), 0);
    CHECK_EQ(guest_close(&g), 0);
    s = stats_of(&g);
    CHECK_EQ(s.state, XA_BACK_STREAM_CLOSED);
    CHECK_EQ(s.frames_in, 12345);
    CHECK_EQ(s.frames_out, 12345);
    CHECK_EQ(s.frames_dropped + s.frames_lost + s.xruns + s.bad_requests, 0);
    CHECK_EQ(s.opens, 1);
    CHECK(s.events >= 1 && s.events == g.events_got);
    CHECK(s.peak > 0.9f);
    CHECK(stats_of(&g).peak == 0.0f);
    CHECK(s.broken == NULL);
    count = xa_back_stream_read_trace(g.stream, points, 64);
    CHECK(count > 1);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(points[i].open, 1);
        CHECK_EQ(points[i].frames + points[i].fill, 12345);
        CHECK(i == 0 || points[i].time_ns > points[i - 1].time_ns);
    }
    CHECK_EQ(xa_back_stream_read_trace(g.stream, points, 64), 0);
    guest_free(&g);
    file_holds_pattern("play.wav", 12345);
}

static void records_a_file_bit_for_bit(void)
{
    enum { FRAMES = 9000 };
    static uint32_t recorded[FRAMES];
    uint32_t got = 0;
    struct xa_soundfile *file;
    struct guest g;
    uint64_t limit = xa_monotonic_ns() + HANG_MS * UINT64_C(1000000);

    for (uint32_t i = 0; i < FRAMES; i++)
        recorded[i] = pattern(i);
    CHECK_EQ(xa_soundfile_create(path_of("record.wav"), true,
                                 xa_format_by_code(XENSND_PCM_FORMAT_S16_LE), RATE, 2, &file),
             0);
    CHECK_EQ(xa_soundfile_write(file, recorded, FRAMES), FRAMES);
    CHECK_EQ(xa_soundfile_close(file), 0);
    memset(recorded, 0, sizeof(recorded));

    guest_init(&g, true, "record.wav");
    guest_connect(&g);
    g.written = UINT32_MAX; /* nothing is written here, so any position is plausible */
    CHECK_EQ(guest_rw(&g, XENSND_OP_READ, 0, FRAME), -XEN_EIO);
    CHECK_EQ(guest_open(&g, RATE * FRAME, PERIOD), 0);
    g.written = UINT32_MAX;
    CHECK_EQ(guest_rw(&g, XENSND_OP_READ, 0, FRAME), -XEN_EAGAIN);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    while (got < FRAMES && xa_monotonic_ns() < limit) {
        uint32_t frames = (uint32_t) (g.position / FRAME) - got;

        if (frames > FRAMES - got)
            frames = FRAMES - got;
        if (frames) {
            CHECK_EQ(guest_rw(&g, XENSND_OP_READ, 100 * FRAME, frames * FRAME), 0);
            memcpy(recorded + got, g.buffer + 100 * FRAME, frames * FRAME);
            got += frames;
        } else {
            guest_wait(&g, 100);
        }
    }
    for (uint32_t i = 0; i < FRAMES; i++)
        CHECK_EQ(recorded[i], pattern(i));
    CHECK_EQ(guest_close(&g), 0);
    CHECK_EQ(stats_of(&g).xruns, 0);
    guest_free(&g);
}

static void the_null_route_plays_and_records_silence(void)
{
    struct guest g;
    unsigned sum = 0;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 4 * PERIOD, PERIOD), 0);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0); /* at once, on nothing */
    guest_play(&g, 3000, true);
    CHECK_EQ(guest_close(&g), 0);
    guest_free(&g);

    guest_init(&g, true, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 4 * PERIOD, PERIOD), 0);
    g.written = UINT32_MAX;
    memset(g.buffer, 0xee, g.buffer_octets);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    while (g.position == 0)
        guest_wait(&g, 100);
    CHECK_EQ(guest_rw(&g, XENSND_OP_READ, 0, PERIOD), 0);
    for (uint32_t i = 0; i < PERIOD; i++)
        sum += g.buffer[i];
    CHECK_EQ(sum, 0);
    CHECK_EQ(g.buffer[PERIOD], 0xee);
    guest_free(&g); /* still open */
}

static void a_frontend_without_an_event_page_is_served(void)
{
    struct guest g;
    uint32_t silence[480] = {0};

    guest_init(&g, false, NULL);
    g.config.evt_ring_ref = g.config.evt_event_channel = 0;
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 4 * PERIOD, PERIOD), 0);
    memcpy(g.buffer, silence, sizeof(silence));
    CHECK_EQ(guest_rw(&g, XENSND_OP_WRITE, 0, PERIOD), 0);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    while (stats_of(&g).position < PERIOD)
        sleep_ms(2);
    CHECK_EQ(guest_close(&g), 0);
    CHECK_EQ(stats_of(&g).events, 0);
    guest_free(&g);
}

/* Ids of events go on over CLOSE and OPEN (guest_events checks them), positions begin anew. */
static void opening_again_goes_on_with_the_event_ids(void)
{
    struct guest g;
    unsigned before;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_close(&g), 0); /* with nothing open */
    CHECK_EQ(guest_open(&g, 8 * PERIOD, PERIOD), 0);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    guest_play(&g, 5 * 480, true);
    CHECK_EQ(guest_close(&g), 0);
    CHECK_EQ(guest_close(&g), 0);
    before = g.events_got;
    CHECK(before >= 1); /* a late machine has several in one */
    CHECK_EQ(guest_open(&g, 8 * PERIOD, PERIOD), 0);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    guest_play(&g, 2 * 480, true);
    CHECK_EQ(g.events_got - before, stats_of(&g).events - before);

    /* OPEN while open closes first. */
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_STOP), 0);
    guest_events(&g);
    CHECK_EQ(guest_open(&g, 4 * PERIOD, PERIOD), 0);
    CHECK_EQ(stats_of(&g).position, 0);
    CHECK_EQ(fake_open_maps(), 3); /* ring, event page, one buffer */
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    guest_play(&g, 2 * 480, true);
    CHECK_EQ(guest_close(&g), 0);
    CHECK_EQ(stats_of(&g).opens, 3);
    CHECK_EQ(stats_of(&g).bad_requests, 0);
    CHECK_EQ(fake_open_maps(), 2);
    guest_free(&g);
}

static void queries_are_answered_with_the_narrowed_ranges(void)
{
    struct xensnd_req request = {.operation = XENSND_OP_HW_PARAM_QUERY};
    struct guest g;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    request.op.hw_param.formats = UINT64_MAX;
    request.op.hw_param.rates.max = request.op.hw_param.channels.max = UINT32_MAX;
    request.op.hw_param.buffer.max = request.op.hw_param.period.max = UINT32_MAX;
    CHECK_EQ(guest_ask(&g, &request), 0);
    CHECK_EQ(request.op.hw_param.formats, xa_format_all_mask());
    CHECK_EQ(request.op.hw_param.rates.min, RATE);
    CHECK_EQ(request.op.hw_param.channels.max, 2);
    CHECK_EQ(request.op.hw_param.buffer.max, BUFFER_MOST);
    request.op.hw_param.rates.max = 100;
    CHECK_EQ(guest_ask(&g, &request), -XEN_EINVAL);
    guest_free(&g);
}

static void responses_come_in_the_order_of_the_requests(void)
{
    static const int32_t expected[] = {0, 0,           -XEN_EINVAL, -XEN_EOPNOTSUPP, 0,
                                       0, -XEN_EINVAL, 0,           -XEN_EIO,        -XEN_EIO};
    struct xensnd_req requests[10];
    struct xensnd_resp response;
    struct guest g;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    memset(requests, 0, sizeof(requests));
    requests[0] = open_request(&g, 4 * PERIOD, PERIOD);
    requests[1].operation = XENSND_OP_WRITE;
    requests[1].op.rw.length = PERIOD;
    requests[2].operation = XENSND_OP_WRITE;
    requests[2].op.rw.offset = 4 * PERIOD;
    requests[3].operation = 77;
    requests[4].operation = XENSND_OP_TRIGGER; /* START */
    requests[5] = requests[0];                 /* OPEN, while open */
    requests[6].operation = XENSND_OP_TRIGGER;
    requests[6].op.trigger.type = 9;
    requests[7].operation = XENSND_OP_CLOSE;
    requests[8].operation = XENSND_OP_WRITE;
    requests[9].operation = XENSND_OP_TRIGGER;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 10; i++)
            guest_put(&g, &requests[i]);
        guest_push(&g);
        for (unsigned i = 0; i < 10 && guest_get(&g, &response); i++) {
            CHECK_EQ(response.id, requests[i].id);
            CHECK_EQ(response.operation, requests[i].operation);
            CHECK_EQ(response.status, expected[i]);
        }
    }
    CHECK_EQ(stats_of(&g).requests, 30);
    CHECK_EQ(stats_of(&g).bad_requests, 15);
    guest_free(&g);
}

/* Waits until a stream's statistics say so. */
#define WAIT_FOR(guest, condition)                                                                 \
    do {                                                                                           \
        uint64_t limit_ = xa_monotonic_ns() + HANG_MS * UINT64_C(1000000);                         \
        struct xa_back_stream_stats s = stats_of(guest);                                           \
                                                                                                   \
        while (!(condition) && xa_monotonic_ns() < limit_) {                                       \
            sleep_ms(2);                                                                           \
            s = stats_of(guest);                                                                   \
        }                                                                                          \
        CHECK(condition);                                                                          \
    } while (0)

/* 100 periods of 1 ms, but only 63 events fit in the page: the last position is sent when there is
 * room again, though the guest asks for nothing any more. */
static void a_position_that_found_the_page_full_is_sent_later(void)
{
    const uint32_t period = 48 * FRAME, buffer = 100 * period;
    uint64_t limit = xa_monotonic_ns() + HANG_MS * UINT64_C(1000000);
    struct guest g;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, buffer, period), 0);
    g.deaf = true;
    guest_fill(&g, 4800);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    WAIT_FOR(&g, s.position >= 4848 * FRAME); /* all heard, and run on */
    CHECK_EQ(g.position, 0);
    g.deaf = false;
    while (g.position < g.written && xa_monotonic_ns() < limit)
        guest_wait(&g, 10);
    CHECK(g.position >= g.written);
    CHECK(stats_of(&g).events_held > 0);
    CHECK(g.events_got >= 2 && g.events_got <= 65); /* a stall of the engine merges periods, too */
    CHECK_EQ(guest_close(&g), 0);
    guest_free(&g);
}

static void close_waits_for_the_events_but_not_for_ever(void)
{
    struct guest g;
    uint64_t began;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 4 * PERIOD, PERIOD), 0);
    g.deaf = true;
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    guest_fill(&g, 4 * 480);
    WAIT_FOR(&g, s.events >= 3);
    began = xa_monotonic_ns();
    CHECK_EQ(guest_close(&g), 0);
    CHECK(xa_monotonic_ns() - began >= 90000000);
    g.deaf = false;
    guest_events(&g);
    CHECK(g.events_got >= 3);
    guest_free(&g);
}

/* The next event would have been half a second away; what was due by then is heard all the same. */
static void close_plays_what_was_due(void)
{
    struct xa_back_stream_stats s;
    struct guest g;

    guest_init(&g, false, "due.wav");
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, RATE * FRAME, RATE / 2 * FRAME), 0);
    guest_fill(&g, RATE);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    sleep_ms(50);
    CHECK_EQ(guest_close(&g), 0);
    s = stats_of(&g);
    CHECK(s.frames_out >= RATE / 20);
    CHECK_EQ(s.frames_out + s.frames_dropped, RATE);
    guest_free(&g);
    file_holds_pattern("due.wav", s.frames_out);
}

/* ---- what it costs ---- */

/* Writes what there is room for without waiting for answers. How many WRITEs the backend asked to
 * be notified of. */
static unsigned guest_write_on(struct guest *g, uint64_t until)
{
    uint64_t room = xa_position_room(g->written, g->position, g->buffer_octets);
    struct xensnd_resp response;
    unsigned rung = 0;

    while (xa_front_ring_get(&g->ring, &response) == 1)
        CHECK_EQ(response.status, 0);
    if (room > until * FRAME - g->written)
        room = until * FRAME - g->written;
    while (room) {
        struct xensnd_req request = {.operation = XENSND_OP_WRITE};
        uint32_t offset = (uint32_t) (g->written % g->buffer_octets);
        uint32_t piece = g->buffer_octets - offset;

        piece = piece < room ? piece : (uint32_t) room;
        for (uint32_t i = 0; i < piece / FRAME; i++) {
            uint32_t frame = pattern(g->written / FRAME + i);

            memcpy(g->buffer + offset + i * FRAME, &frame, FRAME);
        }
        request.op.rw.offset = offset;
        request.op.rw.length = piece;
        guest_put(g, &request);
        if (xa_front_ring_push(&g->ring)) {
            xa_evtchn_notify(g->evtchn, g->ring_port);
            rung++;
        }
        g->written += piece;
        room -= piece;
    }
    return rung;
}

/* Plays so much, keeping three periods ahead; how many WRITEs were to be told of. */
static unsigned doorbells_of(const char *file, bool hold_off)
{
    enum { FRAMES = RATE / 2 };
    uint64_t limit = xa_monotonic_ns() + HANG_MS * UINT64_C(1000000);
    struct xensnd_resp response;
    unsigned rung = 0;
    struct guest g;

    guest_init(&g, false, file);
    g.config.hold_off = hold_off;
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 3 * PERIOD, PERIOD), 0);
    guest_fill(&g, FRAMES);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    /* Of a guest that was late the position may be ahead of what it wrote. */
    while ((g.position < FRAMES * FRAME || g.written < FRAMES * FRAME) &&
           xa_monotonic_ns() < limit) {
        rung += guest_write_on(&g, FRAMES);
        guest_wait(&g, 100);
    }
    CHECK(g.position >= FRAMES * FRAME);
    while (xa_front_ring_free(&g.ring) < XA_RING_ENTRIES && guest_get(&g, &response))
        CHECK_EQ(response.status, 0);
    CHECK_EQ(guest_close(&g), 0);
    CHECK_EQ(stats_of(&g).frames_in, FRAMES);
    CHECK_EQ(stats_of(&g).bad_requests, 0);
    guest_free(&g);
    return rung;
}

static void a_frontend_that_can_be_held_off_need_not_ring_for_samples(void)
{
    unsigned asked = doorbells_of("rung.wav", false), held_off = doorbells_of("held-off.wav", true);

    /* Where this machine was late it is asked for: when there is too little to wait. */
    printf("doorbells: %u of about 50 writes, %u held off\n", asked, held_off);
    CHECK(held_off < asked / 2);
}

struct usage {
    bool known;
    uint64_t switches;
    uint64_t cpu_ns;
};

static FILE *open_of_task(const char *task, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "/proc/self/task/%s/%s", task, name);
    return fopen(path, "re");
}

/* What the engine's thread has used so far. */
static struct usage engine_usage(void)
{
    struct usage usage = {0};
    static const char field[] = "voluntary_ctxt_switches:";
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;

    while (tasks && (task = readdir(tasks)) && !usage.known) {
        char line[256];
        FILE *file = open_of_task(task->d_name, "comm");
        bool found = file && fgets(line, sizeof(line), file) && !strcmp(line, "xa-engine\n");

        if (file)
            fclose(file);
        if (!found)
            continue;
        file = open_of_task(task->d_name, "status");
        while (file && fgets(line, sizeof(line), file))
            if (!strncmp(line, field, sizeof(field) - 1))
                usage.switches = strtoull(line + sizeof(field) - 1, NULL, 10);
        if (file)
            fclose(file);
        file = open_of_task(task->d_name, "schedstat");
        if (file && fgets(line, sizeof(line), file))
            usage.cpu_ns = strtoull(line, NULL, 10);
        if (file)
            fclose(file);
        usage.known = usage.cpu_ns > 0;
    }
    if (tasks)
        closedir(tasks);
    return usage;
}

/* In each `ms`, the engine wakes at most so often, and does little meanwhile. */
static void engine_sleeps(const char *when, unsigned ms, unsigned wakes)
{
    struct usage before = engine_usage(), after;
    uint64_t began = xa_monotonic_ns(), slept;

    if (!before.known) /* no /proc/PID/schedstat */
        return;
    sleep_ms(ms);
    after = engine_usage();
    slept = (xa_monotonic_ns() - began) / 1000000; /* on a busy machine longer than asked for */
    if (getenv("XA_TEST_VERBOSE"))
        printf("engine, %s, %u ms: %" PRIu64 " wake-ups, %" PRIu64 " us\n", when, ms,
               after.switches - before.switches, (after.cpu_ns - before.cpu_ns) / 1000);
    CHECK(after.switches - before.switches <= wakes * slept / ms);
    CHECK(after.cpu_ns - before.cpu_ns < slept * 1000000 / 4);
}

static void an_engine_with_nothing_to_do_sleeps(void)
{
    struct guest g;

    engine_sleeps("without a stream", 200, 2);
    guest_init(&g, false, NULL);
    guest_connect(&g);
    guest_close(&g);
    engine_sleeps("connected", 200, 2);
    CHECK_EQ(guest_open(&g, 80 * PERIOD, PERIOD), 0);
    engine_sleeps("open", 200, 2);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    sleep_ms(50);
    engine_sleeps("dry", 200, 2);
    guest_fill(&g, 60 * 480);
    engine_sleeps("playing periods of 10 ms", 300, 40);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_PAUSE), 0);
    engine_sleeps("paused", 200, 2);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_RESUME), 0);
    guest_play(&g, 60 * 480, true);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_STOP), 0);
    engine_sleeps("stopped", 200, 2);
    fake_block(g.gref_directory);
    {
        struct xensnd_req request = {.operation = XENSND_OP_OPEN,
                                     .op.open = {.pcm_rate = RATE,
                                                 .pcm_format = XENSND_PCM_FORMAT_S16_LE,
                                                 .pcm_channels = 2,
                                                 .buffer_sz = 80 * PERIOD,
                                                 .gref_directory = g.gref_directory,
                                                 .period_sz = PERIOD}};

        guest_put(&g, &request);
        guest_push(&g);
        fake_wait_blocked();
        engine_sleeps("opening", 200, 2);
    }
    fake_block(0);
    guest_free(&g);
}

/* ---- hostile guests, and the neighbour that must not notice ---- */

/* A neighbour that is four seconds ahead: no busy machine makes it late, only a stalled engine
 * does. */
static struct guest neighbour;

static void neighbour_begins(const char *file)
{
    guest_init(&neighbour, false, file);
    neighbour.config.domid = 8; /* another guest, with an allowance of its own */
    neighbour.config.domid = 8; /* another guest than all others here */
    guest_connect(&neighbour);
    CHECK_EQ(guest_open(&neighbour, 4 * RATE * FRAME, PERIOD), 0);
    guest_fill(&neighbour, 4 * RATE);
    CHECK_EQ(guest_trigger(&neighbour, XENSND_OP_TRIGGER_START), 0);
}

/* Goes on playing for `ms`; its requests are answered and its events come. */
static void neighbour_plays(unsigned ms)
{
    uint64_t end = xa_monotonic_ns() + ms * UINT64_C(1000000), before = neighbour.position;

    do {
        guest_wait(&neighbour, 20);
        guest_fill(&neighbour, 20 * RATE);
    } while (xa_monotonic_ns() < end);
    CHECK(ms < 50 || neighbour.position > before);
}

/* All that it was given in time is in its file, and nothing else. */
static void neighbour_ends(const char *file)
{
    struct xa_back_stream_stats s;

    CHECK_EQ(guest_close(&neighbour), 0);
    s = stats_of(&neighbour);
    CHECK_EQ(s.frames_out + s.frames_dropped, neighbour.written / FRAME);
    CHECK_EQ(s.xruns + s.frames_silent + s.frames_lost + s.bad_requests + s.throttles, 0);
    CHECK(s.broken == NULL);
    guest_free(&neighbour);
    file_holds_pattern(file, s.frames_out);
}

static struct {
    pthread_t thread;
    struct guest *guest;
    atomic_bool stop;
    unsigned rounds;
} attack;

static void begin_attack(struct guest *g, void *(*run)(void *) )
{
    attack.guest = g;
    atomic_store(&attack.stop, false);
    attack.rounds = 0;
    if (pthread_create(&attack.thread, NULL, run, NULL))
        abort();
}

static void end_attack(void)
{
    atomic_store(&attack.stop, true);
    pthread_join(attack.thread, NULL);
    CHECK(attack.rounds > 0);
}

/* Both ports, as fast as they go. */
static void *storm_of_events(void *unused)
{
    (void) unused;
    while (!atomic_load(&attack.stop)) {
        xa_evtchn_notify(attack.guest->evtchn, attack.guest->ring_port);
        xa_evtchn_notify(attack.guest->evtchn, attack.guest->evt_port);
        attack.rounds++;
    }
    return NULL;
}

/* Full rings of requests, of which no answer is waited for longer than it takes to come. */
static void flood(const struct xensnd_req *requests, unsigned count)
{
    struct guest *g = attack.guest;
    unsigned unanswered = 0;

    while (!atomic_load(&attack.stop) || unanswered) {
        struct xensnd_resp response;

        while (unanswered < XA_RING_ENTRIES && !atomic_load(&attack.stop)) {
            struct xensnd_req request = requests[attack.rounds++ % count];

            request.id = g->next_id++;
            xa_front_ring_put(&g->ring, &request);
            unanswered++;
        }
        guest_push(g);
        while (xa_front_ring_get(&g->ring, &response) == 1)
            unanswered--;
        if (xa_front_ring_arm(&g->ring) == 0) {
            struct pollfd fd = {.fd = xa_evtchn_fd(g->evtchn), .events = POLLIN};
            uint32_t port;

            poll(&fd, 1, 100);
            while (xa_evtchn_pending(g->evtchn, &port) == 1)
                ;
        }
    }
}

static void *flood_of_writes(void *unused)
{
    struct xensnd_req requests[] = {
        {.operation = XENSND_OP_WRITE, .op.rw = {.length = BUFFER_MOST}},
        {.operation = XENSND_OP_TRIGGER, .op.trigger.type = XENSND_OP_TRIGGER_STOP},
    };

    (void) unused;
    flood(requests, 2);
    return NULL;
}

static void *flood_of_triggers(void *unused)
{
    struct xensnd_req requests[] = {
        {.operation = XENSND_OP_TRIGGER, .op.trigger.type = XENSND_OP_TRIGGER_START},
        {.operation = XENSND_OP_TRIGGER, .op.trigger.type = XENSND_OP_TRIGGER_PAUSE},
        {.operation = XENSND_OP_TRIGGER, .op.trigger.type = XENSND_OP_TRIGGER_RESUME},
        {.operation = XENSND_OP_TRIGGER, .op.trigger.type = XENSND_OP_TRIGGER_STOP},
        {.operation = XENSND_OP_HW_PARAM_QUERY, .op.hw_param.formats = UINT64_MAX},
        {.operation = XENSND_OP_READ, .op.rw = {.offset = 4, .length = UINT32_MAX}},
        {.operation = 255},
    };

    (void) unused;
    flood(requests, 7);
    return NULL;
}

/* Opens, and opens again while open, and closes. */
static void *flood_of_opens(void *unused)
{
    struct xensnd_req requests[3] = {{.operation = XENSND_OP_CLOSE},
                                     {.operation = XENSND_OP_OPEN},
                                     {.operation = XENSND_OP_OPEN}};

    (void) unused;
    requests[1].op.open = (struct xensnd_open_req){.pcm_rate = RATE,
                                                   .pcm_format = XENSND_PCM_FORMAT_S16_LE,
                                                   .pcm_channels = 2,
                                                   .buffer_sz = BUFFER_MOST,
                                                   .gref_directory = attack.guest->gref_directory,
                                                   .period_sz = PERIOD};
    requests[2].op.open = requests[1].op.open;
    flood(requests, 3);
    return NULL;
}

static void floods_and_storms_are_slowed_down_and_survived(void)
{
    struct guest h;
    uint64_t began;

    neighbour_begins("floods.wav");
    began = xa_monotonic_ns();
    guest_init(&h, false, NULL);
    guest_connect(&h);
    begin_attack(&h, storm_of_events); /* with nothing open */
    neighbour_plays(200);
    end_attack();
    /* A wake-up costs a token, of which there are 1000 at first and 8 more each millisecond. */
    CHECK(stats_of(&h).wakeups <= 1010 + 8 * ((xa_monotonic_ns() - began) / 1000000));
    CHECK_EQ(guest_close(&h), 0); /* it is still heard */

    CHECK_EQ(guest_open(&h, BUFFER_MOST, PERIOD), 0);
    begin_attack(&h, flood_of_writes);
    neighbour_plays(250);
    end_attack();
    begin_attack(&h, flood_of_triggers);
    neighbour_plays(250);
    end_attack();
    begin_attack(&h, flood_of_opens);
    neighbour_plays(250);
    end_attack();
    h.deaf = true; /* it took no events: their page may have run full, their ids are skipped here */
    CHECK(stats_of(&h).broken == NULL);
    CHECK_EQ(guest_close(&h), 0);
    guest_free(&h);
    neighbour_ends("floods.wav");
}

/* A guest that asks for more than it has tokens for waits, and still gets every answer. */
static void a_throttled_guest_gets_every_answer(void)
{
    struct xensnd_req request = {.operation = XENSND_OP_OPEN, .op.open.pcm_format = 255};
    struct xensnd_resp response;
    struct guest g;
    unsigned answers = 0;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < XA_RING_ENTRIES; i++)
            guest_put(&g, &request);
        guest_push(&g);
        if (round == 1)
            engine_sleeps("at rest", 100, 60);
        for (unsigned i = 0; i < XA_RING_ENTRIES && guest_get(&g, &response); i++) {
            CHECK_EQ(response.status, -XEN_EINVAL);
            answers += response.id == round * XA_RING_ENTRIES + i;
        }
    }
    CHECK_EQ(answers, 2 * XA_RING_ENTRIES);
    CHECK(stats_of(&g).throttles > 0);
    sleep_ms(20);
    engine_sleeps("after throttling", 200, 3);
    CHECK_EQ(guest_close(&g), 0);
    guest_free(&g);
}

static void bad_requests_get_their_status_and_the_stream_lives_on(void)
{
    static const struct {
        uint8_t operation;
        uint32_t offset, length;
        int32_t status;
    } bad[] = {
        {XENSND_OP_WRITE, 0, 2, -XEN_EINVAL},
        {XENSND_OP_WRITE, 4 * PERIOD, FRAME, -XEN_EINVAL},
        {XENSND_OP_WRITE, 0x7fff0000, FRAME, -XEN_EINVAL},
        {XENSND_OP_WRITE, UINT32_MAX - 3, 8, -XEN_EINVAL},
        {XENSND_OP_WRITE, 8, UINT32_MAX - 7, -XEN_EINVAL},
        {XENSND_OP_WRITE, 0, 5 * PERIOD, -XEN_EINVAL},
        {XENSND_OP_READ, 0, FRAME, -XEN_EINVAL},
        {XENSND_OP_SET_VOLUME, 0, 16, -XEN_EOPNOTSUPP},
        {XENSND_OP_GET_VOLUME, 0, 16, -XEN_EOPNOTSUPP},
        {XENSND_OP_MUTE, 0, 4, -XEN_EOPNOTSUPP},
        {XENSND_OP_UNMUTE, 0, 4, -XEN_EOPNOTSUPP},
        {10, 0, 0, -XEN_EOPNOTSUPP},
        {255, UINT32_MAX, UINT32_MAX, -XEN_EOPNOTSUPP},
        {XENSND_OP_TRIGGER, 4, 0, -XEN_EINVAL},
        {XENSND_OP_TRIGGER, XENSND_OP_TRIGGER_RESUME, 0, -XEN_EINVAL},
        {XENSND_OP_TRIGGER, XENSND_OP_TRIGGER_PAUSE, 0, -XEN_EINVAL},
    };
    struct xa_back_stream_stats s;
    struct guest h;

    guest_init(&h, false, NULL);
    guest_connect(&h);
    CHECK_EQ(guest_rw(&h, XENSND_OP_WRITE, 0, FRAME), -XEN_EIO);
    s = stats_of(&h);
    CHECK_EQ(s.last_error, -XEN_EIO);
    CHECK_EQ(strcmp(s.last_error_why, "a request to a PCM that is not open"), 0);
    CHECK_EQ(guest_trigger(&h, XENSND_OP_TRIGGER_START), -XEN_EIO);
    CHECK_EQ(guest_open(&h, 4 * PERIOD + 1, PERIOD), -XEN_EINVAL);
    s = stats_of(&h);
    CHECK_EQ(strcmp(s.last_error_why, "a buffer that is not of whole frames"), 0);
    CHECK_EQ(s.last_error_value, 4 * PERIOD + 1);
    CHECK_EQ(guest_rw(&h, XENSND_OP_WRITE, 0, FRAME), -XEN_EIO);
    CHECK_EQ(guest_open(&h, 4 * PERIOD, PERIOD), 0);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_EQ(guest_rw(&h, bad[i].operation, bad[i].offset, bad[i].length), bad[i].status);
    CHECK_EQ(stats_of(&h).bad_requests, 4 + sizeof(bad) / sizeof(bad[0]));
    CHECK_EQ(guest_trigger(&h, XENSND_OP_TRIGGER_START), 0);
    guest_play(&h, 2000, true);
    CHECK_EQ(guest_close(&h), 0);
    CHECK_EQ(guest_rw(&h, XENSND_OP_WRITE, 0, FRAME), -XEN_EIO);
    guest_free(&h);
}

static void impossible_directories_are_refused(void)
{
    struct xensnd_req request;
    uint32_t *directory;
    unsigned maps;
    struct guest h;

    guest_init(&h, false, NULL);
    guest_connect(&h);
    maps = fake_open_maps();
    request = open_request(&h, 10 * XA_PAGE_SIZE, PERIOD);
    request.op.open.gref_directory = FAKE_GREFS - 1; /* granted to nobody */
    CHECK_EQ(guest_ask(&h, &request), -XEN_EACCES);
    CHECK_EQ(strcmp(stats_of(&h).last_error_why, "its shared buffer cannot be mapped"), 0);
    request.op.open.gref_directory = UINT32_MAX;
    CHECK_EQ(guest_ask(&h, &request), -XEN_EACCES);
    request.op.open.gref_directory = h.gref_directory;
    directory = xa_share_memory(h.dir_share);
    directory[10] = 0;
    CHECK_EQ(guest_ask(&h, &request), -XEN_EINVAL);
    directory[10] = FAKE_GREFS - 2;
    CHECK_EQ(guest_ask(&h, &request), -XEN_EACCES);
    CHECK_EQ(fake_open_maps(), maps);

    /* One page again and again, in a directory that is its own next page. */
    for (unsigned i = 1; i < 1024; i++)
        directory[i] = h.gref_directory;
    directory[0] = h.gref_directory;
    request.op.open.buffer_sz = BUFFER_MOST;
    CHECK_EQ(guest_ask(&h, &request), 0);
    CHECK_EQ(guest_close(&h), 0);
    guest_disconnect(&h);
    h.config.caps.buffer_octets_max = 4000 * XA_PAGE_SIZE; /* four directory pages */
    xa_front_ring_init(&h.ring, xa_share_memory(h.ring_share));
    xa_evtpage_front_init(&h.events, xa_share_memory(h.evt_share));
    guest_connect(&h);
    request.op.open.buffer_sz = 4000 * XA_PAGE_SIZE;
    CHECK_EQ(guest_ask(&h, &request), 0); /* the walk has ended */
    CHECK_EQ(guest_close(&h), 0);
    directory[0] = 0; /* ends too soon */
    CHECK_EQ(guest_ask(&h, &request), -XEN_EINVAL);
    directory[0] = FAKE_GREFS - 3;
    CHECK_EQ(guest_ask(&h, &request), -XEN_EACCES);
    CHECK_EQ(fake_open_maps(), maps);
    guest_free(&h);
}

/* Waits until the engine tells, and takes that. */
static void engine_tells(void)
{
    struct pollfd fd = {.fd = xa_engine_fd(engine), .events = POLLIN};
    eventfd_t value;

    CHECK_EQ(poll(&fd, 1, HANG_MS), 1);
    CHECK_EQ(eventfd_read(fd.fd, &value), 0);
}

static void an_impossible_index_breaks_the_stream_and_no_other(void)
{
    struct xensnd_event_page *page;
    struct xen_sndif_sring *sring;
    struct guest h;

    neighbour_begins("index.wav");
    guest_init(&h, false, NULL);
    guest_connect(&h);
    CHECK_EQ(guest_close(&h), 0);
    sring = xa_share_memory(h.ring_share);
    atomic_store((_Atomic uint32_t *) &sring->req_prod, 1000);
    xa_evtchn_notify(h.evtchn, h.ring_port);
    engine_tells();
    CHECK_EQ(strcmp(stats_of(&h).broken, "its request ring has an impossible index"), 0);
    for (unsigned i = 0; i < 1000; i++) { /* it is not listened to any more */
        xa_evtchn_notify(h.evtchn, h.ring_port);
        xa_evtchn_notify(h.evtchn, h.evt_port);
    }
    engine_sleeps("with a broken stream and a neighbour", 200, 30);
    guest_free(&h);

    guest_init(&h, false, NULL);
    guest_connect(&h);
    CHECK_EQ(guest_open(&h, 8 * PERIOD, PERIOD), 0);
    guest_fill(&h, 8 * 480);
    h.deaf = true;
    page = xa_share_memory(h.evt_share);
    atomic_store((_Atomic uint32_t *) &page->in_cons, 5);
    CHECK_EQ(guest_trigger(&h, XENSND_OP_TRIGGER_START), 0);
    engine_tells();
    CHECK_EQ(strcmp(stats_of(&h).broken, "its event page has an impossible index"), 0);
    guest_free(&h);
    neighbour_plays(100);
    neighbour_ends("index.wav");
}

static void what_cannot_be_connected_leaves_nothing_behind(void)
{
    struct xa_back_stream_config good;
    unsigned before;
    struct guest g;

    guest_init(&g, false, NULL);
    good = g.config;
    before = fake_open_things();
    for (unsigned i = 0; i < 4; i++) {
        static const char *const reasons[] = {
            "its request ring (ring-ref) cannot be used",
            "its event-channel cannot be bound",
            "its event page (evt-ring-ref) cannot be used",
            "its evt-event-channel cannot be bound",
        };
        const char *failed = "";
        uint32_t *fields[] = {&g.config.ring_ref, &g.config.event_channel, &g.config.evt_ring_ref,
                              &g.config.evt_event_channel};

        g.config = good;
        *fields[i] = 999999;
        CHECK(xa_back_stream_connect(engine, hv, &g.config, &g.stream, &failed) < 0);
        CHECK_EQ(strcmp(failed, reasons[i]), 0);
        CHECK_EQ(fake_open_things(), before);
    }
    g.config = good;
    guest_connect(&g);
    CHECK_EQ(guest_close(&g), 0);
    guest_free(&g);
}

/* Another backend, in the place of one that is gone. */
static void guest_is_adopted(struct guest *g)
{
    guest_disconnect(g);
    g->config.adopted = true;
    guest_connect(g);
}

static void a_stream_taken_over_is_not_open_and_can_be_opened_again(void)
{
    struct guest g;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 8 * PERIOD, PERIOD), 0);
    guest_fill(&g, 8 * 480);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    for (unsigned i = 0; i < 100 && stats_of(&g).events == 0; i++)
        guest_wait(&g, 50);
    guest_is_adopted(&g);
    guest_events(&g); /* what was sent before: guest_events checks the ids */
    CHECK_EQ(guest_rw(&g, XENSND_OP_WRITE, 0, FRAME), -XEN_EIO);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_STOP), -XEN_EIO);
    CHECK_EQ(guest_close(&g), 0);
    free_buffer(&g);
    CHECK_EQ(guest_open(&g, 8 * PERIOD, PERIOD), 0);
    guest_fill(&g, 8 * 480);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    for (unsigned i = 0; i < 100 && stats_of(&g).events < 2; i++)
        guest_wait(&g, 50);
    guest_events(&g);
    CHECK_EQ(guest_close(&g), 0);
    guest_free(&g);
}

static void impossible_indices_are_not_taken_over(void)
{
    struct guest g;
    const char *failed = "";
    struct xensnd_event_page *events;
    struct xen_sndif_sring *sring;
    unsigned before;

    guest_init(&g, false, NULL);
    g.config.adopted = true;
    before = fake_open_things();
    sring = xa_share_memory(g.ring_share);
    events = xa_share_memory(g.evt_share);
    sring->rsp_prod = 1;
    CHECK_EQ(xa_back_stream_connect(engine, hv, &g.config, &g.stream, &failed), -EPROTO);
    CHECK_EQ(strcmp(failed, "its request ring (ring-ref) cannot be used"), 0);
    sring->rsp_prod = 0;
    events->in_cons = 1;
    CHECK_EQ(xa_back_stream_connect(engine, hv, &g.config, &g.stream, &failed), -EPROTO);
    CHECK_EQ(strcmp(failed, "its event page (evt-ring-ref) cannot be used"), 0);
    CHECK_EQ(fake_open_things(), before);
    guest_free(&g);
}

static void a_stream_that_refuses_lets_its_players_end(void)
{
    struct xensnd_req query = {.operation = XENSND_OP_HW_PARAM_QUERY};
    struct xensnd_req open;
    struct guest g;

    guest_init(&g, false, NULL);
    guest_connect(&g);
    CHECK_EQ(guest_open(&g, 8 * PERIOD, PERIOD), 0);
    guest_fill(&g, 4 * 480);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
    xa_back_stream_refuse(g.stream);
    CHECK_EQ(guest_rw(&g, XENSND_OP_WRITE, 4 * PERIOD, FRAME), -XEN_EIO);
    /* A player that waits for room is woken. */
    for (unsigned i = 0; i < 100 && stats_of(&g).events < 2; i++)
        guest_wait(&g, 50);
    CHECK(stats_of(&g).events >= 2);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_PAUSE), -XEN_EIO);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_STOP), 0);
    CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), -XEN_EIO);
    CHECK_EQ(guest_close(&g), 0);
    CHECK_EQ(guest_ask(&g, &query), -XEN_EIO);
    open = open_request(&g, 8 * PERIOD, PERIOD);
    CHECK_EQ(guest_ask(&g, &open), -XEN_EIO);
    guest_free(&g);
}

/* The guest's page directory takes longer to map than Linux waits. */
static void an_open_that_blocks_delays_its_own_guest_only(void)
{
    struct xensnd_req request;
    struct xensnd_resp response;
    struct guest h;
    int status;

    neighbour_begins("blocks.wav");
    guest_init(&h, false, "late.wav");
    guest_connect(&h);
    request = open_request(&h, 4 * PERIOD, PERIOD);
    fake_block(h.gref_directory);
    guest_put(&h, &request);
    guest_push(&h);
    fake_wait_blocked();
    CHECK_EQ(stats_of(&h).state, XA_BACK_STREAM_BUSY);
    for (unsigned i = 0; i < 60 && xa_front_ring_get(&h.ring, &response) == 0; i++)
        neighbour_plays(50);
    CHECK_EQ(response.status, -XEN_ETIMEDOUT);
    CHECK_EQ(response.id, request.id);
    CHECK_EQ(strcmp(stats_of(&h).last_error_why, "opening or closing its output takes too long"),
             0);
    CHECK_EQ(stats_of(&h).state, XA_BACK_STREAM_CLOSED);
    CHECK_EQ(guest_ask(&h, &request), -XEN_EBUSY);
    CHECK_EQ(guest_rw(&h, XENSND_OP_WRITE, 0, FRAME), -XEN_EIO);
    CHECK_EQ(guest_close(&h), 0);
    CHECK_EQ(guest_ask(&h, &request), -XEN_EBUSY);

    /* What it opens in the end is closed again, and then the guest can open. */
    fake_block(0);
    do {
        status = guest_ask(&h, &request);
        sleep_ms(1);
    } while (status == -XEN_EBUSY);
    CHECK_EQ(status, 0);
    CHECK_EQ(stats_of(&h).opens, 1);
    guest_fill(&h, 1000);
    CHECK_EQ(guest_trigger(&h, XENSND_OP_TRIGGER_START), 0);
    guest_play(&h, 1000, true);
    CHECK_EQ(guest_close(&h), 0);
    guest_free(&h);
    file_holds_pattern("late.wav", 1000);
    neighbour_ends("blocks.wav");
}

static void a_guest_that_goes_while_playing_leaves_nothing(void)
{
    unsigned before = fake_open_things();
    struct guest g;

    for (unsigned i = 0; i < 20; i++) {
        guest_init(&g, false, "gone.wav");
        guest_connect(&g);
        CHECK_EQ(guest_open(&g, 8 * PERIOD, PERIOD), 0);
        guest_fill(&g, 8 * 480);
        CHECK_EQ(guest_trigger(&g, XENSND_OP_TRIGGER_START), 0);
        sleep_ms(i);
        guest_free(&g);
        CHECK_EQ(fake_open_things(), before);
    }
}

static void *disconnect(void *user)
{
    guest_disconnect(user);
    return NULL;
}

static void a_guest_that_goes_while_a_job_runs_leaves_nothing(void)
{
    unsigned before = fake_open_things();

    for (unsigned i = 0; i < 5; i++) {
        struct xensnd_req request;
        struct guest g;
        pthread_t thread;

        guest_init(&g, false, NULL);
        guest_connect(&g);
        request = open_request(&g, 8 * PERIOD, PERIOD);
        fake_block(g.gref_directory);
        guest_put(&g, &request);
        guest_push(&g);
        fake_wait_blocked();
        pthread_create(&thread, NULL, disconnect, &g);
        sleep_ms(i * 5);
        if (i == 0)
            engine_sleeps("while a stream waits for its job", 100, 3);
        fake_block(0);
        pthread_join(thread, NULL);
        guest_free(&g);
        CHECK_EQ(fake_open_things(), before);
    }
    for (unsigned i = 0; i < 50; i++) { /* at any moment of a job */
        struct xensnd_req request;
        struct guest g;

        guest_init(&g, false, NULL);
        guest_connect(&g);
        request = open_request(&g, 8 * PERIOD, PERIOD);
        guest_put(&g, &request);
        guest_push(&g);
        nanosleep(&(struct timespec){.tv_nsec = (long) i * 10000}, NULL);
        guest_free(&g);
    }
    CHECK_EQ(fake_open_things(), before);
}

static void remove_files(void)
{
    static const char *const names[] = {"play.wav",   "record.wav",  "floods.wav", "index.wav",
                                        "blocks.wav", "late.wav",    "gone.wav",   "due.wav",
                                        "rung.wav",   "held-off.wav"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(path_of(names[i]));
    CHECK_EQ(rmdir(dir), 0);
}

int main(void)
{
    static void (*const tests[])(void) = {
        plays_into_a_file_bit_for_bit,
        records_a_file_bit_for_bit,
        the_null_route_plays_and_records_silence,
        a_frontend_without_an_event_page_is_served,
        opening_again_goes_on_with_the_event_ids,
        queries_are_answered_with_the_narrowed_ranges,
        responses_come_in_the_order_of_the_requests,
        a_position_that_found_the_page_full_is_sent_later,
        close_waits_for_the_events_but_not_for_ever,
        close_plays_what_was_due,
        a_frontend_that_can_be_held_off_need_not_ring_for_samples,
        an_engine_with_nothing_to_do_sleeps,
        floods_and_storms_are_slowed_down_and_survived,
        a_throttled_guest_gets_every_answer,
        bad_requests_get_their_status_and_the_stream_lives_on,
        impossible_directories_are_refused,
        an_impossible_index_breaks_the_stream_and_no_other,
        what_cannot_be_connected_leaves_nothing_behind,
        a_stream_taken_over_is_not_open_and_can_be_opened_again,
        impossible_indices_are_not_taken_over,
        a_stream_that_refuses_lets_its_players_end,
        an_open_that_blocks_delays_its_own_guest_only,
        a_guest_that_goes_while_playing_leaves_nothing,
        a_guest_that_goes_while_a_job_runs_leaves_nothing,
    };

    alarm(240);
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    hv = fake_hv_open();
    engine = xa_engine_new();
    if (!hv || !engine) {
        perror("engine");
        return 1;
    }
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        uint64_t began = xa_monotonic_ns();

        tests[i]();
        if (getenv("XA_TEST_VERBOSE"))
            printf("test %u: %u ms\n", i, (unsigned) ((xa_monotonic_ns() - began) / 1000000));
    }
    CHECK_EQ(fake_open_things(), 0);
    xa_engine_free(engine);
    xa_hv_close(hv);
    remove_files();
    return check_result();
}
