/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's end of one stream; see stream.h. */
#include "stream.h"
#include "stream_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sndif/evtpage.h"
#include "sndif/format.h"
#include "sndif/pagedir.h"
#include "sndif/position.h"
#include "sndif/ring.h"

#define RESPONSE_LIMIT_US UINT64_C(3000000)
/* Events taken in one go; a backend that never stops sending must not keep the owner's loop. */
#define EVENTS_AT_ONCE 128
/* With so many requests unanswered a response must wake us, whatever else does. */
#define RING_PRESSURE (XA_RING_ENTRIES / 2)
/* Beyond it the first OPEN would not fit what one grant device gives out. */
#define BUFFER_LIMIT (UINT32_C(64) << 20)

struct pending {
    bool used;
    uint8_t operation;
    uint16_t id;
    uint32_t length;
    uint64_t deadline_us;
};

/* Where the stream is between a STOP and the START after it. */
enum halt {
    HALT_NONE,
    HALT_ASKED,  /* STOP has no response yet */
    HALT_DONE,   /* stopped: nothing moves, so a position that is told is where it stopped */
    HALT_ENDING, /* START has no response yet: what is told may be either */
};

struct xa_stream {
    struct xa_hv *hv;
    void (*callback)(void *user, struct xa_stream *stream, enum xa_stream_event event, int error);
    void *user;

    struct xa_stream_config config;
    bool configured;
    enum xa_stream_state state;
    unsigned version;
    uint16_t backend;
    char fault[96];

    struct xa_share *rings; /* page 0: request ring, page 1: event page */
    struct xa_evtchn *evtchn;
    uint32_t ring_port;
    uint32_t evt_port;
    struct xa_front_ring ring;
    struct xa_evtpage_front evtpage;

    struct pending pending[XA_RING_ENTRIES]; /* at id % XA_RING_ENTRIES */
    unsigned pending_count;
    unsigned pending_other; /* of these not WRITE */
    uint16_t next_id;
    bool more; /* there is more to process, though no event channel will fire for it */

    struct xa_share *buffer; /* `directory_pages` pages of directory, then the samples */
    uint32_t *grefs;
    uint32_t directory_pages;
    uint32_t buffer_pages;

    struct xa_stream_params params;
    uint32_t frame;
    bool running;
    int error; /* of a refused WRITE or READ */

    /* Octets since OPEN. */
    uint64_t written;
    uint32_t unanswered; /* written, but the WRITE has no response yet */
    uint64_t asked;      /* capture: in READs sent */
    uint64_t fetched;    /* capture: in READs answered */
    uint64_t taken;      /* capture: given to the owner */
    uint64_t skipped;    /* capture: lost in overruns, or dropped by STOP */
    /* Playback: written and dropped by STOP, less what STOP took the position on by; may wrap. */
    uint64_t dropped;
    enum halt halt;
    uint16_t halt_id; /* of the request that has no response yet */
    uint64_t mark;    /* written - dropped when STOP was sent */
    uint16_t open_id;
    uint64_t position;
    uint64_t position_us;
    uint64_t heard;  /* playback: the last position without silence in it */
    uint64_t ran_on; /* playback: the last position with silence in it */
    bool dry;
    /* Protocol 1 has no events: the position is reckoned by the clock. */
    uint64_t clock_us;
    uint64_t clock_position;

    bool has_ranges;
    struct xa_stream_ranges ranges;
    struct xa_stream_stats stats;
};

static uint64_t monotonic_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

struct xa_stream *xa_stream_new(struct xa_hv *hv,
                                void (*callback)(void *user, struct xa_stream *stream,
                                                 enum xa_stream_event event, int error),
                                void *user)
{
    struct xa_stream *stream = calloc(1, sizeof(*stream));

    if (!stream)
        return NULL;
    stream->hv = hv;
    stream->callback = callback;
    stream->user = user;
    return stream;
}

static void tell(struct xa_stream *stream, enum xa_stream_event event, int error)
{
    if (stream->callback)
        stream->callback(stream->user, stream, event, error);
}

static void buffer_free(struct xa_stream *stream)
{
    xa_share_free(stream->buffer);
    free(stream->grefs);
    stream->buffer = NULL;
    stream->grefs = NULL;
    stream->directory_pages = 0;
    stream->buffer_pages = 0;
}

static void transport_free(struct xa_stream *stream, bool ours)
{
    if (ours)
        xa_evtchn_close(stream->evtchn);
    else
        xa_evtchn_abandon(stream->evtchn);
    stream->evtchn = NULL;
    if (stream->rings)
        xa_share_free(stream->rings);
    stream->rings = NULL;
    if (stream->buffer)
        buffer_free(stream);
}

void xa_stream_free(struct xa_stream *stream)
{
    if (!stream)
        return;
    transport_free(stream, true);
    free(stream);
}

void xa_stream_configure(struct xa_stream *stream, const struct xa_stream_config *config)
{
    stream->configured = config != NULL;
    if (config)
        stream->config = *config;
}

bool xa_stream_is_configured(const struct xa_stream *stream)
{
    return stream->configured;
}

static int make_channels(struct xa_stream *stream, struct xa_stream_transport *transport)
{
    int error = xa_evtchn_open(stream->hv, &stream->evtchn);

    if (error < 0) {
        stream->evtchn = NULL;
        return error;
    }
    error = xa_evtchn_alloc_unbound(stream->evtchn, stream->backend, &stream->ring_port);
    if (error == 0)
        error = xa_evtchn_alloc_unbound(stream->evtchn, stream->backend, &stream->evt_port);
    transport->event_channel = stream->ring_port;
    transport->evt_event_channel = stream->evt_port;
    return error;
}

int xa_stream_prepare(struct xa_stream *stream, uint16_t backend,
                      struct xa_stream_transport *transport)
{
    uint32_t grefs[2];
    uint8_t *pages;
    int error;

    transport_free(stream, true);
    stream->backend = backend;
    error = xa_share_new(stream->hv, backend, 2, grefs, &stream->rings);
    if (error < 0) {
        stream->rings = NULL;
        return error;
    }
    transport->ring_ref = grefs[0];
    transport->evt_ring_ref = grefs[1];
    pages = xa_share_memory(stream->rings);
    xa_front_ring_init(&stream->ring, pages);
    xa_evtpage_front_init(&stream->evtpage, pages + XA_PAGE_SIZE);
    error = make_channels(stream, transport);
    if (error < 0)
        transport_free(stream, true);
    return error;
}

void xa_stream_online(struct xa_stream *stream, unsigned version)
{
    stream->version = version;
    stream->state = XA_STREAM_CLOSED;
}

void xa_stream_offline(struct xa_stream *stream)
{
    bool was_open = stream->state == XA_STREAM_OPENING || stream->state == XA_STREAM_OPEN ||
                    stream->state == XA_STREAM_CLOSING || stream->state == XA_STREAM_DEAD;

    memset(stream->pending, 0, sizeof(stream->pending));
    stream->pending_count = 0;
    stream->pending_other = 0;
    stream->next_id = 0;
    stream->more = false;
    stream->running = false;
    stream->has_ranges = false;
    stream->state = XA_STREAM_OFFLINE;
    if (was_open)
        tell(stream, XA_EVENT_CLOSED, -ENOTCONN);
}

void xa_stream_release(struct xa_stream *stream, bool ours)
{
    transport_free(stream, ours);
}

const struct xa_stream_config *xa_stream_config(const struct xa_stream *stream)
{
    return &stream->config;
}

enum xa_stream_state xa_stream_state(const struct xa_stream *stream)
{
    return stream->state;
}

int xa_stream_fd(const struct xa_stream *stream)
{
    return stream->evtchn ? xa_evtchn_fd(stream->evtchn) : -1;
}

const char *xa_stream_fault(const struct xa_stream *stream)
{
    return stream->fault;
}

/* Why a call is refused in a state that is none of those where requests can be sent; else 0. */
static int unusable(const struct xa_stream *stream)
{
    if (stream->state == XA_STREAM_OFFLINE)
        return stream->configured ? -ENOTCONN : -ENODEV;
    return stream->state == XA_STREAM_DEAD ? -ETIMEDOUT : 0;
}

/*
 * A response need not wake us where position events do it: while playing, WRITE's are collected
 * with the next event. That is what keeps a steady stream at one wake-up a period.
 */
static bool wants_response_event(const struct xa_stream *stream)
{
    return stream->pending_other > 0 || stream->pending_count >= RING_PRESSURE ||
           (stream->pending_count > 0 && (!stream->running || stream->version < 2));
}

static int arm(struct xa_stream *stream)
{
    int ready;

    if (!wants_response_event(stream))
        return 0;
    ready = xa_front_ring_arm(&stream->ring);
    if (ready < 0)
        return ready;
    stream->more = stream->more || ready > 0;
    return 0;
}

static bool slot_free(const struct xa_stream *stream, unsigned requests)
{
    for (unsigned i = 0; i < requests; i++) {
        if (stream->pending[(uint16_t) (stream->next_id + i) % XA_RING_ENTRIES].used)
            return false;
    }
    return xa_front_ring_free(&stream->ring) >= requests;
}

/* Puts a request; the caller has made sure of a free slot, and calls send() in the end. */
static void put(struct xa_stream *stream, struct xensnd_req *req, uint32_t length)
{
    struct pending *pending = &stream->pending[stream->next_id % XA_RING_ENTRIES];

    req->id = stream->next_id;
    if (xa_front_ring_put(&stream->ring, req) < 0)
        return;
    pending->used = true;
    pending->operation = req->operation;
    pending->id = req->id;
    pending->length = length;
    pending->deadline_us = monotonic_us() + RESPONSE_LIMIT_US;
    stream->next_id++;
    stream->pending_count++;
    if (req->operation != XENSND_OP_WRITE)
        stream->pending_other++;
    stream->stats.requests++;
}

/* `asked`: whether the backend is notified only if it asked for it (XA_CARD_FEATURE_HOLD_OFF). */
static void send(struct xa_stream *stream, bool asked)
{
    if (xa_front_ring_push(&stream->ring) || !asked) {
        stream->stats.doorbells++;
        /* A peer that is gone shows in the store, or by its silence. */
        (void) xa_evtchn_notify(stream->evtchn, stream->ring_port);
    }
    /* A broken index shows again, and is answered, in xa_stream_process. */
    if (arm(stream) < 0)
        stream->more = true;
}

static int send_one(struct xa_stream *stream, struct xensnd_req *req)
{
    if (!slot_free(stream, 1))
        return -EBUSY;
    put(stream, req, 0);
    send(stream, false);
    return 0;
}

int xa_stream_query(struct xa_stream *stream, const struct xa_stream_ranges *ranges)
{
    struct xensnd_req req;
    int error = unusable(stream);

    if (error < 0)
        return error;
    if (stream->version < 2)
        return -EOPNOTSUPP;
    memset(&req, 0, sizeof(req));
    req.operation = XENSND_OP_HW_PARAM_QUERY;
    req.op.hw_param.formats = ranges->formats;
    req.op.hw_param.rates.min = ranges->rate_min;
    req.op.hw_param.rates.max = ranges->rate_max;
    req.op.hw_param.channels.min = ranges->channels_min;
    req.op.hw_param.channels.max = ranges->channels_max;
    req.op.hw_param.buffer.min = ranges->buffer_min;
    req.op.hw_param.buffer.max = ranges->buffer_max;
    req.op.hw_param.period.min = ranges->period_min;
    req.op.hw_param.period.max = ranges->period_max;
    return send_one(stream, &req);
}

int xa_stream_queried(const struct xa_stream *stream, struct xa_stream_ranges *ranges)
{
    if (!stream->has_ranges)
        return -ENODATA;
    *ranges = stream->ranges;
    return 0;
}

/* Has a buffer of at least `octets` and writes the directory for it. */
static int make_buffer(struct xa_stream *stream, uint32_t octets)
{
    uint32_t pages = xa_pages_for(octets);
    uint32_t directory = xa_pagedir_pages_for(pages);
    void **dir_pages;
    uint8_t *memory;
    int error;

    if (stream->buffer && pages > stream->buffer_pages)
        buffer_free(stream);
    if (!stream->buffer) {
        stream->grefs = calloc(directory + pages, sizeof(*stream->grefs));
        if (!stream->grefs)
            return -ENOMEM;
        error = xa_share_new(stream->hv, stream->backend, directory + pages, stream->grefs,
                             &stream->buffer);
        if (error < 0) {
            free(stream->grefs);
            stream->grefs = NULL;
            stream->buffer = NULL;
            return error;
        }
        stream->directory_pages = directory;
        stream->buffer_pages = pages;
    }
    dir_pages = calloc(directory, sizeof(*dir_pages));
    if (!dir_pages)
        return -ENOMEM;
    memory = xa_share_memory(stream->buffer);
    for (uint32_t i = 0; i < directory; i++)
        dir_pages[i] = memory + (size_t) i * XA_PAGE_SIZE;
    error = xa_pagedir_build(dir_pages, stream->grefs, directory,
                             stream->grefs + stream->directory_pages, pages);
    free(dir_pages);
    return error;
}

static uint8_t *samples(const struct xa_stream *stream)
{
    return (uint8_t *) xa_share_memory(stream->buffer) +
           (size_t) stream->directory_pages * XA_PAGE_SIZE;
}

int xa_stream_open(struct xa_stream *stream, const struct xa_stream_params *params)
{
    const struct xa_pcm_config *config = &stream->config.pcm_config;
    const struct xa_format *format = xa_format_by_code(params->format);
    struct xensnd_req req;
    uint32_t frame;
    int error = unusable(stream);

    if (error < 0)
        return error;
    if (stream->state != XA_STREAM_CLOSED)
        return -EBUSY;
    if (!format || params->channels == 0 ||
        !xa_pcm_config_allows(config, params->rate, params->format, params->channels))
        return -EINVAL;
    frame = xa_format_frame_octets(format, params->channels);
    if (params->period_octets == 0 || params->period_octets % frame != 0 ||
        params->buffer_octets % frame != 0 || params->buffer_octets > config->buffer_max ||
        params->buffer_octets > BUFFER_LIMIT || params->buffer_octets / 2 < params->period_octets)
        return -EINVAL;
    if (!slot_free(stream, 1))
        return -EBUSY;
    error = make_buffer(stream, params->buffer_octets);
    if (error < 0)
        return error;

    memset(&req, 0, sizeof(req));
    req.operation = XENSND_OP_OPEN;
    req.op.open.pcm_rate = params->rate;
    req.op.open.pcm_format = params->format;
    req.op.open.pcm_channels = params->channels;
    req.op.open.buffer_sz = params->buffer_octets;
    req.op.open.gref_directory = stream->grefs[0];
    req.op.open.period_sz = params->period_octets;

    stream->params = *params;
    stream->frame = frame;
    stream->running = false;
    stream->error = 0;
    stream->written = stream->asked = stream->fetched = stream->taken = stream->skipped = 0;
    stream->dropped = stream->mark = 0;
    stream->halt = HALT_NONE;
    stream->unanswered = 0;
    stream->position = stream->position_us = 0;
    stream->heard = stream->ran_on = 0;
    stream->clock_us = stream->clock_position = 0;
    stream->dry = false;
    memset(&stream->stats, 0, sizeof(stream->stats));
    stream->state = XA_STREAM_OPENING;
    stream->open_id = stream->next_id;
    return send_one(stream, &req);
}

int xa_stream_close(struct xa_stream *stream)
{
    struct xensnd_req req;
    int error = unusable(stream);

    if (error < 0)
        return error;
    if (stream->state != XA_STREAM_OPEN && stream->state != XA_STREAM_OPENING)
        return -EBUSY;
    memset(&req, 0, sizeof(req));
    req.operation = XENSND_OP_CLOSE;
    error = send_one(stream, &req);
    if (error == 0) {
        stream->state = XA_STREAM_CLOSING;
        stream->running = false;
    }
    return error;
}

int xa_stream_trigger(struct xa_stream *stream, uint8_t type)
{
    struct xensnd_req req;
    int error = unusable(stream);

    if (error < 0)
        return error;
    if (type > XENSND_OP_TRIGGER_RESUME)
        return -EINVAL;
    if (stream->state != XA_STREAM_OPEN || stream->halt == HALT_ASKED)
        return -EBUSY;
    memset(&req, 0, sizeof(req));
    req.operation = XENSND_OP_TRIGGER;
    req.op.trigger.type = type;
    error = send_one(stream, &req);
    if (error < 0)
        return error;
    stream->running = type == XENSND_OP_TRIGGER_START || type == XENSND_OP_TRIGGER_RESUME;
    if (type == XENSND_OP_TRIGGER_STOP) {
        stream->halt = HALT_ASKED;
        stream->halt_id = req.id;
        stream->mark = stream->written - stream->dropped;
    } else if (stream->halt == HALT_DONE && stream->running) {
        /* At a whole number of buffers there is nothing that STOP could still tell. */
        stream->halt = stream->position % stream->params.buffer_octets ? HALT_ENDING : HALT_NONE;
        stream->halt_id = req.id;
    }
    stream->clock_us = monotonic_us();
    stream->clock_position = stream->position;
    return 0;
}

uint32_t xa_stream_room(const struct xa_stream *stream)
{
    uint32_t room;
    uint32_t settled;

    if (stream->state != XA_STREAM_OPEN || stream->config.capture || stream->error < 0)
        return 0;
    room = xa_position_room(stream->written - stream->dropped, stream->position,
                            stream->params.buffer_octets);
    /* Whatever the position says: what a WRITE without a response covers may not be read yet. */
    settled = stream->params.buffer_octets - stream->unanswered;
    if (room > settled)
        room = settled;
    return room - room % stream->frame;
}

int64_t xa_stream_write(struct xa_stream *stream, const void *data, uint32_t octets)
{
    const uint8_t *from = data;
    uint32_t room = xa_stream_room(stream);
    uint32_t done = 0;
    int error = unusable(stream);

    if (error < 0)
        return error;
    if (stream->config.capture)
        return -EINVAL;
    if (stream->state != XA_STREAM_OPEN)
        return -EBUSY;
    if (stream->error < 0)
        return stream->error;
    octets = octets < room ? octets : room;
    octets -= octets % stream->frame;
    if (octets == 0 || !slot_free(stream, 2))
        return 0;
    while (done < octets) {
        uint32_t offset = (uint32_t) (stream->written % stream->params.buffer_octets);
        uint32_t run = stream->params.buffer_octets - offset;
        struct xensnd_req req;

        if (run > octets - done)
            run = octets - done;
        memcpy(samples(stream) + offset, from + done, run);
        memset(&req, 0, sizeof(req));
        req.operation = XENSND_OP_WRITE;
        req.op.rw.offset = offset;
        req.op.rw.length = run;
        put(stream, &req, run);
        stream->written += run;
        stream->unanswered += run;
        done += run;
    }
    stream->dry = false;
    send(stream, true);
    return (int64_t) done;
}

/* Asks for what was captured and not fetched, one contiguous run at a time. */
static void fetch(struct xa_stream *stream)
{
    uint32_t buffer = stream->params.buffer_octets;
    uint64_t available;
    uint32_t offset, run, room;
    struct xensnd_req req;

    if (!stream->config.capture || stream->state != XA_STREAM_OPEN || stream->error < 0 ||
        stream->asked > stream->fetched || stream->halt == HALT_ASKED)
        return;
    available = stream->position - stream->skipped - stream->asked;
    if (available > buffer) {
        uint64_t lost = available - buffer;

        lost += (stream->frame - lost % stream->frame) % stream->frame;
        stream->skipped += lost;
        stream->stats.overruns++;
        stream->stats.overrun_octets += lost;
        available -= lost;
    }
    offset = (uint32_t) (stream->asked % buffer);
    room = buffer - (uint32_t) (stream->asked - stream->taken);
    run = buffer - offset;
    run = run < available ? run : (uint32_t) available;
    run = run < room ? run : room;
    run -= run % stream->frame;
    if (run == 0 || !slot_free(stream, 1))
        return;
    memset(&req, 0, sizeof(req));
    req.operation = XENSND_OP_READ;
    req.op.rw.offset = offset;
    req.op.rw.length = run;
    put(stream, &req, run);
    stream->asked += run;
    send(stream, false);
}

int64_t xa_stream_read(struct xa_stream *stream, void *data, uint32_t octets)
{
    uint8_t *to = data;
    uint64_t there = stream->fetched - stream->taken;
    uint32_t done = 0;
    int error = unusable(stream);

    if (error < 0)
        return error;
    if (!stream->config.capture)
        return -EINVAL;
    if (stream->state != XA_STREAM_OPEN)
        return -EBUSY;
    octets = octets < there ? octets : (uint32_t) there;
    octets -= octets % stream->frame;
    if (octets == 0)
        return stream->error;
    while (done < octets) {
        uint32_t offset = (uint32_t) (stream->taken % stream->params.buffer_octets);
        uint32_t run = stream->params.buffer_octets - offset;

        if (run > octets - done)
            run = octets - done;
        memcpy(to + done, samples(stream) + offset, run);
        stream->taken += run;
        done += run;
    }
    fetch(stream);
    return (int64_t) done;
}

uint64_t xa_stream_position(const struct xa_stream *stream, uint64_t *time_us)
{
    if (time_us)
        *time_us = stream->position_us;
    return stream->position;
}

uint64_t xa_stream_heard(const struct xa_stream *stream)
{
    return stream->config.capture ? 0 : stream->heard + stream->dropped;
}

uint64_t xa_stream_transferred(const struct xa_stream *stream)
{
    return stream->config.capture ? stream->taken : stream->written;
}

int64_t xa_stream_latency(const struct xa_stream *stream)
{
    bool stopping = stream->halt == HALT_ASKED;
    uint64_t position = stream->position;
    int64_t octets;

    if (stream->frame == 0)
        return 0;
    /* What STOP takes the position on by is no sound; and what was not asked for it drops. */
    if (!stream->config.capture && stopping && position > stream->mark)
        position = stream->mark;
    if (stream->config.capture && stopping)
        octets = (int64_t) (stream->asked - stream->taken);
    else if (stream->config.capture)
        octets = (int64_t) (position - stream->skipped - stream->taken);
    else
        octets = (int64_t) (stream->written - stream->dropped - position);
    return octets / (int64_t) stream->frame;
}

void xa_stream_stats(const struct xa_stream *stream, struct xa_stream_stats *stats)
{
    *stats = stream->stats;
}

static int fault(struct xa_stream *stream, const char *what, uint64_t value)
{
    snprintf(stream->fault, sizeof(stream->fault), "%s (%" PRIu64 ")", what, value);
    return -EPROTO;
}

static void refuse(struct xa_stream *stream, int error)
{
    if (stream->error == 0 && stream->state == XA_STREAM_OPEN) {
        stream->error = error;
        tell(stream, XA_EVENT_FAILED, error);
    }
}

static int take_ranges(struct xa_stream *stream, const struct xensnd_query_hw_param *answer)
{
    struct xa_stream_ranges *ranges = &stream->ranges;

    if (answer->rates.min > answer->rates.max || answer->channels.min > answer->channels.max ||
        answer->buffer.min > answer->buffer.max || answer->period.min > answer->period.max)
        return fault(stream, "HW_PARAM_QUERY answered with a range that is empty", 0);
    ranges->formats = answer->formats;
    ranges->rate_min = answer->rates.min;
    ranges->rate_max = answer->rates.max;
    ranges->channels_min = answer->channels.min;
    ranges->channels_max = answer->channels.max;
    ranges->buffer_min = answer->buffer.min;
    ranges->buffer_max = answer->buffer.max;
    ranges->period_min = answer->period.min;
    ranges->period_max = answer->period.max;
    stream->has_ranges = true;
    return 0;
}

static int take_events(struct xa_stream *stream, uint64_t now_us);

/*
 * STOP was answered: what was written and not heard, or captured and not asked for, is gone.
 * Positions count on from the last one told, wherever STOP took it.
 */
static void forget_dropped(struct xa_stream *stream)
{
    if (stream->config.capture)
        stream->skipped = stream->position - stream->asked;
    else
        stream->dropped += stream->mark - stream->position;
    stream->heard = stream->ran_on = stream->position;
}

/* Follows a stopped stream that says, after the answer, where it stopped. */
static void follow_stop(struct xa_stream *stream, uint64_t position)
{
    uint64_t on = position - stream->position;

    if (stream->config.capture)
        stream->skipped += on;
    else
        stream->dropped -= on;
}

/* The response to the last STOP, or to the START after it. */
static int take_halt(struct xa_stream *stream, int error)
{
    bool stop = stream->halt == HALT_ASKED;

    /* What was told before the response is still to be judged by the state before it. */
    if (take_events(stream, monotonic_us()) < 0)
        return -EPROTO;
    if (stop && error == 0) {
        forget_dropped(stream);
        stream->halt = HALT_DONE;
    } else if (stop) {
        stream->halt = HALT_NONE;
    } else if (stream->halt == HALT_ENDING) { /* else a callback has sent another STOP */
        stream->halt = error == 0 ? HALT_NONE : HALT_DONE;
    }
    return 0;
}

static int respond(struct xa_stream *stream, const struct xensnd_resp *resp)
{
    struct pending *pending = &stream->pending[resp->id % XA_RING_ENTRIES];
    int error = resp->status;
    uint32_t length;

    if (!pending->used || pending->id != resp->id)
        return fault(stream, "response to a request that was not made, id", resp->id);
    if (pending->operation != resp->operation)
        return fault(stream, "response with another operation", resp->operation);
    if (resp->status > 0 || resp->status < -4095)
        return fault(stream, "response with an impossible status", (uint32_t) resp->status);
    length = pending->length;
    pending->used = false;
    stream->pending_count--;
    if (resp->operation != XENSND_OP_WRITE)
        stream->pending_other--;

    switch (resp->operation) {
    case XENSND_OP_OPEN:
        if (stream->state == XA_STREAM_OPENING && resp->id == stream->open_id)
            stream->state = error == 0 ? XA_STREAM_OPEN : XA_STREAM_CLOSED;
        else /* closed meanwhile */
            error = -ECANCELED;
        tell(stream, XA_EVENT_OPENED, error);
        break;
    case XENSND_OP_CLOSE:
        if (stream->state == XA_STREAM_CLOSING) {
            stream->state = XA_STREAM_CLOSED;
            tell(stream, XA_EVENT_CLOSED, error);
        }
        break;
    case XENSND_OP_TRIGGER:
        if ((stream->halt == HALT_ASKED || stream->halt == HALT_ENDING) &&
            resp->id == stream->halt_id && take_halt(stream, error) < 0)
            return -EPROTO;
        tell(stream, XA_EVENT_TRIGGERED, error);
        break;
    case XENSND_OP_HW_PARAM_QUERY:
        if (error == 0 && take_ranges(stream, &resp->resp.hw_param) < 0)
            return -EPROTO;
        tell(stream, XA_EVENT_QUERIED, error);
        break;
    case XENSND_OP_WRITE:
        stream->unanswered -= length;
        if (error < 0)
            refuse(stream, error);
        break;
    default: /* XENSND_OP_READ: nothing else is ever put */
        if (error < 0) {
            refuse(stream, error);
        } else {
            stream->fetched += length;
            tell(stream, XA_EVENT_DATA, 0);
        }
        break;
    }
    return 0;
}

/*
 * Takes a new position for what was heard, unless silence is in it. A dry backend's position runs
 * on and then stands still until as much has been played: it is right again once it moves.
 */
static void follow_heard(struct xa_stream *stream)
{
    uint64_t answered = stream->written - stream->unanswered - stream->dropped;

    if ((int64_t) (stream->position - answered) > 0) {
        stream->heard = answered;
        stream->ran_on = stream->position;
    } else if (stream->position > stream->ran_on) {
        stream->heard = stream->position;
    }
}

/*
 * Whether a position is one that STOP may have taken the stream to. A backend may take it up to a
 * whole number of buffers, so that a guest that counts from 0 after it (Linux does) is right; it
 * tells so before STOP's response, or after it when the event page was full.
 */
static bool told_by_stop(const struct xa_stream *stream, uint64_t position)
{
    return stream->halt == HALT_ASKED || stream->halt == HALT_DONE ||
           (stream->halt == HALT_ENDING && position % stream->params.buffer_octets == 0);
}

static int take_position(struct xa_stream *stream, uint64_t position, uint64_t now_us)
{
    bool stopped = told_by_stop(stream, position);
    uint64_t written = stream->config.capture ? position : stream->written - stream->dropped;
    uint64_t most = stopped && !stream->config.capture ? stream->mark : written;
    uint32_t buffer = stream->params.buffer_octets;

    if (!xa_position_plausible(position, stream->position, most < written ? written : most,
                               stream->halt == HALT_NONE ? buffer : 2 * buffer))
        return fault(stream, "position that cannot be true", position);
    if (stopped && stream->halt != HALT_ASKED)
        follow_stop(stream, position);
    stream->position = position;
    stream->position_us = now_us;
    if (stopped)
        stream->heard = stream->ran_on = position;
    else
        follow_heard(stream);
    stream->stats.events++;
    if (position > written && !stopped && !stream->dry) {
        stream->dry = true;
        stream->stats.underruns++;
    }
    return 0;
}

static int take_events(struct xa_stream *stream, uint64_t now_us)
{
    bool moved = false;

    for (unsigned i = 0; i < EVENTS_AT_ONCE; i++) {
        struct xensnd_evt evt;
        int got = xa_evtpage_front_get(&stream->evtpage, &evt);

        if (got < 0)
            return fault(stream, "event page with an impossible index or event id", 0);
        if (got == 0) {
            if (moved) {
                tell(stream, XA_EVENT_POSITION, 0);
                fetch(stream);
            }
            return 0;
        }
        /* An event of another type is of a later protocol; one while not open is of the last OPEN.
         */
        if (evt.type != XENSND_EVT_CUR_POS || stream->state != XA_STREAM_OPEN)
            continue;
        if (take_position(stream, evt.op.cur_pos.position, now_us) < 0)
            return -EPROTO;
        moved = true;
    }
    if (moved) {
        tell(stream, XA_EVENT_POSITION, 0);
        fetch(stream);
    }
    stream->more = true;
    return 0;
}

static int take_responses(struct xa_stream *stream)
{
    struct xensnd_resp resp;
    bool freed = false;

    /* A callback may put a request anew for each response, and a backend answer it at once. */
    for (unsigned i = 0; i < XA_RING_ENTRIES; i++) {
        int got = xa_front_ring_get(&stream->ring, &resp);

        if (got < 0)
            return fault(stream, "request ring with an impossible index", 0);
        if (got == 0)
            break;
        if (i + 1 == XA_RING_ENTRIES)
            stream->more = true;
        freed = freed || resp.operation == XENSND_OP_WRITE;
        if (respond(stream, &resp) < 0)
            return -EPROTO;
    }
    if (freed && stream->state == XA_STREAM_OPEN && stream->error == 0 && !stream->running)
        tell(stream, XA_EVENT_POSITION, 0);
    fetch(stream);
    return 0;
}

static uint64_t period_us(const struct xa_stream *stream)
{
    return xa_ns_until(stream->params.period_octets / stream->frame, stream->params.rate) / 1000 +
           1;
}

static bool clocked(const struct xa_stream *stream)
{
    return stream->version == 1 && stream->running && stream->state == XA_STREAM_OPEN;
}

static void reckon_position(struct xa_stream *stream, uint64_t now_us)
{
    uint64_t frames, position;

    if (!clocked(stream) || now_us < stream->clock_us)
        return;
    frames = xa_frames_in((now_us - stream->clock_us) * 1000, stream->params.rate);
    position = stream->clock_position + frames * stream->frame;
    if (!stream->config.capture && position >= stream->written - stream->dropped) {
        /* Dry: the clock begins again with what is written next. */
        position = stream->written - stream->dropped;
        stream->clock_position = position;
        stream->clock_us = now_us;
    }
    if (position > stream->position) {
        stream->position = position;
        stream->position_us = now_us;
        follow_heard(stream);
        stream->stats.events++;
        tell(stream, XA_EVENT_POSITION, 0);
        fetch(stream);
    }
}

static uint64_t oldest_deadline(const struct xa_stream *stream)
{
    uint64_t oldest = UINT64_MAX;

    if (stream->pending_count == 0 || stream->state == XA_STREAM_DEAD)
        return UINT64_MAX;
    for (unsigned i = 0; i < XA_RING_ENTRIES; i++) {
        const struct pending *pending = &stream->pending[i];

        if (pending->used && pending->deadline_us < oldest)
            oldest = pending->deadline_us;
    }
    return oldest;
}

uint64_t xa_stream_deadline(const struct xa_stream *stream)
{
    uint64_t deadline;

    if (stream->state == XA_STREAM_OFFLINE)
        return UINT64_MAX;
    if (stream->more)
        return 0;
    deadline = oldest_deadline(stream);
    if (clocked(stream)) {
        uint64_t last =
            stream->position_us > stream->clock_us ? stream->position_us : stream->clock_us;

        if (last + period_us(stream) < deadline)
            deadline = last + period_us(stream);
    }
    return deadline;
}

/* One of them: if another is pending too, the file descriptor stays readable. To ask whether there
 * is would be a system call for each period. */
static int clear_pending_event(struct xa_stream *stream)
{
    uint32_t port;
    int got = xa_evtchn_pending(stream->evtchn, &port);

    if (got > 0)
        stream->stats.wakeups++;
    return got < 0 ? got : 0;
}

int xa_stream_process(struct xa_stream *stream, bool ready, uint64_t now_us)
{
    if (!stream->evtchn)
        return 0;
    if (ready) {
        int error = clear_pending_event(stream);

        if (error < 0)
            return fault(stream, "event channel failed, errno", (uint64_t) -error);
    }
    if (stream->state == XA_STREAM_OFFLINE || stream->state == XA_STREAM_DEAD)
        return 0;
    stream->more = false;
    if (take_responses(stream) < 0 || take_events(stream, now_us) < 0)
        return -EPROTO;
    reckon_position(stream, now_us);
    if (arm(stream) < 0)
        return fault(stream, "request ring with an impossible index", 0);
    if (!stream->more && now_us >= oldest_deadline(stream)) {
        stream->state = XA_STREAM_DEAD;
        stream->running = false;
        tell(stream, XA_EVENT_FAILED, -ETIMEDOUT);
    }
    return 0;
}
