/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file output (a WAV file) and input (WAV, FLAC, ...), at the pace of a clock.
 *
 * The disk may stall; the engine's thread may not. So a thread of the file's own reads or writes
 * it, with a spool of some seconds between the two.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/clocked.h"
#include "backend/spool.h"
#include "soundfile/soundfile.h"

/* The file's own thread, and the spool between it and the engine's. */
struct worker {
    struct xa_spool spool;
    uint32_t woken; /* the engine's index in the spool when the thread was last woken: engine's */
    sem_t wake;     /* posted by the engine, and at the end */
    _Atomic bool stop;
    pthread_t thread;
};

static int worker_init(struct worker *worker, uint64_t octets)
{
    int error = xa_spool_init(&worker->spool, octets);

    if (!error)
        sem_init(&worker->wake, 0, 0);
    return error;
}

static void worker_free(struct worker *worker)
{
    sem_destroy(&worker->wake);
    xa_spool_free(&worker->spool);
}

static void worker_stop(struct worker *worker)
{
    atomic_store_explicit(&worker->stop, true, memory_order_release); /* acquired by the thread */
    sem_post(&worker->wake);
    pthread_join(worker->thread, NULL);
}

/* ---- output ---- */

struct file_output {
    struct xa_clocked_output clocked;
    struct worker worker;
    struct xa_soundfile *file;
    const struct xa_format *format;
    uint32_t frame_octets;
    uint32_t sync_octets; /* the file's header is brought up to date this often: a second */
    uint32_t wake_octets; /* the writer is woken when so much is new */
    uint32_t silent;      /* frames of silence that precede the next frames written */
    char path[XA_ROUTE_PATH + 16]; /* of the file */
    bool begun;                    /* something was written */
    uint64_t lost;                 /* frames; engine's */
    _Atomic uint64_t unsaved;      /* frames; writer's: the disk was full */
};

static void *write_file(void *user)
{
    struct file_output *out = user;
    struct worker *worker = &out->worker;
    uint32_t frame = out->frame_octets, most = (1u << 16) / frame * frame, since_sync = 0;
    uint8_t *buffer = malloc(most);
    bool stop;

    pthread_setname_np(pthread_self(), "xa-file"); /* else it has its maker's */
    do {
        uint32_t fill;

        sem_wait(&worker->wake);
        stop = atomic_load_explicit(&worker->stop, memory_order_acquire);
        while ((fill = xa_spool_fill(&worker->spool)) >= frame) {
            uint32_t octets = fill < most ? fill / frame * frame : most, written = 0;

            if (buffer) {
                xa_spool_get(&worker->spool, buffer, octets);
                written = xa_soundfile_write(out->file, buffer, octets / frame);
            } else {
                xa_spool_drop(&worker->spool, octets);
            }
            if (written < octets / frame)
                atomic_fetch_add_explicit(&out->unsaved, octets / frame - written,
                                          memory_order_relaxed);
            since_sync += octets;
        }
        if (since_sync >= out->sync_octets) {
            xa_soundfile_sync(out->file);
            since_sync = 0;
        }
    } while (!stop);
    free(buffer);
    return NULL;
}

static void spool_out(struct file_output *out, const void *data, uint32_t frames)
{
    struct worker *worker = &out->worker;
    uint32_t octets = frames * out->frame_octets, put;

    if (xa_spool_room(&worker->spool) < octets) {
        out->lost += frames;
        return;
    }
    put = xa_spool_put(&worker->spool, data, octets);
    if (put - worker->woken >= out->wake_octets) {
        worker->woken = put;
        sem_post(&worker->wake);
    }
}

static void output_stop(struct xa_output *output, uint64_t now, bool hold)
{
    struct file_output *out = (struct file_output *) output;

    xa_clocked_output_stop(output, now, hold);
    sem_post(&out->worker.wake);
}

static void output_write(struct xa_output *output, const void *frames, uint32_t count)
{
    struct file_output *out = (struct file_output *) output;
    uint8_t silence[4096];
    uint32_t most = sizeof(silence) / out->frame_octets;

    out->clocked.clock.passed += count;
    /* A gap is heard, so it is in the file; silence before the first frame and after the last is
     * not. */
    if (out->silent && out->begun) {
        xa_format_silence(out->format, silence, (size_t) most * out->frame_octets);
        while (out->silent) {
            uint32_t some = out->silent < most ? out->silent : most;

            spool_out(out, silence, some);
            out->silent -= some;
        }
    }
    out->silent = 0;
    out->begun = true;
    spool_out(out, frames, count);
}

static void output_silence(struct xa_output *output, uint32_t count)
{
    struct file_output *out = (struct file_output *) output;
    uint32_t most = out->worker.spool.size / out->frame_octets;

    out->clocked.clock.passed += count;
    /* A guest that starts and stops for hours without a sample would collect more than can be
     * written at once. */
    out->silent = count < most - out->silent ? out->silent + count : most;
}

static uint64_t output_lost(struct xa_output *output)
{
    struct file_output *out = (struct file_output *) output;

    return out->lost + atomic_load_explicit(&out->unsaved, memory_order_relaxed);
}

static void output_close(struct xa_output *output)
{
    struct file_output *out = (struct file_output *) output;

    worker_stop(&out->worker);
    xa_soundfile_close(out->file);
    if (!out->begun) /* programs open cards to see what they can do, and play nothing */
        unlink(out->path);
    worker_free(&out->worker);
    free(out);
}

static const struct xa_output_ops output_ops = {
    .start = xa_clocked_output_start,
    .stop = output_stop,
    .wants = xa_clocked_output_wants,
    .lacks = xa_clocked_output_lacks,
    .write = output_write,
    .silence = output_silence,
    .delay = xa_clocked_output_delay,
    .when = xa_clocked_output_when,
    .lost = output_lost,
    .trouble = xa_clocked_output_trouble,
    .close = output_close,
};

/* Creates the route's file: itself, or the first of its numbered names that is free. `path` gets
 * its name. */
static int create_file(const struct xa_route *route, const struct xa_pcm_params *params,
                       char path[XA_ROUTE_PATH + 16], struct xa_soundfile **file)
{
    const size_t room = XA_ROUTE_PATH + 16;
    size_t stem = strlen(route->path);
    int error;

    snprintf(path, room, "%s", route->path);
    if (!route->numbered)
        return xa_soundfile_create(path, false, params->format, params->rate, params->channels,
                                   file);
    if (stem > 4 && !strcmp(route->path + stem - 4, ".wav"))
        stem -= 4;
    for (unsigned number = 1; number < 100000; number++) {
        if (number == 1)
            snprintf(path, room, "%.*s.wav", (int) stem, route->path);
        else
            snprintf(path, room, "%.*s-%u.wav", (int) stem, route->path, number);
        error =
            xa_soundfile_create(path, true, params->format, params->rate, params->channels, file);
        if (error != -EEXIST)
            return error;
    }
    return -EEXIST;
}

int xa_output_file_open(const struct xa_route *route, const struct xa_pcm_params *params,
                        struct xa_output **output)
{
    struct file_output *out = calloc(1, sizeof(*out));
    uint64_t second = (uint64_t) params->rate * params->frame_octets;
    int error;

    if (!out)
        return -ENOMEM;
    out->clocked.base.ops = &output_ops;
    out->clocked.clock.rate = params->rate;
    out->format = params->format;
    out->frame_octets = params->frame_octets;
    out->sync_octets = (uint32_t) second;
    out->wake_octets = (uint32_t) (second / 4);
    error = worker_init(&out->worker, second * XA_ENDPOINT_SECONDS);
    if (error)
        goto fail;
    error = create_file(route, params, out->path, &out->file);
    if (error)
        goto fail_worker;
    error = -pthread_create(&out->worker.thread, NULL, write_file, out);
    if (error)
        goto fail_file;
    *output = &out->clocked.base;
    return 0;

fail_file:
    xa_soundfile_close(out->file);
fail_worker:
    worker_free(&out->worker);
fail:
    free(out);
    return error;
}

/* ---- input ---- */

struct file_input {
    struct xa_clocked_input clocked;
    struct worker worker;
    struct xa_soundfile *file;
    const struct xa_format *format;
    uint32_t frame_octets;
    bool loop;
};

/* Fills the spool as far as it goes; false at the file's end. */
static bool fill_spool(struct file_input *in, uint8_t *buffer, uint32_t most)
{
    struct xa_spool *spool = &in->worker.spool;
    uint32_t frame = in->frame_octets, room;
    bool rewound = false;

    while ((room = xa_spool_room(spool)) >= frame) {
        uint32_t wanted = (room < most ? room : most) / frame;
        uint32_t frames = xa_soundfile_read(in->file, buffer, wanted);

        xa_spool_put(spool, buffer, frames * frame);
        if (frames)
            rewound = false;
        if (frames < wanted) {
            /* A file that is empty, or has been cut short, has nothing to repeat. */
            if (!in->loop || rewound)
                return false;
            xa_soundfile_rewind(in->file);
            rewound = true;
        }
    }
    return true;
}

static void *read_file(void *user)
{
    struct file_input *in = user;
    uint32_t most = (1u << 16) / in->frame_octets * in->frame_octets;
    uint8_t *buffer = malloc(most);

    pthread_setname_np(pthread_self(), "xa-file");
    while (buffer && fill_spool(in, buffer, most)) {
        sem_wait(&in->worker.wake);
        if (atomic_load_explicit(&in->worker.stop, memory_order_acquire))
            break;
    }
    free(buffer);
    return NULL;
}

static void input_read(struct xa_input *input, void *frames, uint32_t count)
{
    struct file_input *in = (struct file_input *) input;
    struct worker *worker = &in->worker;
    uint32_t fill = xa_spool_fill(&worker->spool);
    uint32_t octets = count * in->frame_octets, have = fill < octets ? fill : octets;
    uint32_t got = xa_spool_get(&worker->spool, frames, have);

    xa_format_silence(in->format, (uint8_t *) frames + have, octets - have);
    in->clocked.clock.passed += count;
    if (got - worker->woken >= worker->spool.size / 2) {
        worker->woken = got;
        sem_post(&worker->wake);
    }
}

static void input_close(struct xa_input *input)
{
    struct file_input *in = (struct file_input *) input;

    worker_stop(&in->worker);
    xa_soundfile_close(in->file);
    worker_free(&in->worker);
    free(in);
}

static const struct xa_input_ops input_ops = {
    .start = xa_clocked_input_start,
    .stop = xa_clocked_input_stop,
    .ready = xa_clocked_input_ready,
    .read = input_read,
    .when = xa_clocked_input_when,
    .trouble = xa_clocked_input_trouble,
    .close = input_close,
};

int xa_input_file_open(const struct xa_route *route, const struct xa_pcm_params *params,
                       struct xa_input **input)
{
    struct file_input *in = calloc(1, sizeof(*in));
    struct xa_soundfile_info info;
    uint8_t *buffer = NULL;
    int error;

    if (!in)
        return -ENOMEM;
    in->clocked.base.ops = &input_ops;
    in->clocked.clock.rate = params->rate;
    in->format = params->format;
    in->frame_octets = params->frame_octets;
    in->loop = route->loop;
    error = worker_init(&in->worker,
                        (uint64_t) params->rate * params->frame_octets * XA_ENDPOINT_SECONDS);
    if (error)
        goto fail;
    error = xa_soundfile_open(route->path, params->format, &info, &in->file);
    if (error)
        goto fail_worker;
    if (info.rate != params->rate || info.channels != params->channels) {
        error = -ENOTSUP;
        goto fail_file;
    }
    /* Filled before the clock starts, or the first frames would be silence. */
    error = -ENOMEM;
    buffer = malloc(1u << 16);
    if (!buffer)
        goto fail_file;
    fill_spool(in, buffer, (1u << 16) / in->frame_octets * in->frame_octets);
    free(buffer);
    error = -pthread_create(&in->worker.thread, NULL, read_file, in);
    if (error)
        goto fail_file;
    *input = &in->clocked.base;
    return 0;

fail_file:
    xa_soundfile_close(in->file);
fail_worker:
    worker_free(&in->worker);
fail:
    free(in);
    return error;
}
