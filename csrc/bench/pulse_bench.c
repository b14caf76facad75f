/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two PulseAudio clients that measure the path between them: see pulse_bench.h. */
#include "bench/pulse_bench.h"

#include <errno.h>

#ifdef XA_HAVE_PULSE

#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#include <pulse/pulseaudio.h>

enum { RATE = 48000, FRAME = 4, BITS = 14, MASK = (1 << BITS) - 1 };

#define REPORT_EVERY UINT64_C(50000000) /* nanoseconds */

static const pa_sample_spec spec = {.format = PA_SAMPLE_S16LE, .rate = RATE, .channels = 2};

struct client {
    pa_mainloop *loop;
    pa_context *context;
    pa_stream *stream;
    struct xa_bench_mark *marks;
    uint32_t count, most;
    struct xa_bench_report *reports;
    uint32_t reported, reports_most;
    uint64_t report_at;
    uint64_t until_ns;
    uint64_t next; /* number of the next frame */
    int ready;
    uint64_t first;  /* number from which on what is heard is judged */
    bool heard_some; /* from there on */
    uint64_t silent; /* frames since the last number */
    struct xa_bench_heard *heard;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* Neither channel of a frame with a number is 0. */
static void write_number(int16_t *frame, uint64_t number)
{
    frame[0] = (int16_t) (1 + (number & MASK));
    frame[1] = (int16_t) (1 + (number >> BITS & MASK));
}

static bool read_number(const int16_t *frame, uint64_t *number)
{
    if (frame[0] <= 0 || frame[1] <= 0)
        return false;
    *number = (uint64_t) (frame[0] - 1) | (uint64_t) (frame[1] - 1) << BITS;
    return true;
}

static void mark(struct client *client, uint64_t time, uint64_t frame, uint32_t frames)
{
    if (client->count < client->most)
        client->marks[client->count++] =
            (struct xa_bench_mark){.time_ns = time, .frame = frame, .frames = frames};
}

static void on_report(pa_stream *stream, int success, void *user)
{
    struct client *client = user;
    pa_usec_t latency;
    int negative;

    if (!success || pa_stream_get_latency(stream, &latency, &negative) < 0 || negative ||
        client->reported == client->reports_most)
        return;
    client->reports[client->reported++] =
        (struct xa_bench_report){.time_ns = now_ns(), .frame = client->next, .latency_us = latency};
}

static void ask_for_report(struct client *client)
{
    pa_operation *operation;

    if (!client->reports || now_ns() < client->report_at ||
        pa_stream_get_state(client->stream) != PA_STREAM_READY)
        return;
    client->report_at = now_ns() + REPORT_EVERY;
    operation = pa_stream_update_timing_info(client->stream, on_report, client);
    if (operation)
        pa_operation_unref(operation);
}

static void play_some(pa_stream *stream, size_t octets, void *user)
{
    struct client *client = user;

    while (octets >= FRAME) {
        size_t some = octets;
        int16_t *frames;
        uint64_t now;
        void *data;

        if (pa_stream_begin_write(stream, &data, &some) < 0)
            return;
        some -= some % FRAME;
        frames = data;
        for (size_t i = 0; i < some / FRAME; i++)
            write_number(frames + 2 * i, client->next + i);
        now = now_ns();
        if (pa_stream_write(stream, data, some, NULL, 0, PA_SEEK_RELATIVE) < 0)
            return;
        mark(client, now, client->next, (uint32_t) (some / FRAME));
        client->next += some / FRAME;
        octets -= some < octets ? some : octets;
    }
}

static void hear(struct client *client, const int16_t *frames, uint32_t count, uint64_t now)
{
    struct xa_bench_heard *heard = client->heard;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t number;

        if (!read_number(frames + (size_t) 2 * i, &number)) {
            client->silent += client->heard_some;
            continue;
        }
        if (i == 0)
            mark(client, now, number, count);
        if (number < client->first)
            continue;
        if (client->silent) {
            heard->silences++;
            heard->silent += client->silent;
            client->silent = 0;
        }
        if (client->heard_some && number != client->next) {
            heard->jumps++;
            if (number > client->next)
                heard->lost += number - client->next;
        }
        client->heard_some = true;
        client->next = number + 1;
        heard->frames++;
    }
}

static void record_some(pa_stream *stream, size_t octets, void *user)
{
    struct client *client = user;
    uint64_t now = now_ns();
    const void *data;

    if (client->ready >= 0)
        eventfd_write(client->ready, 1);
    client->ready = -1;
    while (pa_stream_readable_size(stream) != (size_t) -1 && pa_stream_readable_size(stream) > 0) {
        if (pa_stream_peek(stream, &data, &octets) < 0 || !octets)
            return;
        if (data)
            hear(client, data, (uint32_t) (octets / FRAME), now);
        pa_stream_drop(stream);
    }
}

static int begin(struct client *client, const char *server, const char *name)
{
    client->loop = pa_mainloop_new();
    if (!client->loop)
        return -ENOMEM;
    client->context = pa_context_new(pa_mainloop_get_api(client->loop), name);
    if (!client->context)
        return -ENOMEM;
    if (pa_context_connect(client->context, server, PA_CONTEXT_NOAUTOSPAWN, NULL) < 0)
        return -ECONNREFUSED;
    while (pa_context_get_state(client->context) != PA_CONTEXT_READY) {
        if (!PA_CONTEXT_IS_GOOD(pa_context_get_state(client->context)) ||
            pa_mainloop_iterate(client->loop, 1, NULL) < 0)
            return -ECONNREFUSED;
    }
    client->stream = pa_stream_new(client->context, name, &spec, NULL);
    return client->stream ? 0 : -ENOMEM;
}

static int run(struct client *client)
{
    prctl(PR_SET_TIMERSLACK, 1);
    while (now_ns() < client->until_ns) {
        ask_for_report(client);
        if (pa_mainloop_prepare(client->loop, 10000) < 0 || pa_mainloop_poll(client->loop) < 0 ||
            pa_mainloop_dispatch(client->loop) < 0)
            return -ECONNREFUSED;
        if (!PA_STREAM_IS_GOOD(pa_stream_get_state(client->stream)))
            return -ECONNREFUSED;
    }
    return (int) client->count;
}

static int end(struct client *client, int result)
{
    if (client->stream) {
        pa_stream_disconnect(client->stream);
        pa_stream_unref(client->stream);
    }
    if (client->context) {
        pa_context_disconnect(client->context);
        pa_context_unref(client->context);
    }
    if (client->loop)
        pa_mainloop_free(client->loop);
    return result;
}

static pa_buffer_attr attributes(void)
{
    pa_buffer_attr unset;

    memset(&unset, 0xff, sizeof(unset));
    return unset;
}

static uint32_t octets_in(uint32_t us)
{
    return (uint32_t) ((uint64_t) us * RATE / 1000000) * FRAME;
}

int xa_bench_pulse_play(const char *server, const char *sink, uint32_t latency_us, uint32_t ms,
                        struct xa_bench_mark *marks, uint32_t most, struct xa_bench_report *reports,
                        uint32_t *reported)
{
    struct client client = {.marks = marks,
                            .most = most,
                            .reports = reports,
                            .reports_most = *reported,
                            .until_ns = now_ns() + UINT64_C(1000000) * ms};
    pa_buffer_attr wanted = attributes();
    int result = begin(&client, server, "xenaudio bench: plays");

    *reported = 0;
    if (result < 0)
        return end(&client, result);
    wanted.tlength = octets_in(latency_us);
    pa_stream_set_write_callback(client.stream, play_some, &client);
    if (pa_stream_connect_playback(client.stream, sink, &wanted, PA_STREAM_ADJUST_LATENCY, NULL,
                                   NULL) < 0)
        return end(&client, -ECONNREFUSED);
    result = run(&client);
    *reported = client.reported;
    return end(&client, result);
}

int xa_bench_pulse_listen(const char *server, const char *source, uint32_t fragment_us, uint32_t ms,
                          uint64_t first, int ready, struct xa_bench_mark *marks, uint32_t most,
                          struct xa_bench_heard *heard)
{
    struct client client = {.marks = marks,
                            .most = most,
                            .ready = ready,
                            .heard = heard,
                            .first = first,
                            .until_ns = now_ns() + UINT64_C(1000000) * ms};
    pa_buffer_attr wanted = attributes();
    int result = begin(&client, server, "xenaudio bench: listens");

    *heard = (struct xa_bench_heard){0};
    if (result < 0)
        return end(&client, result);
    wanted.fragsize = octets_in(fragment_us);
    pa_stream_set_read_callback(client.stream, record_some, &client);
    if (pa_stream_connect_record(client.stream, source, &wanted, PA_STREAM_ADJUST_LATENCY) < 0)
        return end(&client, -ECONNREFUSED);
    return end(&client, run(&client));
}

#else

int xa_bench_pulse_play(const char *server, const char *sink, uint32_t latency_us, uint32_t ms,
                        struct xa_bench_mark *marks, uint32_t most, struct xa_bench_report *reports,
                        uint32_t *reported)
{
    (void) server, (void) sink, (void) latency_us, (void) ms, (void) marks, (void) most;
    (void) reports, (void) reported;
    return -ENOTSUP;
}

int xa_bench_pulse_listen(const char *server, const char *source, uint32_t fragment_us, uint32_t ms,
                          uint64_t first, int ready, struct xa_bench_mark *marks, uint32_t most,
                          struct xa_bench_heard *heard)
{
    (void) server, (void) source, (void) fragment_us, (void) ms, (void) ready, (void) marks;
    (void) first;
    (void) most, (void) heard;
    return -ENOTSUP;
}

#endif
