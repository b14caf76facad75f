/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two PulseAudio clients that measure a path between them: one plays frames of which each carries
 * its number, the other one records them somewhere else and reads the numbers. Behind `xenaudio
 * bench pulse`.
 *
 * 48 kHz, s16, stereo. A number is in 28 bits of a frame, and no frame with one is silent; so the
 * path must pass samples as they are. Times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef XA_BENCH_PULSE_BENCH_H
#define XA_BENCH_PULSE_BENCH_H

#include <stdint.h>

/* cffi: begin */
/* A chunk: when it was about to be written, or was there. */
struct xa_bench_mark {
    uint64_t time_ns;
    uint64_t frame;  /* the number of its first frame, from 0 */
    uint32_t frames; /* in it */
};

/* What the server said at a moment: that `frame`, the next to be written, will be heard after so
 * long. */
struct xa_bench_report {
    uint64_t time_ns;
    uint64_t frame;
    uint64_t latency_us;
};

struct xa_bench_heard {
    uint64_t frames;   /* with a number */
    uint64_t silences; /* runs of silent frames among them */
    uint64_t silent;   /* frames in these */
    uint64_t jumps;    /* numbers that do not follow the one before */
    uint64_t lost;     /* numbers left out by these */
};

/*
 * Plays for `ms` milliseconds on a sink, asking for a latency. Writes a mark for each chunk, up to
 * `most`, and asks for a report every 50 ms, of which it keeps `*reported` (and sets it to their
 * number). The number of marks, or a negative errno value: -ECONNREFUSED, also when the server
 * breaks off, -ENOTSUP in a build without libpulse.
 */
int xa_bench_pulse_play(const char *server, const char *sink, uint32_t latency_us, uint32_t ms,
                        struct xa_bench_mark *marks, uint32_t most, struct xa_bench_report *reports,
                        uint32_t *reported);

/*
 * Records a source for `ms` milliseconds in fragments of `fragment_us`: a mark for each chunk whose
 * first frame has a number. What comes before the number `first` is not judged, nor what follows
 * the last one. Writes 1 to the eventfd `ready` when it records. Its errors are those of
 * xa_bench_pulse_play.
 */
int xa_bench_pulse_listen(const char *server, const char *source, uint32_t fragment_us, uint32_t ms,
                          uint64_t first, int ready, struct xa_bench_mark *marks, uint32_t most,
                          struct xa_bench_heard *heard);
/* cffi: end */

#endif
