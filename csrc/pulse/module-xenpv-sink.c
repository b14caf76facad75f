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
#include <pulsecore/sample-util.h>
#include <pulsecore/sink.h>

#include "card-thread.h"
#include "device-arguments.h"
#include "stream-run.h"

PA_MODULE_AUTHOR("xenaudio");
PA_MODULE_DESCRIPTION("Sink on a Xen guest's paravirtual sound card");
PA_MODULE_VERSION(PACKAGE_VERSION);
PA_MODULE_LOAD_ONCE(false);
PA_MODULE_USAGE("sink_name=<name for the sink> "
                "sink_properties=<properties for the sink> " XA_PULSE_USAGE);

static const char *const valid_modargs[] = {"sink_name", "sink_properties", XA_PULSE_MODARGS, NULL};

/* Clients have sent more so long after they were asked to, microseconds. */
#define ASKED_US UINT64_C(1000)

struct userdata {
    pa_core *core;
    pa_module *module;
    pa_sink *sink;
    struct xa_pulse_card *card;
    bool added; /* the card's thread calls it */

    /* The card's thread's alone, from here. */
    struct xa_pulse_run run;
    pa_memchunk rest; /* rendered, and not taken by the stream yet */
    bool unfilled;    /* the buffer is to be filled up, from `ask_us` on */
    uint64_t ask_us;  /* clients are not asked for more before */
    bool reopening;   /* when what was written is heard, with another geometry */
    uint64_t
        sound_until; /* octets since OPEN: what came from a client ends before; 0: nothing did */
};

static void answer_rewind(struct userdata *u)
{
    if (PA_UNLIKELY(u->sink->thread_info.rewind_requested) &&
        PA_SINK_IS_LINKED(u->sink->thread_info.state))
        pa_sink_process_rewind(u->sink, 0);
}

static void drop_rest(struct userdata *u)
{
    if (u->rest.memblock)
        pa_memblock_unref(u->rest.memblock);
    pa_memchunk_reset(&u->rest);
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
        u->run.broken = true;
        return false;
    }
    u->rest.index += (size_t) taken;
    u->rest.length -= (size_t) taken;
    if (u->rest.length > 0)
        return false;
    drop_rest(u);
    return true;
}

/* Has `rest` be so much of what clients play. */
static void render(struct userdata *u, const struct xa_stream *front, size_t octets)
{
    answer_rewind(u);
    pa_sink_render_full(u->sink, octets, &u->rest);
    if (u->sink->thread_info.state == PA_SINK_RUNNING)
        u->sound_until = xa_stream_transferred(front) + octets;
}

static void be_silent(struct userdata *u, size_t octets)
{
    u->rest =
        (pa_memchunk){.memblock = pa_memblock_new(u->core->mempool, octets), .length = octets};
    pa_silence_memchunk(&u->rest, &u->sink->sample_spec);
}

/* Frames that may be rendered in one go: clients have as much at hand as the latency that they
 * asked for, and little more. A period, which may be longer, is late by some frames now and then.
 */
static uint64_t at_hand(const struct userdata *u)
{
    uint64_t period = u->run.stream.period_frames;

    return PA_MAX(xa_pulse_frames(&u->run.stream, u->run.latency_us), period + period / 8);
}

/*
 * Fills the stream's buffer up to the latency wanted, or with silence; with silence that is the
 * last of this stream, all of it.
 *
 * Where an empty buffer takes more than clients have at hand, they are given time on the way to
 * send it: they would underrun, which is a gap.
 */
static void fill(struct userdata *u, struct xa_stream *front, uint64_t now)
{
    bool silent = u->reopening || u->run.phase == XA_PULSE_STARTING;
    struct xa_pulse_stream *stream = &u->run.stream;
    uint64_t wanted = xa_pulse_stream_wanted(stream, u->run.latency_us);
    uint64_t target = u->reopening ? stream->buffer_frames : PA_MIN(wanted, stream->buffer_frames);
    size_t most =
        pa_frame_align(pa_mempool_block_size_max(u->core->mempool), &u->sink->sample_spec);
    uint64_t ready = at_hand(u), left = ready * stream->frame, ask_us = 0;

    if (target > ready)
        ask_us = now + PA_MIN(ASKED_US, xa_pulse_us(stream, stream->period_frames) / 2);
    u->unfilled = false;
    while (write_rest(u, front)) {
        int64_t there = PA_MAX(xa_stream_latency(front), 0);
        uint64_t octets;

        if (there >= (int64_t) target)
            return;
        octets = (target - (uint64_t) there) * stream->frame;
        octets = PA_MIN(octets, PA_MIN(most, xa_stream_room(front)));
        if (octets == 0)
            return;
        if (silent) {
            be_silent(u, (size_t) octets);
            continue;
        }
        u->unfilled = left == 0;
        if (u->unfilled)
            return;
        octets = PA_MIN(octets, left);
        left -= octets;
        u->ask_us = ask_us;
        render(u, front, (size_t) octets);
    }
}

/* ---- What its stream wants of it (stream-run.h) ---- */

static bool is_wanted(void *user)
{
    struct userdata *u = user;

    answer_rewind(u);
    return PA_SINK_IS_OPENED(u->sink->thread_info.state);
}

static void start(void *user, struct xa_stream *front)
{
    struct userdata *u = user;

    u->sound_until = 0;
    fill(u, front, u->run.started_us);
}

/* A buffer that is too large costs nothing but latency, while it is of use to nobody; one that is
 * too small for a longer latency only costs wake-ups: it is made larger while no client hears it.
 */
static bool suits(const struct userdata *u)
{
    uint64_t wanted = xa_pulse_stream_wanted(&u->run.stream, u->run.latency_us);
    uint64_t opened = u->run.stream.opened_frames;

    return 4 * wanted >= 3 * opened &&
           (u->sink->thread_info.state != PA_SINK_IDLE || wanted <= 2 * opened);
}

/* Silence follows what clients played until that was heard. For a period more: where the backend
 * had to play silence for want of samples, its position may be ahead by as much. */
static bool is_over(const struct userdata *u, const struct xa_stream *front)
{
    const struct xa_pulse_stream *stream = &u->run.stream;

    return u->sound_until == 0 ||
           xa_stream_heard(front) >=
               u->sound_until + (uint64_t) stream->period_frames * stream->frame;
}

static bool move(void *user, struct xa_stream *front, uint64_t now, uint64_t *deadline)
{
    struct userdata *u = user;

    u->reopening = u->reopening || !suits(u);
    if (u->reopening && is_over(u, front))
        return false;
    u->unfilled = u->unfilled || u->run.news;
    u->run.news = false;
    if (u->unfilled && now >= u->ask_us)
        fill(u, front, now);
    if (u->unfilled)
        *deadline = PA_MIN(*deadline, u->ask_us);
    return true;
}

/* Renders by the clock, for nobody. */
static uint64_t render_clocked(void *user, uint64_t now)
{
    struct userdata *u = user;
    struct xa_pulse_run *run = &u->run;
    uint64_t block = PA_MIN(run->latency_us, XA_PULSE_CLOCKED_BLOCK);
    size_t octets =
        PA_MAX(pa_usec_to_bytes(block, &u->sink->sample_spec), (size_t) run->stream.frame);

    if (now > run->clock_us + XA_PULSE_CLOCK_LOST)
        run->clock_us = now;
    while (run->clock_us <= now) {
        pa_memchunk chunk;

        answer_rewind(u);
        pa_sink_render(u->sink, octets, &chunk);
        pa_memblock_unref(chunk.memblock);
        run->clock_us += pa_bytes_to_usec(chunk.length, &u->sink->sample_spec);
    }
    return run->clock_us;
}

static void let_go(void *user)
{
    struct userdata *u = user;

    u->reopening = false;
    drop_rest(u);
}

static int64_t held(const void *user)
{
    const struct userdata *u = user;

    return (int64_t) (u->rest.length / u->run.stream.frame);
}

static const struct xa_pulse_run_ops run_ops = {
    .wanted = is_wanted,
    .start = start,
    .move = move,
    .move_clocked = render_clocked,
    .let_go = let_go,
    .held = held,
};

/* ---- What PulseAudio calls on the card's thread ---- */

static int process_message(pa_msgobject *object, int code, void *data, int64_t offset,
                           pa_memchunk *chunk)
{
    struct userdata *u = PA_SINK(object)->userdata;

    if (code == PA_SINK_MESSAGE_GET_LATENCY) {
        *(int64_t *) data = (int64_t) xa_pulse_run_latency(&u->run, pa_rtclock_now());
        return 0;
    }
    return pa_sink_process_msg(object, code, data, offset, chunk);
}

static void update_latency(pa_sink *sink)
{
    struct userdata *u = sink->userdata;

    pa_usec_t latency = pa_sink_get_requested_latency_within_thread(sink);

    if (latency == (pa_usec_t) -1)
        latency = sink->thread_info.max_latency;
    u->run.latency_us = latency;
    pa_sink_set_max_request_within_thread(sink, pa_usec_to_bytes(latency, &sink->sample_spec));
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
    u->run.latency_us = device->latency_us;
    pa_sink_set_asyncmsgq(u->sink, xa_pulse_card_queue(u->card));
    pa_sink_set_rtpoll(u->sink, xa_pulse_card_rtpoll(u->card));
    pa_sink_set_max_rewind(u->sink, 0);
    pa_sink_set_max_request(u->sink, pa_usec_to_bytes(device->latency_us, &device->spec));
    pa_sink_set_latency_range(u->sink, XA_PULSE_LATENCY_MIN, device->latency_us);
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
    pa_memchunk_reset(&u->rest);
    arguments = xa_pulse_device_find(m, valid_modargs, false, &device);
    if (!arguments)
        goto fail;
    u->card = device.card;
    xa_pulse_stream_init(&u->run.stream, u->card, &device.address, &device.spec);
    if (make_sink(u, arguments, &device) < 0)
        goto fail;
    xa_pulse_run_init(&u->run, &run_ops, u, u->sink->name);
    u->added = xa_pulse_card_add(u->card, &u->run.client);
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
        xa_pulse_card_remove(u->card, &u->run.client);
    drop_rest(u);
    if (u->sink)
        pa_sink_unref(u->sink);
    if (u->card)
        xa_pulse_card_put(u->card);
    pa_xfree(u);
}
