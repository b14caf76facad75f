/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module-xenpv-source: a capture stream of a Xen guest's sound card as a PulseAudio source.
 *
 * The stream is open only while somebody records: a microphone is not open for nobody. Paced by the
 * positions that the backend reports. While no backend gives samples, or it refuses to, the source
 * is silent, in real time: no application hangs.
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
#include <pulsecore/sample-util.h>
#include <pulsecore/source.h>

#include "card-thread.h"
#include "device-arguments.h"
#include "sndif/xen.h"
#include "stream-open.h"

PA_MODULE_AUTHOR("xenaudio");
PA_MODULE_DESCRIPTION("Source on a Xen guest's paravirtual sound card");
PA_MODULE_VERSION(PACKAGE_VERSION);
PA_MODULE_LOAD_ONCE(false);
PA_MODULE_USAGE("source_name=<name for the source> "
                "source_properties=<properties for the source> " XA_PULSE_USAGE);

static const char *const valid_modargs[] = {"source_name", "source_properties", XA_PULSE_MODARGS,
                                            NULL};

enum phase {
    PHASE_ASLEEP,  /* nobody records: nothing is open */
    PHASE_WAITING, /* for the stream */
    PHASE_CLOCKED, /* no backend gives samples: silence, by the clock */
    PHASE_RECORDING,
};

struct userdata {
    pa_core *core;
    pa_module *module;
    pa_source *source;
    struct xa_pulse_card *card;
    struct xa_pulse_client client;
    bool added; /* the card's thread calls it */

    /* The card's thread's alone, from here. */
    struct xa_pulse_stream stream;
    enum phase phase;
    pa_usec_t latency; /* that clients want */
    bool arrived;      /* there is something to read */
    bool broken;       /* the stream refused something: open it anew */
    uint64_t wait_until_us;
    uint64_t clock_us;   /* by the clock, posted until then */
    uint64_t started_us; /* when START was sent */
};

/* When the last position arrived. */
static uint64_t last_position_us(const struct userdata *u, const struct xa_stream *front)
{
    uint64_t at = 0;

    (void) xa_stream_position(front, &at);
    return PA_MAX(at, u->started_us);
}

static uint64_t period_us(const struct userdata *u)
{
    return xa_pulse_us(&u->stream, u->stream.period_frames);
}

/* Between the microphone and what was posted. What was captured since the last position is
 * reckoned. */
static uint64_t source_latency(const struct userdata *u, uint64_t now)
{
    struct xa_stream *front;
    uint64_t passed;
    int64_t frames;

    if (u->phase == PHASE_CLOCKED)
        return now > u->clock_us ? now - u->clock_us : 0;
    front = u->phase == PHASE_RECORDING ? xa_pulse_stream_front(&u->stream) : NULL;
    if (!front)
        return 0;
    frames = xa_stream_latency(front);
    passed = now - PA_MIN(now, last_position_us(u, front));
    return xa_pulse_us(&u->stream, frames > 0 ? (uint64_t) frames : 0) +
           PA_MIN(passed, period_us(u));
}

/* Posts all that the stream has to give. */
static void collect(struct userdata *u, struct xa_stream *front)
{
    size_t most =
        pa_frame_align(pa_mempool_block_size_max(u->core->mempool), &u->source->sample_spec);

    u->arrived = false;
    for (;;) {
        pa_memchunk chunk = {.memblock = pa_memblock_new(u->core->mempool, most)};
        int64_t got = xa_stream_read(front, pa_memblock_acquire(chunk.memblock), (uint32_t) most);

        pa_memblock_release(chunk.memblock);
        if (got > 0) {
            chunk.length = (size_t) got;
            pa_source_post(u->source, &chunk);
        }
        pa_memblock_unref(chunk.memblock);
        if (got <= 0) {
            u->broken = u->broken || got < 0;
            return;
        }
    }
}

/* Posts silence up to now. Returns when the next is due. */
static uint64_t post_clocked(struct userdata *u, uint64_t now)
{
    uint64_t block = PA_MIN(u->latency, XA_PULSE_CLOCKED_BLOCK);
    size_t octets =
        PA_MAX(pa_usec_to_bytes(block, &u->source->sample_spec), (size_t) u->stream.frame);

    block = pa_bytes_to_usec(octets, &u->source->sample_spec);
    if (now > u->clock_us + XA_PULSE_CLOCK_LOST)
        u->clock_us = now;
    while (u->clock_us + block <= now) {
        pa_memchunk chunk = {.memblock = pa_memblock_new(u->core->mempool, octets),
                             .length = octets};

        pa_silence_memchunk(&chunk, &u->source->sample_spec);
        pa_source_post(u->source, &chunk);
        pa_memblock_unref(chunk.memblock);
        u->clock_us += block;
    }
    return u->clock_us + block;
}

static void go_clocked(struct userdata *u, uint64_t now)
{
    /* Silence begins where what was posted ends. */
    uint64_t latency = source_latency(u, now);

    u->clock_us = now - PA_MIN(latency, now);
    u->phase = PHASE_CLOCKED;
}

static void start(struct userdata *u, struct xa_stream *front, uint64_t now)
{
    u->phase = PHASE_RECORDING;
    u->arrived = false;
    u->started_us = now;
    u->broken = xa_stream_trigger(front, XENSND_OP_TRIGGER_START) < 0;
}

/* Whether periods are too long for the latency wanted. (Too short ones only cost wake-ups.) */
static bool unsuitable(const struct userdata *u)
{
    return xa_pulse_frames(&u->stream, u->latency) < u->stream.period_frames;
}

/* The stream is open and started. Returns the next deadline. */
static uint64_t record(struct userdata *u, struct xa_stream *front, uint64_t now)
{
    uint64_t silent_at = last_position_us(u, front) + XA_PULSE_LATE + period_us(u);
    uint64_t deadline = UINT64_MAX;

    if (u->arrived)
        collect(u, front);
    if (u->broken || now >= silent_at) {
        pa_log_info("%s: the backend %s", u->source->name,
                    u->broken ? "refuses what it gave before" : "tells of no position");
        go_clocked(u, now);
        u->broken = false;
        xa_pulse_stream_close(&u->stream, now, &deadline);
        return PA_MIN(deadline, post_clocked(u, now));
    }
    if (unsuitable(u)) {
        u->phase = PHASE_WAITING;
        u->wait_until_us = now + XA_PULSE_PATIENCE_PLAYING;
        xa_pulse_stream_close(&u->stream, now, &deadline);
        return PA_MIN(deadline, u->wait_until_us);
    }
    return silent_at;
}

static uint64_t run_source(struct xa_pulse_client *client, uint64_t now)
{
    struct userdata *u = client->user;
    uint64_t deadline = UINT64_MAX;
    enum xa_pulse_status status;
    struct xa_stream *front;

    if (u->source->thread_info.state != PA_SOURCE_RUNNING) {
        u->phase = PHASE_ASLEEP;
        xa_pulse_stream_close(&u->stream, now, &deadline);
        return deadline;
    }
    if (u->phase == PHASE_ASLEEP) {
        u->phase = PHASE_WAITING;
        u->wait_until_us = now + XA_PULSE_PATIENCE;
    }
    status = xa_pulse_stream_strive(&u->stream, u->latency, now, &deadline);
    front = xa_pulse_stream_front(&u->stream);
    if (u->phase == PHASE_RECORDING && status != XA_PULSE_OPEN)
        go_clocked(u, now);
    else if (u->phase != PHASE_RECORDING && status == XA_PULSE_OPEN)
        start(u, front, now);
    if (u->phase == PHASE_WAITING && (status == XA_PULSE_NEVER || now >= u->wait_until_us)) {
        u->phase = PHASE_CLOCKED;
        u->clock_us = now;
    }
    switch (u->phase) {
    case PHASE_RECORDING:
        return PA_MIN(deadline, record(u, front, now));
    case PHASE_CLOCKED:
        return PA_MIN(deadline, post_clocked(u, now));
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
    if (event == XA_EVENT_DATA)
        u->arrived = true;
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
    struct userdata *u = PA_SOURCE(object)->userdata;

    if (code == PA_SOURCE_MESSAGE_GET_LATENCY) {
        *(int64_t *) data = (int64_t) source_latency(u, pa_rtclock_now());
        return 0;
    }
    return pa_source_process_msg(object, code, data, offset, chunk);
}

static void update_latency(pa_source *source)
{
    struct userdata *u = source->userdata;

    u->latency = pa_source_get_requested_latency_within_thread(source);
    if (u->latency == (pa_usec_t) -1)
        u->latency = source->thread_info.max_latency;
}

/* ---- On the main thread ---- */

static int make_source(struct userdata *u, pa_modargs *arguments,
                       const struct xa_pulse_device *device)
{
    pa_source_new_data data;

    pa_source_new_data_init(&data);
    data.driver = __FILE__;
    data.module = u->module;
    data.card = device->profiles;
    pa_source_new_data_set_name(&data,
                                pa_modargs_get_value(arguments, "source_name", device->name));
    pa_source_new_data_set_sample_spec(&data, &device->spec);
    pa_source_new_data_set_channel_map(&data, &device->map);
    xa_pulse_device_describe(device, data.proplist);
    if (pa_modargs_get_proplist(arguments, "source_properties", data.proplist, PA_UPDATE_REPLACE) <
        0) {
        pa_log_error("source_properties= is no list of properties");
        pa_source_new_data_done(&data);
        return -1;
    }
    u->source = pa_source_new(u->core, &data,
                              PA_SOURCE_HARDWARE | PA_SOURCE_LATENCY | PA_SOURCE_DYNAMIC_LATENCY);
    pa_source_new_data_done(&data);
    if (!u->source) {
        pa_log_error("the source cannot be made: is there another one of its name?");
        return -1;
    }
    u->source->parent.process_msg = process_message;
    u->source->update_requested_latency = update_latency;
    u->source->userdata = u;
    u->latency = device->latency_us;
    pa_source_set_asyncmsgq(u->source, xa_pulse_card_queue(u->card));
    pa_source_set_rtpoll(u->source, xa_pulse_card_rtpoll(u->card));
    pa_source_set_max_rewind(u->source, 0);
    pa_source_set_latency_range(u->source, XA_PULSE_LATENCY_MIN, u->latency);
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
    u->client.run = run_source;
    u->client.stream = on_stream;
    u->client.card = on_card;
    u->client.user = u;
    arguments = pa_modargs_new(m->argument, valid_modargs);
    if (!arguments) {
        pa_log_error("an argument is not one of this module's: %s", m->argument);
        goto fail;
    }
    if (xa_pulse_device_find(m->core, arguments, true, &device) < 0)
        goto fail;
    u->card = device.card;
    xa_pulse_stream_init(&u->stream, u->card, &device.address, &device.spec);
    if (make_source(u, arguments, &device) < 0)
        goto fail;
    u->client.address = device.address;
    u->added = xa_pulse_card_add(u->card, &u->client);
    if (!u->added)
        goto fail;
    pa_modargs_free(arguments);
    pa_source_put(u->source);
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

    return pa_source_linked_by(u->source);
}

void pa__done(pa_module *m)
{
    struct userdata *u = m->userdata;

    if (!u)
        return;
    m->userdata = NULL;
    /* Undoes what pa_source_new did too: also where pa_source_put was never called. */
    if (u->source)
        pa_source_unlink(u->source);
    if (u->added)
        xa_pulse_card_remove(u->card, &u->client);
    if (u->source)
        pa_source_unref(u->source);
    if (u->card)
        xa_pulse_card_put(u->card);
    pa_xfree(u);
}
