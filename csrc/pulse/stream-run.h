/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a sink and a source do alike while there is one: open their stream when it is wanted, move
 * samples as the backend tells of positions, go on by the clock while no backend does, and close
 * the stream when nobody wants it. On the card's thread only, except for xa_pulse_run_init.
 */
#ifndef XA_PULSE_STREAM_RUN_H
#define XA_PULSE_STREAM_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include <pulse/sample.h>

#include "card-thread.h"
#include "stream-open.h"

enum xa_pulse_phase {
    XA_PULSE_ASLEEP,  /* not wanted: nothing is open */
    XA_PULSE_WAITING, /* for the stream, from a standstill or between two geometries */
    XA_PULSE_CLOCKED, /* no backend moves samples: by the clock */
    /* The stream is started, with silence; clients go by the clock until it tells of a position:
     * an output may take its time to begin, and who plays already does not wait for it. */
    XA_PULSE_STARTING,
    XA_PULSE_MOVING,
};

struct xa_pulse_run;

/* What a sink does differently from a source. `user` is the run's. */
struct xa_pulse_run_ops {
    /* Whether the stream is to be open. */
    bool (*wanted)(void *user);
    /* It is open; START follows. In the phase STARTING nothing is to be of clients. */
    void (*start)(void *user, struct xa_stream *front);
    /* Moves what can be moved; *deadline: lowered to when to be called again, without news too.
     * False: the stream is to be opened anew, now, for another latency. */
    bool (*move)(void *user, struct xa_stream *front, uint64_t now_us, uint64_t *deadline);
    /* Without the stream: up to `now_us` by run->clock_us. Returns when there is more. */
    uint64_t (*move_clocked)(void *user, uint64_t now_us);
    /* What was for the stream that was open is not for the next one. */
    void (*let_go)(void *user);
    /* Frames between PulseAudio and the stream. */
    int64_t (*held)(const void *user);
};

struct xa_pulse_run {
    struct xa_pulse_client client;
    const struct xa_pulse_run_ops *ops;
    void *user;
    const char *name; /* for the log */

    struct xa_pulse_stream stream;
    enum xa_pulse_phase phase;
    uint64_t latency_us; /* that clients want */
    bool news;           /* there is a new position, or there are new samples */
    bool broken;         /* the stream refused something: open it anew */
    uint64_t wait_until_us;
    uint64_t clock_us;   /* by the clock, moved until then */
    uint64_t started_us; /* when START was sent */
    uint64_t excused_us; /* until then a backend is not taken for silent */
};

/* `name` as the sink's or source's. Then xa_pulse_card_add(..., &run->client). */
void xa_pulse_run_init(struct xa_pulse_run *run, const struct xa_pulse_run_ops *ops, void *user,
                       const char *name);

/* Between PulseAudio and the ear, or the microphone and PulseAudio, microseconds. */
uint64_t xa_pulse_run_latency(const struct xa_pulse_run *run, uint64_t now_us);

#endif
