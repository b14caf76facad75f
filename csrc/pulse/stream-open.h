/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What sinks and sources share: the stream of a card that they want open, brought there again and
 * again, with a geometry that suits the latency that is wanted. On the card's thread only, except
 * for xa_pulse_stream_init.
 *
 * The geometry. OPEN fixes how large the buffer is, from which a backend learns how much latency
 * its own output may have, and how often it tells of a position. So a stream that is open with one
 * that is too large for the latency wanted is opened anew: when what was written is heard, so that
 * the gap is silence only. (One short period for all latencies, whose events are ignored for the
 * most part, would spare the gap. But it costs both sides their wake-ups, and leaves the backend's
 * part of the latency as long as the largest buffer.)
 *
 * To play, what is written is the latency ahead of what is heard. A backend says how small the
 * buffer may be when it is asked (HW_PARAM_QUERY), and then the latency is no smaller. PulseAudio
 * is not told of that as the sink's least latency: it would store as much again for each client.
 *
 * If that can be next to nothing, samples are heard as they are taken. Then the buffer is the
 * latency, and has two periods: each time that one was heard it is filled up again, and the other
 * one is how late this side may be. And two frames, because events come a frame late: so what is
 * there lasts until the backend looks at the ring in any case, and no doorbell is needed.
 *
 * Else the output has a delay of its own. It is left half of the buffer, and positions lag what
 * was taken by two periods less than the buffer at most (sndif/position.h), and are to be what is
 * heard. So a period is a good third of the latency, and the buffer has six: all that is written
 * goes to the output at once. Its device may take as much at a time, and what is left is how late
 * anyone may be. Shorter periods would leave more of it, but each costs ten wake-ups along the
 * path. From some latency on periods grow no longer, and the buffer is the latency again.
 *
 * No rewinding. WRITE hands octets over in the order of the requests, whatever their offsets, and a
 * backend may copy them to where it keeps them as it answers: what was written cannot be rewritten,
 * and only STOP takes it back, all of it. So a sink's latency is what a change takes to be heard.
 */
#ifndef XA_PULSE_STREAM_OPEN_H
#define XA_PULSE_STREAM_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include <pulse/sample.h>

#include "card-thread.h"

/* Latencies, microseconds. */
#define XA_PULSE_LATENCY_MIN UINT64_C(2000)
#define XA_PULSE_LATENCY_MAX UINT64_C(2000000)
#define XA_PULSE_LATENCY_DEFAULT UINT64_C(200000)

/* The longest period to play, microseconds: the gap when a stream is opened anew is two at most. */
#define XA_PULSE_PERIOD_MOST UINT64_C(25000)

/* What a position may be late before a sink or source goes on without, microseconds. */
#define XA_PULSE_LATE UINT64_C(45000)
/* Who looks for it so much too late gives the backend a little more time. */
#define XA_PULSE_OVERSLEPT UINT64_C(5000)
#define XA_PULSE_EXCUSE UINT64_C(20000)
/* The first one: an output may take its time to begin. */
#define XA_PULSE_LATE_FIRST UINT64_C(600000)
/* How long clients wait for a stream that is being opened, from a standstill and while they play.
 */
#define XA_PULSE_PATIENCE UINT64_C(500000)
#define XA_PULSE_PATIENCE_PLAYING UINT64_C(200000)
/* Rendered or posted in one go while there is no backend. */
#define XA_PULSE_CLOCKED_BLOCK UINT64_C(20000)
/* A clock that is further behind has stood still, as the whole guest does when it is paused. */
#define XA_PULSE_CLOCK_LOST UINT64_C(1000000)

enum xa_pulse_status {
    XA_PULSE_NEVER, /* it will not be open soon: no backend, or it refuses */
    XA_PULSE_SOON,  /* requests are under way */
    XA_PULSE_OPEN,
};

struct xa_pulse_stream {
    struct xa_pulse_card *card;
    struct xa_pulse_address address;
    pa_sample_spec spec;
    uint8_t wire_format;
    uint32_t frame;                        /* octets */
    uint32_t buffer_frames, period_frames; /* as it was opened last */
    uint32_t opened_frames;                /* the latency that it was opened for */
    uint32_t least_frames;                 /* of latency, as far as the backend said then */

    bool asking;  /* HW_PARAM_QUERY has no answer yet */
    bool refused; /* HW_PARAM_QUERY was */
    bool told;    /* what keeps it from being opened was logged */
    uint64_t retry_us;
};

void xa_pulse_stream_init(struct xa_pulse_stream *stream, struct xa_pulse_card *card,
                          const struct xa_pulse_address *address, const pa_sample_spec *spec);

/* The frontend's stream, or NULL. */
struct xa_stream *xa_pulse_stream_front(const struct xa_pulse_stream *stream);

/* Takes the next step towards a stream open for `latency_us`. *deadline: lowered to when the step
 * after it is due. */
enum xa_pulse_status xa_pulse_stream_strive(struct xa_pulse_stream *stream, uint64_t latency_us,
                                            uint64_t now_us, uint64_t *deadline);

/* Closes it if it is open. *deadline: lowered to when it must be called again. */
void xa_pulse_stream_close(struct xa_pulse_stream *stream, uint64_t now_us, uint64_t *deadline);

/* For the client's own `stream` and `card`. */
void xa_pulse_stream_event(struct xa_pulse_stream *stream, enum xa_stream_event event, int error);
void xa_pulse_stream_card(struct xa_pulse_stream *stream);

/* The longest latency that a buffer of the configuration holds, at most `wanted_us`. */
uint64_t xa_pulse_latency_most(const struct xa_stream_config *config, const pa_sample_spec *spec,
                               uint64_t wanted_us);

/* The frames of latency that are wanted, or the least that can be. */
uint64_t xa_pulse_stream_wanted(const struct xa_pulse_stream *stream, uint64_t latency_us);

/* Frames in a time, and the time of frames. */
uint64_t xa_pulse_frames(const struct xa_pulse_stream *stream, uint64_t us);
uint64_t xa_pulse_us(const struct xa_pulse_stream *stream, uint64_t frames);

#endif
