/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How an open PCM moves: samples from the guest's shared buffer through a private fifo to the
 * output (playback), or from the input to the guest (capture), the position that is reported, and
 * when.
 *
 * Playback position: what was moved minus what the output has not sounded yet (xa_position_heard).
 * When the guest is late, silence is played and the position runs on, by one period at most; then
 * the output's clock stands until samples come. What the position ran on is not added for good: it
 * stands still until as much has been played, so that `written - position` stays right at the
 * guest's end.
 *
 * STOP drops what is stored, and takes the position on to a multiple of the buffer: the guest is to
 * be told at once. For Linux adds positions up modulo the buffer and never begins anew, while ALSA
 * begins at 0 after an xrun: anything but a multiple it would take for samples already played.
 * Without events the position stays.
 *
 * Times are CLOCK_MONOTONIC nanoseconds. Used by the engine's thread, or any one thread.
 */
#ifndef XA_BACKEND_TRANSPORT_H
#define XA_BACKEND_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/fifo.h"
#include "backend/job.h"

struct xa_transport {
    struct xa_pcm *pcm; /* NULL: nothing is open */
    bool capture;
    bool started; /* between START or RESUME and STOP or PAUSE */
    bool paused;
    bool dry_stop;   /* started, but the output's clock stands for want of samples */
    bool sounded;    /* samples were moved since START */
    bool overrun;    /* capture: samples are being dropped */
    bool unfinished; /* more was to be moved than is moved in one go */
    struct xa_fifo fifo;
    uint64_t moved; /* octets that went through since OPEN */
    uint64_t
        skipped; /* what the position is ahead of `moved` since the last STOP; wraps when behind */
    uint32_t run_on;   /* octets of silence played since samples ran out */
    uint64_t reached;  /* octets played, heard and run on when last looked at: may go back */
    uint64_t position; /* the largest of these: never goes back, but to `told` on STOP */
    uint64_t told;     /* what the last event reported */
    uint64_t event_at; /* the position at which the next event is due */

    /* Counted since xa_transport_init; frames, except xruns and clamps. */
    uint64_t frames_in, frames_out, frames_silent, frames_dropped, xruns, clamps;
    uint64_t frames_lost; /* by the outputs of PCMs that are closed */
    float peak;
};

void xa_transport_init(struct xa_transport *transport, bool capture);

/* Begins with a PCM just opened. */
void xa_transport_open(struct xa_transport *transport, struct xa_pcm *pcm);

/* Lets go of the PCM and returns it, or NULL when none is open. What the fifo holds is dropped. */
struct xa_pcm *xa_transport_close(struct xa_transport *transport, uint64_t now);

/*
 * The requests. 0 or the response's status: -XEN_EINVAL for octets outside of the buffer or not of
 * whole frames, -XEN_ENOSPC for more than the buffer holds unplayed, -XEN_EAGAIN for samples not
 * captured yet, -XEN_EIO when no PCM is open.
 */
int xa_transport_write(struct xa_transport *transport, uint64_t now, uint32_t offset,
                       uint32_t length);
int xa_transport_read(struct xa_transport *transport, uint64_t now, uint32_t offset,
                      uint32_t length);
int xa_transport_trigger(struct xa_transport *transport, uint64_t now, unsigned type);

/* Moves what is due. True when an event is due: send `position`, which is `told` from then on. */
bool xa_transport_advance(struct xa_transport *transport, uint64_t now);

/* Playback: whether what is stored lasts until xa_transport_deadline. */
bool xa_transport_is_ahead(const struct xa_transport *transport);

/* When xa_transport_advance should be called next; 0: at once; UINT64_MAX: nothing is to be done.
 */
uint64_t xa_transport_deadline(const struct xa_transport *transport);

#endif
