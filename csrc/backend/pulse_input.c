/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pulse input: a record stream on a PulseAudio server (pulse_link.h), whose clock it goes by.
 * The link's thread puts what arrives into the spool and wakes the engine.
 *
 * When nothing has arrived for a while (no server, or one that does not answer or is suspended),
 * the guest records silence in real time until something does.
 */
#ifdef XA_HAVE_PULSE

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "backend/clock.h"
#include "backend/pulse_link.h"
#include "backend/spool.h"

/* How late samples may be, nanoseconds: besides a fragment's own time. */
#define LATE UINT64_C(200000000)

struct pulse_input {
    struct xa_input base;
    struct xa_pulse_link link;
    struct xa_spool spool;
    const struct xa_format *format;
    uint32_t rate, frame_octets;
    uint32_t fragment; /* frames */

    /* The engine's. */
    struct xa_clock clock; /* while nothing arrives */
    bool running;
    bool silent;        /* it goes by `clock` */
    uint64_t heard_at;  /* when something arrived last */
    uint32_t seen_fill; /* octets */
};

/* ---- on the link's thread ---- */

static struct pulse_input *input_of(struct xa_pulse_link *link)
{
    return (struct pulse_input *) ((char *) link - offsetof(struct pulse_input, link));
}

static int connect_record(struct xa_pulse_link *link, const char *device, pa_stream_flags_t flags)
{
    struct pulse_input *in = input_of(link);
    pa_buffer_attr wanted = {.maxlength = (uint32_t) -1,
                             .tlength = (uint32_t) -1,
                             .prebuf = (uint32_t) -1,
                             .minreq = (uint32_t) -1,
                             .fragsize = in->fragment * in->frame_octets};

    return pa_stream_connect_record(link->stream, device, &wanted, flags);
}

static void changed(struct xa_pulse_link *link, bool up)
{
    (void) link;
    (void) up;
}

/* Puts samples, or silence for a hole (`data` is NULL), as far as there is room. */
static void put(struct pulse_input *in, const uint8_t *data, size_t octets)
{
    uint8_t silence[4096];

    while (octets >= in->frame_octets) {
        uint32_t room = xa_spool_room(&in->spool);
        uint32_t some = octets < room ? (uint32_t) octets : room;

        if (!data && some > sizeof(silence))
            some = sizeof(silence);
        some -= some % in->frame_octets;
        if (!some)
            return; /* the guest does not read */
        if (!data)
            xa_format_silence(in->format, silence, some);
        xa_spool_put(&in->spool, data ? data : silence, some);
        if (data)
            data += some;
        octets -= some;
    }
}

static void fetch(struct pulse_input *in, bool keep)
{
    pa_stream *stream = in->link.stream;
    const void *data;
    size_t octets;

    while (pa_stream_readable_size(stream) != (size_t) -1 && pa_stream_readable_size(stream) > 0) {
        if (pa_stream_peek(stream, &data, &octets) < 0 || !octets)
            return;
        if (keep)
            put(in, data, octets);
        pa_stream_drop(stream);
    }
}

static uint64_t run(struct xa_pulse_link *link, uint64_t now)
{
    struct pulse_input *in = input_of(link);
    bool running = atomic_load_explicit(&link->want, memory_order_acquire) == XA_PULSE_RUNNING;

    (void) now;
    fetch(in, running && !link->corked);
    if (link->corked == running)
        xa_pulse_link_cork(link, !running);
    if (xa_spool_feeds(&in->spool))
        eventfd_write(link->wakes.engine, 1);
    return UINT64_MAX;
}

static bool finished(struct xa_pulse_link *link, uint64_t now)
{
    (void) link;
    (void) now;
    return true;
}

static const struct xa_pulse_link_ops link_ops = {
    .connect = connect_record,
    .run = run,
    .changed = changed,
    .finished = finished,
};

/* ---- on the engine's ---- */

static uint64_t ns_of(const struct pulse_input *in, uint64_t frames)
{
    return frames * 1000000000u / in->rate;
}

/* What arrives in time arrives until then. */
static uint64_t late_at(const struct pulse_input *in)
{
    return in->heard_at + LATE + 2 * ns_of(in, in->fragment);
}

static void input_start(struct xa_input *input, uint64_t now)
{
    struct pulse_input *in = (struct pulse_input *) input;

    xa_spool_drop(&in->spool, xa_spool_fill(&in->spool));
    in->running = true;
    in->seen_fill = 0;
    in->heard_at = now;
    /* Without a server there is nothing to wait for. */
    in->silent = !atomic_load_explicit(&in->link.up, memory_order_acquire);
    xa_clock_start(&in->clock, now);
    xa_pulse_link_want(&in->link, XA_PULSE_RUNNING);
}

static void input_stop(struct xa_input *input)
{
    struct pulse_input *in = (struct pulse_input *) input;

    in->running = false;
    xa_pulse_link_want(&in->link, XA_PULSE_STOPPED);
}

static uint64_t input_ready(struct xa_input *input, uint64_t now)
{
    struct pulse_input *in = (struct pulse_input *) input;
    uint32_t fill = xa_spool_fill(&in->spool);

    if (!in->running)
        return 0;
    if (fill > in->seen_fill) {
        in->heard_at = now;
        in->seen_fill = fill;
        in->silent = false;
    } else if (!in->silent && fill < in->frame_octets && now >= late_at(in)) {
        in->silent = true;
        xa_clock_start(&in->clock, in->heard_at);
    }
    return in->silent ? xa_clock_due(&in->clock, now) : fill / in->frame_octets;
}

static void input_read(struct xa_input *input, void *frames, uint32_t count)
{
    struct pulse_input *in = (struct pulse_input *) input;
    uint32_t octets = count * in->frame_octets;

    if (in->silent) {
        in->clock.passed += count;
        xa_format_silence(in->format, frames, octets);
    } else {
        xa_spool_get(&in->spool, frames, octets);
        in->seen_fill -= octets;
    }
}

static uint64_t input_when(struct xa_input *input, uint64_t frames)
{
    struct pulse_input *in = (struct pulse_input *) input;
    uint32_t fill = xa_spool_fill(&in->spool);

    /* From here on the thread wakes the engine when it puts more. */
    if (fill >= in->frame_octets || !xa_spool_starve(&in->spool, fill))
        return 0;
    return in->silent ? xa_clock_when(&in->clock, frames) : late_at(in);
}

static const char *input_trouble(struct xa_input *input)
{
    return atomic_load_explicit(&((struct pulse_input *) input)->link.trouble,
                                memory_order_relaxed);
}

static void input_close(struct xa_input *input)
{
    struct pulse_input *in = (struct pulse_input *) input;

    xa_pulse_link_close(&in->link);
    xa_spool_free(&in->spool);
    free(in);
}

static const struct xa_input_ops input_ops = {
    .start = input_start,
    .stop = input_stop,
    .ready = input_ready,
    .read = input_read,
    .when = input_when,
    .trouble = input_trouble,
    .close = input_close,
};

int xa_input_pulse_open(const struct xa_route *route, const struct xa_pcm_params *params,
                        const struct xa_endpoint_wakes *wakes, struct xa_input **input)
{
    struct pulse_input *in = calloc(1, sizeof(*in));
    uint32_t period = params->period_octets ? params->period_octets : params->buffer_octets / 4;
    int error;

    if (!in)
        return -ENOMEM;
    in->base.ops = &input_ops;
    in->link.ops = &link_ops;
    in->format = params->format;
    in->rate = in->clock.rate = params->rate;
    in->frame_octets = params->frame_octets;
    /* An event is due one frame past a period. */
    in->fragment = period / params->frame_octets + 1;
    error = xa_spool_init(&in->spool,
                          (uint64_t) params->rate * params->frame_octets * XA_ENDPOINT_SECONDS);
    if (!error)
        error = xa_pulse_link_open(&in->link, route, params, wakes);
    if (error) {
        xa_spool_free(&in->spool);
        free(in);
        return error;
    }
    *input = &in->base;
    return 0;
}

#endif
