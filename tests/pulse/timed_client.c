/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of PulseAudio that plays a counter and keeps what it is told about latency.
 *
 *     timed_client SINK LATENCY_MS SECONDS LOG
 *
 * Plays s16le stereo at 48 kHz, each frame its own number, from 1. Writes lines to LOG:
 *     latency NS FRAMES US    at NS (CLOCK_MONOTONIC), FRAMES were written, and the next one is
 *                             said to be heard in US
 *     asked NS OCTETS         the server asked for so much more
 * and ends SECONDS after it began, without waiting for what is not heard. 0, or 1 with the reason.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include <pulse/pulseaudio.h>

#define RATE 48000
#define FRAME 4
/* No divisor of a period: every phase of it is asked at. */
#define ASK_US UINT64_C(17300)

static const pa_sample_spec spec = {.format = PA_SAMPLE_S16LE, .rate = RATE, .channels = 2};

static pa_mainloop *loop;
static pa_stream *stream;
static const char *sink;
static unsigned latency_ms;
static uint64_t written; /* frames */
static FILE *log_file;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "timed_client: %s\n", what);
    pa_mainloop_quit(loop, 1);
}

static void on_timing(pa_stream *s, int success, void *user)
{
    pa_usec_t latency;
    int negative;

    (void) user;
    if (success && pa_stream_get_latency(s, &latency, &negative) == 0 && !negative)
        fprintf(log_file, "latency %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now_ns(), written,
                (uint64_t) latency);
}

static void ask(pa_mainloop_api *api, pa_time_event *event, const struct timeval *at, void *user)
{
    pa_operation *operation;
    struct timeval next = *at;

    (void) user;
    operation = pa_stream_update_timing_info(stream, on_timing, NULL);
    if (operation)
        pa_operation_unref(operation);
    api->time_restart(event, pa_timeval_add(&next, ASK_US));
}

static void end(pa_mainloop_api *api, pa_time_event *event, const struct timeval *at, void *user)
{
    (void) api;
    (void) event;
    (void) at;
    (void) user;
    pa_mainloop_quit(loop, 0);
}

static void on_write(pa_stream *s, size_t octets, void *user)
{
    (void) user;
    fprintf(log_file, "asked %" PRIu64 " %zu\n", now_ns(), octets);
    octets -= octets % FRAME;
    while (octets > 0) {
        void *data;
        size_t most = octets;

        if (pa_stream_begin_write(s, &data, &most) < 0) {
            fail("pa_stream_begin_write failed");
            return;
        }
        most -= most % FRAME;
        for (size_t at = 0; at < most; at += FRAME) {
            uint32_t frame = (uint32_t) ++written;

            memcpy((char *) data + at, &frame, FRAME);
        }
        if (pa_stream_write(s, data, most, NULL, 0, PA_SEEK_RELATIVE) < 0) {
            fail("pa_stream_write failed");
            return;
        }
        octets -= most;
    }
}

static void on_stream(pa_stream *s, void *user)
{
    struct timeval now;

    (void) user;
    switch (pa_stream_get_state(s)) {
    case PA_STREAM_READY:
        pa_mainloop_get_api(loop)->time_new(
            pa_mainloop_get_api(loop), pa_timeval_add(pa_gettimeofday(&now), ASK_US), ask, NULL);
        break;
    case PA_STREAM_FAILED:
        fail(pa_strerror(pa_context_errno(pa_stream_get_context(s))));
        break;
    default:
        break;
    }
}

static void on_context(pa_context *context, void *user)
{
    pa_buffer_attr attr = {.maxlength = UINT32_MAX,
                           .tlength = latency_ms * (RATE / 1000) * FRAME,
                           .prebuf = UINT32_MAX,
                           .minreq = UINT32_MAX,
                           .fragsize = UINT32_MAX};

    (void) user;
    switch (pa_context_get_state(context)) {
    case PA_CONTEXT_READY:
        stream = pa_stream_new(context, "timed", &spec, NULL);
        pa_stream_set_state_callback(stream, on_stream, NULL);
        pa_stream_set_write_callback(stream, on_write, NULL);
        pa_stream_connect_playback(stream, sink, &attr, PA_STREAM_ADJUST_LATENCY, NULL, NULL);
        break;
    case PA_CONTEXT_FAILED:
        fail(pa_strerror(pa_context_errno(context)));
        break;
    default:
        break;
    }
}

int main(int argc, char **argv)
{
    pa_mainloop_api *api;
    pa_context *context;
    struct timeval at;
    int result = 1;

    if (argc != 5) {
        fprintf(stderr, "usage: timed_client SINK LATENCY_MS SECONDS LOG\n");
        return 1;
    }
    sink = argv[1];
    latency_ms = (unsigned) strtoul(argv[2], NULL, 10);
    log_file = fopen(argv[4], "w");
    if (!log_file) {
        perror(argv[4]);
        return 1;
    }
    setvbuf(log_file, NULL, _IOLBF, 0); /* it is read meanwhile */
    prctl(PR_SET_TIMERSLACK, 1);
    loop = pa_mainloop_new();
    api = pa_mainloop_get_api(loop);
    context = pa_context_new(api, "timed_client");
    pa_context_set_state_callback(context, on_context, NULL);
    pa_context_connect(context, NULL, PA_CONTEXT_NOAUTOSPAWN, NULL);
    api->time_new(api,
                  pa_timeval_add(pa_gettimeofday(&at), (pa_usec_t) (strtod(argv[3], NULL) * 1e6)),
                  end, NULL);
    pa_mainloop_run(loop, &result);
    fclose(log_file);
    return result;
}
