/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The playhead of an output that plays on a clock which we cannot read: how many of the frames
 * given to it have been heard by now. It is reckoned from its last report, by CLOCK_MONOTONIC; so
 * it moves evenly, and goes on when no reports come any more.
 *
 * Times in nanoseconds, amounts in frames. One thread; no allocation.
 */
#ifndef XA_BACKEND_PLAYHEAD_H
#define XA_BACKEND_PLAYHEAD_H

#include <stdbool.h>
#include <stdint.h>

struct xa_playhead {
    uint32_t rate; /* Hz */
    bool running;
    uint64_t given; /* frames given so far */
    uint64_t at;    /* the frame heard at `at_ns`; while it stands, the one heard last */
    uint64_t at_ns; /* may lie ahead: until then it stands */
};

/* Goes on from where it is; the first sound comes `delay` from `now`. */
void xa_playhead_start(struct xa_playhead *head, uint64_t now, uint64_t delay);

/* Stands. With `hold`, what was given and is not heard yet stays so; else all of it counts as
 * heard. */
void xa_playhead_stop(struct xa_playhead *head, uint64_t now, bool hold);

/* The output said that at `when` the frame `heard` was heard. */
void xa_playhead_report(struct xa_playhead *head, uint64_t heard, uint64_t when);

/* Frames heard by `now`: at most `given`. */
uint64_t xa_playhead_heard(const struct xa_playhead *head, uint64_t now);

/* For how many frames nothing was there to be heard. */
uint64_t xa_playhead_dry(const struct xa_playhead *head, uint64_t now);

/* So much silence was heard in place of frames: what is given next follows it. */
void xa_playhead_skip(struct xa_playhead *head, uint64_t frames);

/* When the frame `heard` will be heard. Meaningless while it stands. */
uint64_t xa_playhead_when(const struct xa_playhead *head, uint64_t heard);

#endif
