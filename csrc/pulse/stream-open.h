/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What sinks and sources share: the stream of a card that they want open, brought there again and
 * again, with a geometry that suits the latency that is wanted. On the card's thread only, except
 * for xa_pulse_stream_init.
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

/*
 * How many periods the buffer has. Three: it is filled up each time that one was heard, and then
 * two more are there, so that neither side's late waking is a gap.
 */
#define XA_PULSE_PERIODS 3u
/* Of a capture stream, how many periods its latency has: one is gathered, then fetched. */
#define XA_PULSE_CAPTURE_PERIODS 2u

/* What a position may be late before a sink or source goes on without, microseconds. */
#define XA_PULSE_LATE UINT64_C(80000)
/* How long clients wait, from a standstill, for a stream that is being opened. */
#define XA_PULSE_PATIENCE UINT64_C(500000)
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

/* Frames in a time, and the time of frames. */
uint64_t xa_pulse_frames(const struct xa_pulse_stream *stream, uint64_t us);
uint64_t xa_pulse_us(const struct xa_pulse_stream *stream, uint64_t frames);

#endif
