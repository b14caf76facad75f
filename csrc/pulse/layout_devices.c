/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layout check's part on sinks and sources: makes one of each with an I/O thread, as a driver
 * does, and looks where the library reads and writes.
 */
#include "config.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <pulsecore/core.h>
#include <pulsecore/asyncmsgq.h>
#include <pulsecore/idxset.h>
#include <pulsecore/memblock.h>
#include <pulsecore/namereg.h>
#include <pulsecore/rtpoll.h>
#include <pulsecore/sink.h>
#include <pulsecore/source.h>
#include <pulsecore/thread-mq.h>

#include "layout.h"

/* Values that the library is given or must bring back, unlike any default. */
#define LATENCY 123456
#define LOWEST_LATENCY 2345
#define HIGHEST_LATENCY 345678
#define MAX_REWIND 7680
#define MAX_REQUEST 3840
#define SUSPEND_CAUSE PA_SUSPEND_APPLICATION

/* Messages of this check's own, for which the device's I/O thread looks at the device. */
#define SINK_LOOK PA_SINK_MESSAGE_MAX
#define SOURCE_LOOK PA_SOURCE_MESSAGE_MAX

static const pa_sample_spec spec = {.format = PA_SAMPLE_S16LE, .rate = 48000, .channels = 2};
static const pa_channel_map map = {
    .channels = 2,
    .map = {PA_CHANNEL_POSITION_REAR_LEFT, PA_CHANNEL_POSITION_REAR_RIGHT},
};

/* The device's I/O thread. */
static struct {
    pa_thread_mq mq;
    pa_rtpoll *rtpoll;
    pthread_t thread;
} io;

/* What the device's callbacks saw. */
static struct {
    const void *main_state, *io_state, *latency_changed, *rewind;
    int state;
    pa_suspend_cause_t cause;
    bool reconfigured;
    /* Set while the main thread waits for the latency: the next message must ask for it. */
    bool asked_latency;
} seen;

static void *io_thread(void *unused)
{
    (void) unused;
    pa_thread_mq_install(&io.mq);
    while (pa_rtpoll_run(io.rtpoll) > 0) {
        continue;
    }
    return NULL;
}

static void begin_io(pa_core *core)
{
    memset(&seen, 0, sizeof seen);
    io.rtpoll = pa_rtpoll_new();
    if (pa_thread_mq_init(&io.mq, core->mainloop, io.rtpoll) < 0) {
        abort();
    }
    XA_MEMBER(pa_thread_mq, main_mainloop, io.mq.main_mainloop == core->mainloop);
    if (pthread_create(&io.thread, NULL, io_thread, NULL) != 0) {
        abort();
    }
}

static void end_io(void)
{
    pa_asyncmsgq_send(io.mq.inq, NULL, PA_MESSAGE_SHUTDOWN, NULL, 0, NULL);
    pthread_join(io.thread, NULL);
    pa_thread_mq_done(&io.mq);
    pa_rtpoll_free(io.rtpoll);
}

static pa_hook_result_t on_object(void *core, void *object, void *slot_data)
{
    (void) core;
    *(void **) slot_data = object;
    return PA_HOOK_OK;
}

static int sink_main_state(pa_sink *s, pa_sink_state_t state, pa_suspend_cause_t cause)
{
    seen.main_state = s;
    seen.state = (int) state;
    seen.cause = cause;
    return 0;
}

static int sink_io_state(pa_sink *s, pa_sink_state_t state, pa_suspend_cause_t cause)
{
    (void) state;
    (void) cause;
    seen.io_state = s;
    return 0;
}

static void sink_latency(pa_sink *s)
{
    seen.latency_changed = s;
}

static void sink_rewind(pa_sink *s)
{
    seen.rewind = s;
}

static void sink_reconfigure(pa_sink *s, pa_sample_spec *to, bool passthrough)
{
    (void) s;
    (void) to;
    (void) passthrough;
    seen.reconfigured = true;
}

/* In the I/O thread, while the main thread waits. */
static void look_at_sink(pa_sink *s)
{
    pa_memchunk chunk;

    XA_MEMBER(pa_sink, thread_info.state, s->thread_info.state == PA_SINK_IDLE);
    XA_MEMBER(pa_sink, thread_info.rtpoll, s->thread_info.rtpoll == io.rtpoll);
    XA_MEMBER(pa_sink, thread_info.max_rewind, s->thread_info.max_rewind == MAX_REWIND);
    XA_MEMBER(pa_sink, thread_info.max_request, s->thread_info.max_request == MAX_REQUEST);
    XA_MEMBER(pa_sink, thread_info.min_latency, s->thread_info.min_latency == LOWEST_LATENCY);
    XA_MEMBER(pa_sink, thread_info.max_latency, s->thread_info.max_latency == HIGHEST_LATENCY);
    XA_MEMBER(pa_sink, thread_info.fixed_latency, s->thread_info.fixed_latency == 0);
    XA_MEMBER(pa_sink, thread_info.inputs, pa_hashmap_isempty(s->thread_info.inputs));

    XA_MEMBER(pa_sink, thread_info.requested_latency,
              pa_sink_get_requested_latency_within_thread(s) == s->thread_info.requested_latency &&
                  s->thread_info.requested_latency == (pa_usec_t) -1);
    XA_MEANING("pa_sink.thread_info.requested_latency_valid",
               s->thread_info.requested_latency_valid);
    pa_sink_invalidate_requested_latency(s, true);
    XA_MEANING("pa_sink.thread_info.requested_latency_valid",
               !s->thread_info.requested_latency_valid);
    XA_MEMBER(pa_sink, update_requested_latency, seen.latency_changed == s);

    XA_MEMBER(pa_sink, thread_info.rewind_requested, !s->thread_info.rewind_requested);
    pa_sink_request_rewind(s, MAX_REWIND / 2);
    XA_MEMBER(pa_sink, request_rewind, seen.rewind == s);
    XA_MEMBER(pa_sink, thread_info.rewind_requested, s->thread_info.rewind_requested);
    XA_MEMBER(pa_sink, thread_info.rewind_nbytes, s->thread_info.rewind_nbytes == MAX_REWIND / 2);
    pa_sink_process_rewind(s, 0);
    XA_MEMBER(pa_sink, thread_info.rewind_requested, !s->thread_info.rewind_requested);

    pa_memchunk_reset(&chunk);
    pa_sink_render(s, MAX_REQUEST, &chunk);
    XA_MEMBER(pa_memchunk, memblock, pa_memblock_is_silence(chunk.memblock));
    XA_MEMBER(pa_memchunk, length, chunk.length > 0 && chunk.length <= MAX_REQUEST);
    XA_MEMBER(pa_memchunk, index,
              chunk.index + chunk.length <= pa_memblock_get_length(chunk.memblock));
    pa_memblock_unref(chunk.memblock);
}

static int sink_message(pa_msgobject *object, int code, void *data, int64_t offset,
                        pa_memchunk *chunk)
{
    pa_sink *s = PA_SINK(object);

    if (seen.asked_latency) {
        XA_MEANING("PA_SINK_MESSAGE_GET_LATENCY", code == PA_SINK_MESSAGE_GET_LATENCY);
        *(int64_t *) data = LATENCY;
        return 0;
    }
    if (code == SINK_LOOK) {
        look_at_sink(s);
        return 0;
    }
    return pa_sink_process_msg(object, code, data, offset, chunk);
}

void xa_layout_check_sink(pa_core *core, pa_module *module)
{
    const pa_sink_flags_t flags = PA_SINK_LATENCY | PA_SINK_DYNAMIC_LATENCY;
    pa_sink_new_data *data = pa_sink_new_data_init(xa_layout_room());
    pa_hook_slot *slot;
    void *put = NULL;
    pa_sink *s;

    begin_io(core);
    pa_sink_new_data_set_name(data, "xenaudio_sink");
    pa_sink_new_data_set_sample_spec(data, &spec);
    pa_sink_new_data_set_channel_map(data, &map);
    XA_MEMBER(pa_sink_new_data, name, strcmp(data->name, "xenaudio_sink") == 0);
    XA_MEMBER(pa_sink_new_data, proplist, xa_layout_allocated(data->proplist) != 0);
    XA_MEMBER(pa_sink_new_data, ports, xa_layout_allocated(data->ports) != 0);
    XA_MEMBER(pa_sink_new_data, sample_spec, pa_sample_spec_equal(&data->sample_spec, &spec));
    XA_MEMBER(pa_sink_new_data, channel_map, pa_channel_map_equal(&data->channel_map, &map));
    data->driver = "xenaudio";
    data->module = module;
    data->card = NULL;
    data->namereg_fail = false;
    pa_proplist_sets(data->proplist, "xenaudio.layout", "sink");
    s = pa_sink_new(core, data, flags);
    if (s == NULL) {
        XA_MEANING("pa_sink_new_data", false);
        return;
    }
    pa_sink_new_data_done(data);

    XA_MEMBER(pa_sink, parent, s->parent.parent.type_id == pa_sink_type_id);
    XA_MEMBER(pa_sink, parent.process_msg, s->parent.process_msg == pa_sink_process_msg);
    XA_MEMBER(pa_sink, index, pa_idxset_get_by_index(core->sinks, s->index) == s);
    XA_MEMBER(pa_sink, core, s->core == core);
    XA_MEMBER(pa_sink, state, s->state == PA_SINK_INIT);
    XA_MEMBER(pa_sink, flags, (s->flags & flags) == flags);
    XA_MEMBER(pa_sink, name, strcmp(s->name, "xenaudio_sink") == 0);
    XA_MEMBER(pa_sink, driver, strcmp(s->driver, "xenaudio") == 0);
    XA_MEMBER(pa_sink, proplist,
              strcmp(pa_proplist_gets(s->proplist, "xenaudio.layout"), "sink") == 0);
    XA_MEMBER(pa_sink, module, s->module == module);
    XA_MEMBER(pa_sink, card, s->card == NULL);
    XA_MEMBER(pa_sink, sample_spec, pa_sample_spec_equal(&s->sample_spec, &spec));
    XA_MEMBER(pa_sink, channel_map, pa_channel_map_equal(&s->channel_map, &map));
    XA_MEMBER(pa_sink, inputs, pa_idxset_isempty(s->inputs));
    XA_MEMBER(pa_sink, monitor_source,
              s->monitor_source ==
                  pa_namereg_get(core, "xenaudio_sink.monitor", PA_NAMEREG_SOURCE));

    s->parent.process_msg = sink_message;
    s->set_state_in_main_thread = sink_main_state;
    s->set_state_in_io_thread = sink_io_state;
    s->update_requested_latency = sink_latency;
    s->request_rewind = sink_rewind;
    s->reconfigure = sink_reconfigure;
    s->userdata = &seen;
    pa_sink_set_asyncmsgq(s, io.mq.inq);
    XA_MEMBER(pa_sink, asyncmsgq, s->asyncmsgq == io.mq.inq);
    pa_sink_set_rtpoll(s, io.rtpoll);
    pa_sink_set_max_rewind(s, MAX_REWIND);
    pa_sink_set_max_request(s, MAX_REQUEST);
    pa_sink_set_latency_range(s, LOWEST_LATENCY, HIGHEST_LATENCY);

    slot = pa_hook_connect(&core->hooks[PA_CORE_HOOK_SINK_PUT], PA_HOOK_NORMAL, on_object, &put);
    pa_sink_put(s);
    pa_hook_slot_free(slot);
    XA_MEANING("PA_CORE_HOOK_SINK_PUT", put == s);
    XA_MEMBER(pa_sink, set_state_in_main_thread, seen.main_state == s);
    XA_MEMBER(pa_sink, set_state_in_io_thread, seen.io_state == s);
    XA_MEANING("PA_SINK_IDLE", s->state == PA_SINK_IDLE && seen.state == (int) PA_SINK_IDLE);
    XA_MEMBER(pa_sink, reference_volume, pa_sink_get_volume(s, false) == &s->reference_volume);
    XA_MEMBER(pa_sink, real_volume, pa_cvolume_equal(&s->real_volume, &s->reference_volume));
    XA_MEANING("pa_sink.muted", pa_sink_get_mute(s, false) == s->muted && !s->muted);

    seen.asked_latency = true;
    XA_MEANING("pa_sink_get_latency", pa_sink_get_latency(s) == LATENCY);
    seen.asked_latency = false;
    pa_asyncmsgq_send(io.mq.inq, PA_MSGOBJECT(s), SINK_LOOK, NULL, 0, NULL);

    pa_sink_suspend(s, true, SUSPEND_CAUSE);
    XA_MEANING("PA_SINK_SUSPENDED", s->state == PA_SINK_SUSPENDED &&
                                        seen.state == (int) PA_SINK_SUSPENDED &&
                                        seen.cause == SUSPEND_CAUSE);
    XA_MEMBER(pa_sink, suspend_cause, s->suspend_cause == SUSPEND_CAUSE);
    pa_sink_reconfigure(
        s, &(pa_sample_spec){.format = PA_SAMPLE_S16LE, .rate = 8000, .channels = 2}, true);
    XA_MEMBER(pa_sink, reconfigure, seen.reconfigured);
    XA_MEMBER(pa_sink, userdata, s->userdata == &seen);

    pa_sink_unlink(s);
    end_io();
    pa_sink_unref(s);
}

static int source_main_state(pa_source *s, pa_source_state_t state, pa_suspend_cause_t cause)
{
    seen.main_state = s;
    seen.state = (int) state;
    seen.cause = cause;
    return 0;
}

static int source_io_state(pa_source *s, pa_source_state_t state, pa_suspend_cause_t cause)
{
    (void) state;
    (void) cause;
    seen.io_state = s;
    return 0;
}

static void source_latency(pa_source *s)
{
    seen.latency_changed = s;
}

static void source_reconfigure(pa_source *s, pa_sample_spec *to, bool passthrough)
{
    (void) s;
    (void) to;
    (void) passthrough;
    seen.reconfigured = true;
}

/* In the I/O thread, while the main thread waits. */
static void look_at_source(pa_source *s)
{
    XA_MEMBER(pa_source, thread_info.state, s->thread_info.state == PA_SOURCE_IDLE);
    XA_MEMBER(pa_source, thread_info.rtpoll, s->thread_info.rtpoll == io.rtpoll);
    XA_MEMBER(pa_source, thread_info.min_latency, s->thread_info.min_latency == LOWEST_LATENCY);
    XA_MEMBER(pa_source, thread_info.max_latency, s->thread_info.max_latency == HIGHEST_LATENCY);
    XA_MEMBER(pa_source, thread_info.fixed_latency, s->thread_info.fixed_latency == 0);
    XA_MEMBER(pa_source, thread_info.outputs, pa_hashmap_isempty(s->thread_info.outputs));

    XA_MEMBER(pa_source, thread_info.requested_latency,
              pa_source_get_requested_latency_within_thread(s) ==
                      s->thread_info.requested_latency &&
                  s->thread_info.requested_latency == (pa_usec_t) -1);
    XA_MEANING("pa_source.thread_info.requested_latency_valid",
               s->thread_info.requested_latency_valid);
    pa_source_invalidate_requested_latency(s, true);
    XA_MEANING("pa_source.thread_info.requested_latency_valid",
               !s->thread_info.requested_latency_valid);
    XA_MEMBER(pa_source, update_requested_latency, seen.latency_changed == s);
}

static int source_message(pa_msgobject *object, int code, void *data, int64_t offset,
                          pa_memchunk *chunk)
{
    pa_source *s = PA_SOURCE(object);

    if (seen.asked_latency) {
        XA_MEANING("PA_SOURCE_MESSAGE_GET_LATENCY", code == PA_SOURCE_MESSAGE_GET_LATENCY);
        *(int64_t *) data = LATENCY;
        return 0;
    }
    if (code == SOURCE_LOOK) {
        look_at_source(s);
        return 0;
    }
    return pa_source_process_msg(object, code, data, offset, chunk);
}

void xa_layout_check_source(pa_core *core, pa_module *module)
{
    const pa_source_flags_t flags = PA_SOURCE_LATENCY | PA_SOURCE_DYNAMIC_LATENCY;
    pa_source_new_data *data = pa_source_new_data_init(xa_layout_room());
    pa_hook_slot *slot;
    void *put = NULL;
    pa_source *s;

    begin_io(core);
    pa_source_new_data_set_name(data, "xenaudio_source");
    pa_source_new_data_set_sample_spec(data, &spec);
    pa_source_new_data_set_channel_map(data, &map);
    XA_MEMBER(pa_source_new_data, name, strcmp(data->name, "xenaudio_source") == 0);
    XA_MEMBER(pa_source_new_data, proplist, xa_layout_allocated(data->proplist) != 0);
    XA_MEMBER(pa_source_new_data, ports, xa_layout_allocated(data->ports) != 0);
    XA_MEMBER(pa_source_new_data, sample_spec, pa_sample_spec_equal(&data->sample_spec, &spec));
    XA_MEMBER(pa_source_new_data, channel_map, pa_channel_map_equal(&data->channel_map, &map));
    data->driver = "xenaudio";
    data->module = module;
    data->card = NULL;
    data->namereg_fail = false;
    pa_proplist_sets(data->proplist, "xenaudio.layout", "source");
    s = pa_source_new(core, data, flags);
    if (s == NULL) {
        XA_MEANING("pa_source_new_data", false);
        return;
    }
    pa_source_new_data_done(data);

    XA_MEMBER(pa_source, parent, s->parent.parent.type_id == pa_source_type_id);
    XA_MEMBER(pa_source, parent.process_msg, s->parent.process_msg == pa_source_process_msg);
    XA_MEMBER(pa_source, index, pa_idxset_get_by_index(core->sources, s->index) == s);
    XA_MEMBER(pa_source, core, s->core == core);
    XA_MEMBER(pa_source, state, s->state == PA_SOURCE_INIT);
    XA_MEMBER(pa_source, flags, (s->flags & flags) == flags);
    XA_MEMBER(pa_source, name, strcmp(s->name, "xenaudio_source") == 0);
    XA_MEMBER(pa_source, driver, strcmp(s->driver, "xenaudio") == 0);
    XA_MEMBER(pa_source, proplist,
              strcmp(pa_proplist_gets(s->proplist, "xenaudio.layout"), "source") == 0);
    XA_MEMBER(pa_source, module, s->module == module);
    XA_MEMBER(pa_source, card, s->card == NULL);
    XA_MEMBER(pa_source, sample_spec, pa_sample_spec_equal(&s->sample_spec, &spec));
    XA_MEMBER(pa_source, channel_map, pa_channel_map_equal(&s->channel_map, &map));
    XA_MEMBER(pa_source, outputs, pa_idxset_isempty(s->outputs));
    XA_MEMBER(pa_source, monitor_of, s->monitor_of == NULL);

    s->parent.process_msg = source_message;
    s->set_state_in_main_thread = source_main_state;
    s->set_state_in_io_thread = source_io_state;
    s->update_requested_latency = source_latency;
    s->reconfigure = source_reconfigure;
    s->userdata = &seen;
    pa_source_set_asyncmsgq(s, io.mq.inq);
    XA_MEMBER(pa_source, asyncmsgq, s->asyncmsgq == io.mq.inq);
    pa_source_set_rtpoll(s, io.rtpoll);
    pa_source_set_latency_range(s, LOWEST_LATENCY, HIGHEST_LATENCY);

    slot = pa_hook_connect(&core->hooks[PA_CORE_HOOK_SOURCE_PUT], PA_HOOK_NORMAL, on_object, &put);
    pa_source_put(s);
    pa_hook_slot_free(slot);
    XA_MEANING("PA_CORE_HOOK_SOURCE_PUT", put == s);
    XA_MEMBER(pa_source, set_state_in_main_thread, seen.main_state == s);
    XA_MEMBER(pa_source, set_state_in_io_thread, seen.io_state == s);
    XA_MEANING("PA_SOURCE_IDLE", s->state == PA_SOURCE_IDLE && seen.state == (int) PA_SOURCE_IDLE);
    XA_MEMBER(pa_source, reference_volume, pa_source_get_volume(s, false) == &s->reference_volume);
    XA_MEMBER(pa_source, real_volume, pa_cvolume_equal(&s->real_volume, &s->reference_volume));
    XA_MEANING("pa_source.muted", pa_source_get_mute(s, false) == s->muted && !s->muted);

    seen.asked_latency = true;
    XA_MEANING("pa_source_get_latency", pa_source_get_latency(s) == LATENCY);
    seen.asked_latency = false;
    pa_asyncmsgq_send(io.mq.inq, PA_MSGOBJECT(s), SOURCE_LOOK, NULL, 0, NULL);

    pa_source_suspend(s, true, SUSPEND_CAUSE);
    XA_MEANING("PA_SOURCE_SUSPENDED", s->state == PA_SOURCE_SUSPENDED &&
                                          seen.state == (int) PA_SOURCE_SUSPENDED &&
                                          seen.cause == SUSPEND_CAUSE);
    XA_MEMBER(pa_source, suspend_cause, s->suspend_cause == SUSPEND_CAUSE);
    pa_source_reconfigure(
        s, &(pa_sample_spec){.format = PA_SAMPLE_S16LE, .rate = 8000, .channels = 2}, true);
    XA_MEMBER(pa_source, reconfigure, seen.reconfigured);
    XA_MEMBER(pa_source, userdata, s->userdata == &seen);

    pa_source_unlink(s);
    end_io();
    pa_source_unref(s);
}
