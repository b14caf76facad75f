/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pulse output: a playback stream on a PulseAudio server (pulse_link.h).
 *
 * The engine gives the server half of the guest's buffer in advance, through the spool; the link's
 * thread passes it on at once, as far as the server has room. What was heard is reckoned from the
 * server's timing reports (playhead.h), and paces the guest. While there is no server, or one that
 * does not answer or is suspended, the playhead goes on by the clock: the guest plays on in real
 * time, unheard, and what nobody heard then is never played later.
 *
 * A guest that is late makes a gap in the server too, which keeps what comes then (prebuf is one
 * frame, not 0: with 0 it drops as much as was missing).
 */
#ifdef XA_HAVE_PULSE

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "backend/clock.h"
#include "backend/playhead.h"
#include "backend/pulse_link.h"
#include "backend/spool.h"

#define MS UINT64_C(1000000)

/* Timing reports are asked for more and more seldom, from one to the other. */
#define REPORT_SOON (10 * MS)
#define REPORT_SELDOM (1000 * MS)

/* How long the position waits for the first sound after a start. Then it goes by the clock: what
 * the guest is told is never late for long, or it would take us for dead. */
#define START_PATIENCE (20 * MS)

/* What is too late by more is not played, milliseconds. */
#define LATE_MS 20

/* A server is to ask for more at the latest when it has played so much, milliseconds. */
#define MINREQ_MOST_MS 10

/* Less than that no server plays without gaps, whatever the guest's buffer is. Milliseconds. */
#define AHEAD_LEAST_MS 4

/* A device that was suspended for longer than that went on without what it was given before. */
#define SUSPENDED_LONG (200 * MS)

/* What a report says: guarded by `mutex`, which the thread holds for an instant, and which the
 * engine only tries to take. */
struct report {
    bool fresh;
    uint64_t heard; /* frames of the spool, since the beginning */
    uint64_t when;
    uint64_t least; /* frames that the server and its device are to have, or 0: `ahead` will do */
};

struct pulse_output {
    struct xa_output base;
    struct xa_pulse_link link;
    struct xa_spool spool;
    const struct xa_format *format;
    uint32_t rate, frame_octets;
    uint32_t ahead;  /* frames that the server is asked to hold */
    uint32_t block;  /* of them, frames that the device is to take at once */
    uint32_t stored; /* frames that fit into the server and its device, if that is as asked */

    /* The engine's. */
    struct xa_playhead head;
    uint64_t spooled;    /* frames */
    uint64_t skipped;    /* of head.given: frames that were given to nobody */
    uint64_t skipped_at; /* `spooled` when that happened last */
    uint64_t looked;     /* heard when last asked how many it wants */
    uint64_t least;      /* of the last report */
    uint64_t lost;       /* frames */

    pthread_mutex_t mutex;
    struct report report;
    _Atomic bool stale; /* the spool was full: frames that should follow its last one are missing */
    _Atomic bool began; /* the engine started: it waits for a report */
    _Atomic uint64_t dropped; /* frames; the thread's */

    /* The thread's. */
    uint64_t taken; /* frames got from the spool, or dropped there */
    bool dry;       /* the server says that it has none */
    bool held;      /* it holds some that are not to be heard yet */
    bool asking;    /* for a report */
    bool awaited;   /* by the engine: the first since it started */
    bool started;   /* the server plays, since it was primed */
    bool priming;
    uint64_t report_at, report_every;
    uint64_t drained_at;      /* stopping: when all will have been heard; 0: not known yet */
    uint64_t suspended_since; /* 0: it is not */
};

static uint64_t ns_of(const struct pulse_output *out, uint64_t frames)
{
    return frames * 1000000000u / out->rate;
}

/* ---- on the link's thread ---- */

static struct pulse_output *output_of(struct xa_pulse_link *link)
{
    return (struct pulse_output *) ((char *) link - offsetof(struct pulse_output, link));
}

static void drop(struct pulse_output *out, uint32_t octets)
{
    xa_spool_drop(&out->spool, octets);
    out->taken += octets / out->frame_octets;
    atomic_fetch_add_explicit(&out->dropped, octets / out->frame_octets, memory_order_relaxed);
}

/* Soon, and then again and again. */
static void want_reports(struct pulse_output *out, uint64_t now)
{
    out->report_at = now;
    out->report_every = REPORT_SOON;
}

/* What the server did not take in time is not played late: the newest is kept, up to the `room`
 * that it has, in frames. */
static void drop_late(struct pulse_output *out, uint64_t room)
{
    uint32_t fill = xa_spool_fill(&out->spool) / out->frame_octets;
    uint32_t keep = room < out->ahead ? (uint32_t) room : out->ahead;
    uint64_t most = out->report.least > out->ahead ? out->report.least : out->ahead;

    if (atomic_exchange_explicit(&out->stale, false, memory_order_acquire))
        keep = 0; /* with a gap before what is new */
    else if (fill <= most + out->rate / 1000 * LATE_MS)
        return;
    drop(out, (fill - keep) * out->frame_octets);
    /* The engine takes it for given, and would wait until it is heard. */
    out->awaited = true;
    want_reports(out, xa_monotonic_ns());
}

static void on_report(pa_stream *stream, int success, void *user)
{
    struct pulse_output *out = user;
    const pa_timing_info *info;
    uint64_t room;
    int64_t delay;

    out->asking = false;
    info = pa_stream_get_timing_info(stream);
    if (!success || !info || !info->playing || out->dry || out->link.corked ||
        info->read_index_corrupt || info->write_index_corrupt)
        return;
    delay = (info->write_index - info->read_index) / out->frame_octets +
            ((int64_t) info->sink_usec - (int64_t) info->transport_usec) * out->rate / 1000000;
    if (delay < 0)
        delay = 0;
    if ((uint64_t) delay > out->taken)
        return;
    pthread_mutex_lock(&out->mutex);
    out->report.fresh = true;
    out->report.heard = out->taken - (uint64_t) delay;
    out->report.when = xa_monotonic_ns();
    room = pa_stream_writable_size(stream) / out->frame_octets;
    out->report.least = room + (uint64_t) delay > out->stored
                            ? room + (uint64_t) delay + out->ahead - out->stored
                            : 0;
    pthread_mutex_unlock(&out->mutex);
    if (out->awaited)
        eventfd_write(out->link.wakes.engine, 1);
    out->awaited = false;
}

static void forget_reports(struct pulse_output *out)
{
    pthread_mutex_lock(&out->mutex);
    out->report.fresh = false;
    pthread_mutex_unlock(&out->mutex);
}

static void on_underflow(pa_stream *stream, void *user)
{
    (void) stream;
    ((struct pulse_output *) user)->dry = true;
}

static void on_started(pa_stream *stream, void *user)
{
    struct pulse_output *out = user;

    (void) stream;
    out->dry = false;
    out->started = out->awaited = true;
    want_reports(out, xa_monotonic_ns());
}

static void on_moved(pa_stream *stream, void *user)
{
    (void) stream;
    want_reports(user, xa_monotonic_ns());
}

static int connect_playback(struct xa_pulse_link *link, const char *device, pa_stream_flags_t flags)
{
    struct pulse_output *out = output_of(link);
    pa_buffer_attr wanted = {.maxlength = (uint32_t) -1,
                             .tlength = out->stored * out->frame_octets,
                             .prebuf = out->frame_octets,
                             .minreq = (out->stored / 2 - out->block) * out->frame_octets,
                             .fragsize = (uint32_t) -1};

    pa_stream_set_underflow_callback(link->stream, on_underflow, out);
    pa_stream_set_started_callback(link->stream, on_started, out);
    pa_stream_set_moved_callback(link->stream, on_moved, out);
    return pa_stream_connect_playback(link->stream, device, &wanted, flags, NULL, NULL);
}

static void changed(struct xa_pulse_link *link, bool up)
{
    struct pulse_output *out = output_of(link);

    if (up)
        drop(out, xa_spool_fill(&out->spool)); /* of the time before, and so too late */
    else
        forget_reports(out);
    out->dry = out->held = out->asking = false;
    out->drained_at = out->suspended_since = 0;
}

/* Gives the server what it asks for, as far as it is there. */
static void feed(struct pulse_output *out)
{
    pa_stream *stream = out->link.stream;
    size_t asked = pa_stream_writable_size(stream);

    if (asked != (size_t) -1 && asked > 0)
        drop_late(out, asked / out->frame_octets);
    for (;;) {
        uint32_t fill = xa_spool_fill(&out->spool);
        size_t room = pa_stream_writable_size(stream), octets = fill < room ? fill : room;
        void *data;

        if (room == (size_t) -1 || room < out->frame_octets)
            return;
        if (fill < out->frame_octets) {
            out->link.patient = xa_spool_starve(&out->spool, fill);
            if (out->link.patient)
                return;
            continue;
        }
        octets -= octets % out->frame_octets;
        if (pa_stream_begin_write(stream, &data, &octets) < 0)
            return;
        octets -= octets % out->frame_octets;
        xa_spool_get(&out->spool, data, (uint32_t) octets);
        out->taken += octets / out->frame_octets;
        if (pa_stream_write(stream, data, octets, NULL, 0, PA_SEEK_RELATIVE) < 0)
            return;
    }
}

static void flush(struct pulse_output *out)
{
    pa_operation *operation = pa_stream_flush(out->link.stream, NULL, NULL);

    if (operation)
        pa_operation_unref(operation);
    forget_reports(out);
    drop(out, xa_spool_fill(&out->spool));
}

/* After a long suspension what the server still has is old. */
static void watch_suspension(struct pulse_output *out, uint64_t now)
{
    if (out->link.corked || pa_stream_is_suspended(out->link.stream) <= 0) {
        if (out->suspended_since && !out->link.corked &&
            now - out->suspended_since >= SUSPENDED_LONG)
            flush(out);
        if (out->suspended_since)
            want_reports(out, now);
        out->suspended_since = 0;
    } else if (!out->suspended_since) {
        out->suspended_since = now;
    }
}

static void hold(struct pulse_output *out)
{
    if (!out->link.corked)
        xa_pulse_link_cork(&out->link, true);
    out->held = true;
}

/* Lets what was given be heard, then has the server rest. Until when. */
static uint64_t drain(struct pulse_output *out, uint64_t now)
{
    if (out->held) {
        flush(out);
        out->held = false;
    }
    if (out->link.corked)
        return UINT64_MAX;
    feed(out);
    if (xa_spool_fill(&out->spool) >= out->frame_octets)
        return UINT64_MAX; /* the server asks for it */
    if (!out->drained_at) {
        uint64_t delay = out->report.least > out->ahead ? out->report.least : out->ahead;

        out->drained_at = now + ns_of(out, delay) + 20 * MS;
    }
    if (now < out->drained_at)
        return out->drained_at;
    xa_pulse_link_cork(&out->link, true);
    return UINT64_MAX;
}

/*
 * Devices take a while to wake up, which would cost the beginning of the sound: so the stream plays
 * silence first, while the guest still waits for it to be opened.
 */
static bool prepare(struct xa_pulse_link *link, bool in_time)
{
    struct pulse_output *out = output_of(link);
    size_t octets = (size_t) out->ahead * out->frame_octets;

    if (!out->priming) {
        void *silence;

        if (pa_stream_begin_write(link->stream, &silence, &octets) < 0)
            return true;
        octets -= octets % out->frame_octets;
        xa_format_silence(out->format, silence, octets);
        if (pa_stream_write(link->stream, silence, octets, NULL, 0, PA_SEEK_RELATIVE) < 0)
            return true;
        xa_pulse_link_cork(link, false);
        out->priming = true;
        out->started = false;
    }
    if (!out->started && in_time)
        return false;
    xa_pulse_link_cork(link, true);
    flush(out);
    return true;
}

static uint64_t report(struct pulse_output *out, uint64_t now)
{
    pa_operation *operation;

    if (out->asking)
        return UINT64_MAX;
    if (now < out->report_at)
        return out->report_at;
    out->report_at = now + out->report_every;
    out->report_every *= 2;
    if (out->report_every > REPORT_SELDOM)
        out->report_every = REPORT_SELDOM;
    operation = pa_stream_update_timing_info(out->link.stream, on_report, out);
    if (operation) {
        out->asking = true;
        pa_operation_unref(operation);
    }
    return out->report_at;
}

static uint64_t run(struct xa_pulse_link *link, uint64_t now)
{
    struct pulse_output *out = output_of(link);
    enum xa_pulse_want want = atomic_load_explicit(&link->want, memory_order_acquire);
    uint64_t deadline;

    watch_suspension(out, now);
    if (want == XA_PULSE_STOPPED)
        return drain(out, now);
    out->drained_at = 0;
    if (want == XA_PULSE_HELD) {
        hold(out);
        return UINT64_MAX;
    }
    out->held = false;
    if (atomic_exchange_explicit(&out->began, false, memory_order_acquire)) { /* output_start */
        out->awaited = true;
        want_reports(out, now);
    }
    feed(out);
    if (link->corked) {
        xa_pulse_link_cork(link, false);
        out->dry = false;
        want_reports(out, now);
    }
    deadline = report(out, now);
    /* When a report comes matters, and when it plays again: the guest's position stands still. */
    if (out->asking || out->dry || out->awaited)
        link->patient = false;
    return deadline;
}

static bool finished(struct xa_pulse_link *link, uint64_t now)
{
    (void) now;
    return link->corked;
}

static const struct xa_pulse_link_ops link_ops = {
    .connect = connect_playback,
    .prepare = prepare,
    .run = run,
    .changed = changed,
    .finished = finished,
};

/* ---- on the engine's ---- */

static void output_start(struct xa_output *output, uint64_t now)
{
    struct pulse_output *out = (struct pulse_output *) output;
    bool up = atomic_load_explicit(&out->link.up, memory_order_acquire);

    /* The first report, which comes as soon as the server plays, moves it. */
    xa_playhead_start(&out->head, now, up ? START_PATIENCE : 0);
    atomic_store_explicit(&out->began, true, memory_order_release); /* run */
    xa_pulse_link_want(&out->link, XA_PULSE_RUNNING);
}

static void output_stop(struct xa_output *output, uint64_t now, bool held)
{
    struct pulse_output *out = (struct pulse_output *) output;

    xa_playhead_stop(&out->head, now, held);
    xa_pulse_link_want(&out->link, held ? XA_PULSE_HELD : XA_PULSE_STOPPED);
}

static void look_for_report(struct pulse_output *out)
{
    struct report report;

    if (pthread_mutex_trylock(&out->mutex))
        return;
    report = out->report;
    out->report.fresh = false;
    pthread_mutex_unlock(&out->mutex);
    /* Frames from before some were given to nobody cannot be placed any more. */
    if (!report.fresh || report.heard < out->skipped_at)
        return;
    out->least = report.least;
    xa_playhead_report(&out->head, report.heard + out->skipped, report.when);
}

static uint64_t output_wants(struct xa_output *output, uint64_t now)
{
    struct pulse_output *out = (struct pulse_output *) output;
    uint64_t ahead = out->ahead;

    if (!out->head.running)
        return 0;
    look_for_report(out);
    out->looked = xa_playhead_heard(&out->head, now);
    /* A device that stores more than it was asked to must be kept filled nevertheless. */
    if (out->least > ahead)
        ahead = out->least;
    return out->looked + ahead > out->head.given ? out->looked + ahead - out->head.given : 0;
}

static uint64_t output_lacks(struct xa_output *output, uint64_t now)
{
    return xa_playhead_dry(&((struct pulse_output *) output)->head, now);
}

static void skip(struct pulse_output *out, uint32_t frames)
{
    out->skipped += frames;
    out->skipped_at = out->spooled;
    out->lost += frames;
}

static void output_write(struct xa_output *output, const void *frames, uint32_t count)
{
    struct pulse_output *out = (struct pulse_output *) output;
    uint32_t octets = count * out->frame_octets;

    out->head.given += count;
    if (!atomic_load_explicit(&out->link.up, memory_order_acquire)) {
        skip(out, count);
        return;
    }
    if (xa_spool_room(&out->spool) < octets) {
        /* The server has not asked for a long time: what it did not take is too late now. */
        atomic_store_explicit(&out->stale, true, memory_order_release); /* drop_late */
        skip(out, count);
        return;
    }
    xa_spool_put(&out->spool, frames, octets);
    out->spooled += count;
    if (xa_spool_feeds(&out->spool))
        xa_pulse_link_wake(&out->link);
}

static void output_silence(struct xa_output *output, uint32_t count)
{
    xa_playhead_skip(&((struct pulse_output *) output)->head, count);
}

static uint32_t output_delay(struct xa_output *output, uint64_t now)
{
    struct pulse_output *out = (struct pulse_output *) output;

    return (uint32_t) (out->head.given - xa_playhead_heard(&out->head, now));
}

static uint64_t output_when(struct xa_output *output, uint64_t frames)
{
    struct pulse_output *out = (struct pulse_output *) output;
    uint64_t heard = out->looked + frames, low = out->block + out->block / 4;

    look_for_report(out);
    /* What the device takes at once must be there. */
    if (out->head.given > out->looked + low && out->head.given - low < heard)
        heard = out->head.given - low;
    return xa_playhead_when(&out->head, heard);
}

static uint64_t output_lost(struct xa_output *output)
{
    struct pulse_output *out = (struct pulse_output *) output;

    return out->lost + atomic_load_explicit(&out->dropped, memory_order_relaxed);
}

static const char *output_trouble(struct xa_output *output)
{
    return atomic_load_explicit(&((struct pulse_output *) output)->link.trouble,
                                memory_order_relaxed);
}

static void output_close(struct xa_output *output)
{
    struct pulse_output *out = (struct pulse_output *) output;

    xa_pulse_link_close(&out->link);
    pthread_mutex_destroy(&out->mutex);
    xa_spool_free(&out->spool);
    free(out);
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
    .trouble = output_trouble,
    .close = output_close,
};

/* What the server and its device are to hold for a guest's buffer. */
static void choose_sizes(struct pulse_output *out, const struct xa_pcm_params *params)
{
    uint32_t buffer = params->buffer_octets / params->frame_octets;
    uint32_t period = params->period_octets / params->frame_octets;
    uint32_t minreq;

    out->ahead = buffer / 2 < params->rate ? buffer / 2 : params->rate;
    if (out->ahead < params->rate * AHEAD_LEAST_MS / 1000 + 1)
        out->ahead = params->rate * AHEAD_LEAST_MS / 1000 + 1;
    /* The rest is for what comes between two events. */
    out->block = out->ahead / 3;
    if (period && out->ahead > period && (out->ahead - period) / 2 > out->block)
        out->block = (out->ahead - period) / 2;
    /*
     * Of tlength less two minreq the device is given half, to take at once; the rest the server
     * stores itself (protocol-native.c, fix_playback_buffer_attr). With such a minreq that is
     * `ahead`, and as much as it may have played without asking for more: so what the engine gives
     * need not wait. But not much, because it may all be too late when a device begins to play.
     */
    minreq = out->ahead - out->block;
    if (minreq > params->rate / 1000 * MINREQ_MOST_MS)
        minreq = params->rate / 1000 * MINREQ_MOST_MS;
    out->stored = 2 * (out->block + minreq);
}

int xa_output_pulse_open(const struct xa_route *route, const struct xa_pcm_params *params,
                         const struct xa_endpoint_wakes *wakes, struct xa_output **output)
{
    struct pulse_output *out = calloc(1, sizeof(*out));
    uint64_t stored;
    int error;

    if (!out)
        return -ENOMEM;
    out->base.ops = &output_ops;
    out->link.ops = &link_ops;
    out->format = params->format;
    out->rate = out->head.rate = params->rate;
    out->frame_octets = params->frame_octets;
    choose_sizes(out, params);
    stored = 4 * (uint64_t) out->ahead + params->rate / 4;
    if (stored > (uint64_t) params->rate * XA_ENDPOINT_SECONDS)
        stored = (uint64_t) params->rate * XA_ENDPOINT_SECONDS;
    error = xa_spool_init(&out->spool, stored * params->frame_octets);
    if (error) {
        free(out);
        return error;
    }
    pthread_mutex_init(&out->mutex, NULL);
    error = xa_pulse_link_open(&out->link, route, params, wakes);
    if (error) {
        pthread_mutex_destroy(&out->mutex);
        xa_spool_free(&out->spool);
        free(out);
        return error;
    }
    *output = &out->base;
    return 0;
}

#endif
