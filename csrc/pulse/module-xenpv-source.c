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
#include "stream-run.h"

PA_MODULE_AUTHOR("xenaudio");
PA_MODULE_DESCRIPTION("Source on a Xen guest's paravirtual sound card");
PA_MODULE_VERSION(PACKAGE_VERSION);
PA_MODULE_LOAD_ONCE(false);
PA_MODULE_USAGE("source_name=<name for the source> "
                "source_properties=<properties for the source> " XA_PULSE_USAGE);

static const char *const valid_modargs[] = {"source_name", "source_properties", XA_PULSE_MODARGS,
                                            NULL};

struct userdata {
    pa_core *core;
    pa_module *module;
    pa_source *source;
    struct xa_pulse_card *card;
    bool added;              /* the card's thread calls it */
    struct xa_pulse_run run; /* the card's thread's alone */
};

/* Posts all that the stream has to give. */
static void collect(struct userdata *u, struct xa_stream *front)
{
    size_t most =
        pa_frame_align(pa_mempool_block_size_max(u->core->mempool), &u->source->sample_spec);

    u->run.news = false;
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
            u->run.broken = u->run.broken || got < 0;
            return;
        }
    }
}

/* ---- What its stream wants of it (stream-run.h) ---- */

static bool is_wanted(void *user)
{
    const struct userdata *u = user;

    return u->source->thread_info.state == PA_SOURCE_RUNNING;
}

static void start(void *user, struct xa_stream *front)
{
    (void) user;
    (void) front;
}

/* Periods that are too short only cost wake-ups; those that are too long, latency. */
static bool move(void *user, struct xa_stream *front, uint64_t now, uint64_t *deadline)
{
    struct userdata *u = user;

    (void) now;
    (void) deadline;
    if (u->run.news)
        collect(u, front);
    return xa_pulse_stream_wanted(&u->run.stream, u->run.latency_us) >= u->run.stream.period_frames;
}

/* Posts silence up to now. Returns when the next is due. */
static uint64_t post_clocked(void *user, uint64_t now)
{
    struct userdata *u = user;
    struct xa_pulse_run *run = &u->run;
    uint64_t block = PA_MIN(run->latency_us, XA_PULSE_CLOCKED_BLOCK);
    size_t octets =
        PA_MAX(pa_usec_to_bytes(block, &u->source->sample_spec), (size_t) run->stream.frame);

    block = pa_bytes_to_usec(octets, &u->source->sample_spec);
    if (now > run->clock_us + XA_PULSE_CLOCK_LOST)
        run->clock_us = now;
    while (run->clock_us + block <= now) {
        pa_memchunk chunk = {.memblock = pa_memblock_new(u->core->mempool, octets),
                             .length = octets};

        pa_silence_memchunk(&chunk, &u->source->sample_spec);
        pa_source_post(u->source, &chunk);
        pa_memblock_unref(chunk.memblock);
        run->clock_us += block;
    }
    return run->clock_us + block;
}

static void let_go(void *user)
{
    (void) user;
}

static int64_t held(const void *user)
{
    (void) user;
    return 0;
}

static const struct xa_pulse_run_ops run_ops = {
    .wanted = is_wanted,
    .start = start,
    .move = move,
    .move_clocked = post_clocked,
    .let_go = let_go,
    .held = held,
};

/* ---- What PulseAudio calls on the card's thread ---- */

static int process_message(pa_msgobject *object, int code, void *data, int64_t offset,
                           pa_memchunk *chunk)
{
    struct userdata *u = PA_SOURCE(object)->userdata;

    if (code == PA_SOURCE_MESSAGE_GET_LATENCY) {
        *(int64_t *) data = (int64_t) xa_pulse_run_latency(&u->run, pa_rtclock_now());
        return 0;
    }
    return pa_source_process_msg(object, code, data, offset, chunk);
}

static void update_latency(pa_source *source)
{
    struct userdata *u = source->userdata;

    pa_usec_t latency = pa_source_get_requested_latency_within_thread(source);

    u->run.latency_us = latency == (pa_usec_t) -1 ? source->thread_info.max_latency : latency;
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
    u->run.latency_us = device->latency_us;
    pa_source_set_asyncmsgq(u->source, xa_pulse_card_queue(u->card));
    pa_source_set_rtpoll(u->source, xa_pulse_card_rtpoll(u->card));
    pa_source_set_max_rewind(u->source, 0);
    pa_source_set_latency_range(u->source, XA_PULSE_LATENCY_MIN, device->latency_us);
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
    arguments = xa_pulse_device_find(m, valid_modargs, true, &device);
    if (!arguments)
        goto fail;
    u->card = device.card;
    xa_pulse_stream_init(&u->run.stream, u->card, &device.address, &device.spec);
    if (make_source(u, arguments, &device) < 0)
        goto fail;
    xa_pulse_run_init(&u->run, &run_ops, u, u->source->name);
    u->added = xa_pulse_card_add(u->card, &u->run.client);
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
        xa_pulse_card_remove(u->card, &u->run.client);
    if (u->source)
        pa_source_unref(u->source);
    if (u->card)
        xa_pulse_card_put(u->card);
    pa_xfree(u);
}
