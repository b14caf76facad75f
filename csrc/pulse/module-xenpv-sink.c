/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module-xenpv-sink: a playback stream of a Xen guest's sound card as a PulseAudio sink.
 *
 * Paced by the positions that the backend reports: whenever a period was heard, the buffer is
 * filled up again to the latency that the clients ask for. While no backend plays, the sink goes on
 * by the clock, and what its clients play meanwhile is gone: nothing is ever played late.
 */
#include "config.h"

#include <pulse/proplist.h>
#include <pulse/rtclock.h>
#include <pulse/xmalloc.h>
#include <pulsecore/core-util.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>
#include <pulsecore/memblock.h>
#include <pulsecore/modargs.h>
#include <pulsecore/module.h>
#include <pulsecore/sink.h>

#include "card-thread.h"
#include "device-arguments.h"
#include "sndif/xen.h"
#include "stream-open.h"

PA_MODULE_AUTHOR("xenaudio");
PA_MODULE_DESCRIPTION("Sink on a Xen guest's paravirtual sound card");
PA_MODULE_VERSION(PACKAGE_VERSION);
PA_MODULE_LOAD_ONCE(false);
PA_MODULE_USAGE("sink_name=<name for the sink> "
                "sink_properties=<properties for the sink> " XA_PULSE_USAGE);

static const char *const valid_modargs[] = {"sink_name", "sink_properties", XA_PULSE_MODARGS, NULL};

enum phase {
    PHASE_ASLEEP,  /* suspended: nothing is open */
    PHASE_WAITING, /* for the stream, before the first sound or between two geometries */
    PHASE_CLOCKED, /* no backend plays: by the clock */
    PHASE_PLAYING,
};

struct userdata {
    pa_core *core;
    pa_module *module;
    pa_sink *sink;
    struct xa_pulse_card *card;
    struct xa_pulse_client client;
    bool added; /* the card's thread calls it */

    /* The card's thread's alone, from here. */
    struct xa_pulse_stream stream;
    enum phase phase;
    pa_usec_t latency; /* that clients want */
    pa_memchunk rest;  /* rendered, and not taken by the stream yet */
    bool moved;        /* there is a new position */
    bool broken;       /* the stream refused something: open it anew */
    bool reopening;    /* when what was written is heard, with another geometry */
    uint64_t wait_until_us;
    uint64_t clock_us;    /* rendered, and by the clock heard, until then */
    uint64_t started_us;  /* when START was sent */
    uint64_t sound_until; /* octets since OPEN: what came from a client ends before */
};

static void drop_rest(struct userdata *u)
{
    if (u->rest.memblock)
        pa_memblock_unref(u->rest.memblock);
    pa_memchunk_reset(&u->rest);
}

static void answer_rewind(struct userdata *u)
{
    if (PA_UNLIKELY(u->sink->thread_info.rewind_requested) &&
        PA_SINK_IS_LINKED(u->sink->thread_info.state))
        pa_sink_process_rewind(u->sink, 0);
}

/* When the last position arrived. */
static uint64_t last_position_us(const struct userdata *u, const struct xa_stream *front)
{
    uint64_t at = 0;

    (void) xa_stream_position(front, &at);
    return PA_MAX(at, u->started_us);
}

/* Between what is rendered and the ear. What was heard since the last position is reckoned. */
static uint64_t stream_latency(const struct userdata *u, const struct xa_stream *front,
                               uint64_t now)
{
    int64_t frames = xa_stream_latency(front) + (int64_t) (u->rest.length / u->stream.frame);
    uint64_t passed = now - PA_MIN(now, last_position_us(u, front));
    uint64_t latency = xa_pulse_us(&u->stream, frames > 0 ? (uint64_t) frames : 0);

    passed = PA_MIN(passed, xa_pulse_us(&u->stream, u->stream.period_frames));
    return latency > passed ? latency - passed : 0;
}

static uint64_t sink_latency(const struct userdata *u, uint64_t now)
{
    struct xa_stream *front;

    if (u->phase == PHASE_CLOCKED)
        return u->clock_us > now ? u->clock_us - now : 0;
    front = u->phase == PHASE_PLAYING ? xa_pulse_stream_front(&u->stream) : NULL;
    return front ? stream_latency(u, front, now) : 0;
}

/* Hands `rest` to the stream: whether all of it was taken. */
static bool write_rest(struct userdata *u, struct xa_stream *front)
{
    const uint8_t *data;
    int64_t taken;

    if (u->rest.length == 0)
        return true;
    data = pa_memblock_acquire_chunk(&u->rest);
    taken = xa_stream_write(front, data, (uint32_t) u->rest.length);
    pa_memblock_release(u->rest.memblock);
    if (taken < 0) {
        u->broken = true;
        return false;
    }
    u->rest.index += (size_t) taken;
    u->rest.length -= (size_t) taken;
    if (u->rest.length > 0)
        return false;
    drop_rest(u);
    return true;
}

/* Fills the stream's buffer up to the latency wanted. */
static void fill(struct userdata *u, struct xa_stream *front)
{
    uint64_t target = PA_MIN(xa_pulse_frames(&u->stream, u->latency), u->stream.buffer_frames);
    size_t most =
        pa_frame_align(pa_mempool_block_size_max(u->core->mempool), &u->sink->sample_spec);

    while (write_rest(u, front)) {
        int64_t there = PA_MAX(xa_stream_latency(front), 0);
        uint64_t octets;

        if (there >= (int64_t) target)
            return;
        octets = (target - (uint64_t) there) * u->stream.frame;
        octets = PA_MIN(octets, PA_MIN(most, xa_stream_room(front)));
        if (octets == 0)
            return;
        answer_rewind(u);
        pa_sink_render_full(u->sink, (size_t) octets, &u->rest);
        if (u->sink->thread_info.state == PA_SINK_RUNNING)
            u->sound_until = xa_stream_transferred(front) + octets;
    }
}

/* Renders by the clock, for nobody. */
static uint64_t render_clocked(struct userdata *u, uint64_t now)
{
    uint64_t block = PA_MIN(u->latency, XA_PULSE_CLOCKED_BLOCK);
    size_t octets =
        PA_MAX(pa_usec_to_bytes(block, &u->sink->sample_spec), (size_t) u->stream.frame);

    if (now > u->clock_us + XA_PULSE_CLOCK_LOST)
        u->clock_us = now;
    while (u->clock_us <= now) {
        pa_memchunk chunk;

        answer_rewind(u);
        pa_sink_render(u->sink, octets, &chunk);
        pa_memblock_unref(chunk.memblock);
        u->clock_us += pa_bytes_to_usec(chunk.length, &u->sink->sample_spec);
    }
    return u->clock_us;
}

static void go_clocked(struct userdata *u, uint64_t now)
{
    /* Clients were asked for what would be heard until then. */
    u->clock_us = now + sink_latency(u, now);
    u->phase = PHASE_CLOCKED;
    u->reopening = false;
    drop_rest(u);
}

static void start(struct userdata *u, struct xa_stream *front, uint64_t now)
{
    drop_rest(u);
    u->phase = PHASE_PLAYING;
    u->moved = u->broken = u->reopening = false;
    u->sound_until = 0;
    u->started_us = now;
    fill(u, front);
    if (xa_stream_trigger(front, XENSND_OP_TRIGGER_START) < 0)
        u->broken = true;
}

/* Whether the geometry does not suit the latency wanted any more. */
static bool unsuitable(const struct userdata *u)
{
    uint64_t wanted = xa_pulse_frames(&u->stream, u->latency);

    /* A buffer that is too large costs nothing but wake-ups that are too few; one that is too small
     * is made larger while no client would hear it. */
    return 2 * wanted < 3 * (uint64_t) u->stream.period_frames ||
           (u->sink->thread_info.state == PA_SINK_IDLE &&
            wanted > 2 * (uint64_t) u->stream.buffer_frames);
}

/* When a stream is taken for silent that told of no position since. */
static uint64_t silent_at(const struct userdata *u, const struct xa_stream *front)
{
    return last_position_us(u, front) + XA_PULSE_LATE +
           xa_pulse_us(&u->stream, u->stream.period_frames);
}

/* The stream is open and started. Returns the next deadline. */
static uint64_t play(struct userdata *u, struct xa_stream *front, uint64_t now)
{
    uint64_t deadline = UINT64_MAX;

    if (u->broken || now >= silent_at(u, front)) {
        pa_log_info("%s: the backend %s", u->sink->name,
                    u->broken ? "refuses what it took before" : "tells of no position");
        go_clocked(u, now);
        u->broken = false;
        xa_pulse_stream_close(&u->stream, now, &deadline);
        return PA_MIN(deadline, render_clocked(u, now));
    }
    if (!u->reopening && unsuitable(u))
        u->reopening = true;
    if (u->reopening) {
        if (xa_stream_heard(front) >= u->sound_until) {
            u->phase = PHASE_WAITING;
            u->wait_until_us = now + XA_PULSE_PATIENCE_PLAYING;
            u->reopening = false;
            drop_rest(u);
            xa_pulse_stream_close(&u->stream, now, &deadline);
            return PA_MIN(deadline, u->wait_until_us);
        }
        (void) write_rest(u, front);
    } else if (u->moved) {
        u->moved = false;
        fill(u, front);
    }
    return silent_at(u, front);
}

static uint64_t run_sink(struct xa_pulse_client *client, uint64_t now)
{
    struct userdata *u = client->user;
    uint64_t deadline = UINT64_MAX;
    enum xa_pulse_status status;
    struct xa_stream *front;

    answer_rewind(u);
    if (!PA_SINK_IS_OPENED(u->sink->thread_info.state)) {
        u->phase = PHASE_ASLEEP;
        u->reopening = false;
        drop_rest(u);
        xa_pulse_stream_close(&u->stream, now, &deadline);
        return deadline;
    }
    if (u->phase == PHASE_ASLEEP) {
        u->phase = PHASE_WAITING;
        u->wait_until_us = now + XA_PULSE_PATIENCE;
    }
    status = xa_pulse_stream_strive(&u->stream, u->latency, now, &deadline);
    front = xa_pulse_stream_front(&u->stream);
    if (u->phase == PHASE_PLAYING && status != XA_PULSE_OPEN)
        go_clocked(u, now);
    else if (u->phase != PHASE_PLAYING && status == XA_PULSE_OPEN)
        start(u, front, now);
    if (u->phase == PHASE_WAITING && (status == XA_PULSE_NEVER || now >= u->wait_until_us)) {
        u->phase = PHASE_CLOCKED;
        u->clock_us = now;
    }
    switch (u->phase) {
    case PHASE_PLAYING:
        return PA_MIN(deadline, play(u, front, now));
    case PHASE_CLOCKED:
        return PA_MIN(deadline, render_clocked(u, now));
    default:
        return PA_MIN(deadline, u->wait_until_us);
    }
}

static void on_stream(struct xa_pulse_client *client, struct xa_stream *stream,
                      enum xa_stream_event event, int error)
{
    struct userdata *u = client->user;

    if (stream != xa_pulse_stream_front(&u->stream))
        return;
    xa_pulse_stream_event(&u->stream, event, error);
    if (event == XA_EVENT_POSITION)
        u->moved = true;
    else if (event == XA_EVENT_FAILED || (event == XA_EVENT_TRIGGERED && error < 0))
        u->broken = true;
}

static void on_card(struct xa_pulse_client *client)
{
    struct userdata *u = client->user;

    xa_pulse_stream_card(&u->stream);
}

/* ---- What PulseAudio calls on the card's thread ---- */

static int process_message(pa_msgobject *object, int code, void *data, int64_t offset,
                           pa_memchunk *chunk)
{
    struct userdata *u = PA_SINK(object)->userdata;

    if (code == PA_SINK_MESSAGE_GET_LATENCY) {
        *(int64_t *) data = (int64_t) sink_latency(u, pa_rtclock_now());
        return 0;
    }
    return pa_sink_process_msg(object, code, data, offset, chunk);
}

static void update_latency(pa_sink *sink)
{
    struct userdata *u = sink->userdata;

    u->latency = pa_sink_get_requested_latency_within_thread(sink);
    if (u->latency == (pa_usec_t) -1)
        u->latency = sink->thread_info.max_latency;
    pa_sink_set_max_request_within_thread(sink, pa_usec_to_bytes(u->latency, &sink->sample_spec));
}

/* ---- On the main thread ---- */

static int make_sink(struct userdata *u, pa_modargs *arguments,
                     const struct xa_pulse_device *device)
{
    pa_sink_new_data data;

    pa_sink_new_data_init(&data);
    data.driver = __FILE__;
    data.module = u->module;
    data.card = device->profiles;
    pa_sink_new_data_set_name(&data, pa_modargs_get_value(arguments, "sink_name", device->name));
    pa_sink_new_data_set_sample_spec(&data, &device->spec);
    pa_sink_new_data_set_channel_map(&data, &device->map);
    xa_pulse_device_describe(device, data.proplist);
    if (pa_modargs_get_proplist(arguments, "sink_properties", data.proplist, PA_UPDATE_REPLACE) <
        0) {
        pa_log_error("sink_properties= is no list of properties");
        pa_sink_new_data_done(&data);
        return -1;
    }
    u->sink =
        pa_sink_new(u->core, &data, PA_SINK_HARDWARE | PA_SINK_LATENCY | PA_SINK_DYNAMIC_LATENCY);
    pa_sink_new_data_done(&data);
    if (!u->sink) {
        pa_log_error("the sink cannot be made: is there another one of its name?");
        return -1;
    }
    u->sink->parent.process_msg = process_message;
    u->sink->update_requested_latency = update_latency;
    u->sink->userdata = u;
    u->latency = device->latency_us;
    pa_sink_set_asyncmsgq(u->sink, xa_pulse_card_queue(u->card));
    pa_sink_set_rtpoll(u->sink, xa_pulse_card_rtpoll(u->card));
    pa_sink_set_max_rewind(u->sink, 0);
    pa_sink_set_max_request(u->sink, pa_usec_to_bytes(u->latency, &device->spec));
    pa_sink_set_latency_range(u->sink, XA_PULSE_LATENCY_MIN, u->latency);
    return 0;
}

void pa__done(pa_module *m);

int pa__init(pa_module *m)
{
    struct userdata *u = pa_xnew0(struct userdata, 1);
    struct xa_pulse_device device;
    pa_modargs *arguments;

    m->userdata = u;
    u->core = m->core;
    u->module = m;
    u->client.run = run_sink;
    u->client.stream = on_stream;
    u->client.card = on_card;
    u->client.user = u;
    pa_memchunk_reset(&u->rest);
    arguments = pa_modargs_new(m->argument, valid_modargs);
    if (!arguments) {
        pa_log_error("an argument is not one of this module's: %s", m->argument);
        goto fail;
    }
    if (xa_pulse_device_find(m->core, arguments, false, &device) < 0)
        goto fail;
    u->card = device.card;
    xa_pulse_stream_init(&u->stream, u->card, &device.address, &device.spec);
    if (make_sink(u, arguments, &device) < 0)
        goto fail;
    u->client.address = device.address;
    u->added = xa_pulse_card_add(u->card, &u->client);
    if (!u->added)
        goto fail;
    pa_modargs_free(arguments);
    pa_sink_put(u->sink);
    return 0;

fail:
    if (arguments)
        pa_modargs_free(arguments);
    pa__done(m);
    return -1;
}

int pa__get_n_used(pa_module *m)
{
    struct userdata *u = m->userdata;

    return pa_sink_linked_by(u->sink);
}

void pa__done(pa_module *m)
{
    struct userdata *u = m->userdata;

    if (!u)
        return;
    m->userdata = NULL;
    /* Undoes what pa_sink_new did too: also where pa_sink_put was never called. */
    if (u->sink)
        pa_sink_unlink(u->sink);
    if (u->added)
        xa_pulse_card_remove(u->card, &u->client);
    drop_rest(u);
    if (u->sink)
        pa_sink_unref(u->sink);
    if (u->card)
        xa_pulse_card_put(u->card);
    pa_xfree(u);
}
