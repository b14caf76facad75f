/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sample clock made of CLOCK_MONOTONIC, for outputs and inputs that have none of their own (file,
 * null). Times in nanoseconds, amounts in frames. One thread at a time.
 */
#ifndef XA_BACKEND_CLOCK_H
#define XA_BACKEND_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "sndif/position.h"

struct xa_clock {
    uint64_t origin; /* when it was started */
    uint64_t passed; /* frames handled since then */
    uint32_t rate;   /* Hz */
    int32_t ppm;     /* by how many millionths it is fast, above -1000000 */
    bool running;
};

/* What the clock says passed in `ns` of CLOCK_MONOTONIC, rounded down. */
static inline uint64_t xa_clock_passed_in(const struct xa_clock *clock, uint64_t ns)
{
    uint64_t factor = (uint64_t) (INT64_C(1000000) + clock->ppm);

    return ns / 1000000 * factor + ns % 1000000 * factor / 1000000;
}

/* How long it takes until the clock says that `ns` passed: rounded up, so that it then does. */
static inline uint64_t xa_clock_ns_until(const struct xa_clock *clock, uint64_t ns)
{
    uint64_t factor = (uint64_t) (INT64_C(1000000) + clock->ppm);

    return ns / factor * 1000000 + (ns % factor * 1000000 + factor - 1) / factor;
}

static inline uint64_t xa_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* Begins (anew) at `now`. */
static inline void xa_clock_start(struct xa_clock *clock, uint64_t now)
{
    clock->origin = now;
    clock->passed = 0;
    clock->running = true;
}

/* Frames that are due at `now` and not handled yet; 0 when stopped. */
static inline uint64_t xa_clock_due(const struct xa_clock *clock, uint64_t now)
{
    uint64_t due;

    if (!clock->running || now <= clock->origin)
        return 0;
    due = xa_frames_in(xa_clock_passed_in(clock, now - clock->origin), clock->rate);
    return due > clock->passed ? due - clock->passed : 0;
}

/* When `frames` more than those handled so far will be due. Meaningless when stopped. */
static inline uint64_t xa_clock_when(const struct xa_clock *clock, uint64_t frames)
{
    return clock->origin +
           xa_clock_ns_until(clock, xa_ns_until(clock->passed + frames, clock->rate));
}

#endif
