/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One PCM stream of a card, the guest's end: opened, written or read, triggered, followed, closed.
 *
 * Streams belong to their card (card.h), which makes them when it reads its configuration and frees
 * them with itself: a pointer stays good as long as the card. Everything here is called on the
 * card's one thread, and from within its callbacks too; nothing here blocks. A request is put on
 * the ring and its outcome arrives later as an event from within xa_card_process.
 *
 * Octets are counted from OPEN in 64 bits, as sndif's positions are. Times are microseconds of
 * CLOCK_MONOTONIC. Errors are negative errno values:
 *   -ENOTCONN   the card is not connected now; its callback tells when it is
 *   -ENODEV     the card, as configured now, has no such stream
 *   -ETIMEDOUT  a request had no response for 3 s: the stream is dead until the card reconnects
 *   -EBUSY      the stream is not in the state that the call needs, or its ring is full
 */
#ifndef XA_FRONTEND_STREAM_H
#define XA_FRONTEND_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

/* cffi: begin */
struct xa_stream;

enum xa_stream_state {
    XA_STREAM_OFFLINE, /* the card is not connected */
    XA_STREAM_CLOSED,
    XA_STREAM_OPENING,
    XA_STREAM_OPEN,
    XA_STREAM_CLOSING,
    XA_STREAM_DEAD, /* a request timed out */
};

enum xa_stream_event {
    XA_EVENT_QUERIED,   /* HW_PARAM_QUERY answered: xa_stream_queried */
    XA_EVENT_OPENED,    /* OPEN answered; with an error the stream is closed again, or with
                         * -ECANCELED being closed: xa_stream_close came first */
    XA_EVENT_TRIGGERED, /* TRIGGER answered */
    XA_EVENT_POSITION,  /* there is a new position, or room because a WRITE was answered */
    XA_EVENT_DATA,      /* capture: xa_stream_read has something to give */
    XA_EVENT_CLOSED, /* CLOSE answered; error -ENOTCONN: the card disconnected while it was open */
    XA_EVENT_FAILED, /* a WRITE or READ was refused (close, then open again), or -ETIMEDOUT */
};

struct xa_stream_params {
    uint32_t rate;  /* Hz */
    uint8_t format; /* XENSND_PCM_FORMAT_* */
    uint8_t channels;
    uint32_t buffer_octets; /* whole frames, at least two periods */
    uint32_t period_octets; /* whole frames, at least one: how often positions are reported */
};

/* Ranges of HW_PARAM_QUERY; buffer and period in frames. */
struct xa_stream_ranges {
    uint64_t formats;
    uint32_t rate_min, rate_max;
    uint32_t channels_min, channels_max;
    uint32_t buffer_min, buffer_max;
    uint32_t period_min, period_max;
};

/* Counters since the last OPEN. */
struct xa_stream_stats {
    uint64_t events;         /* position events received */
    uint64_t requests;       /* put on the ring */
    uint64_t doorbells;      /* event channel notifications sent */
    uint64_t wakeups;        /* times that an event channel of the stream fired */
    uint64_t underruns;      /* playback: times that the position ran past what was written */
    uint64_t overruns;       /* capture: times that more than a buffer lay unread */
    uint64_t overrun_octets; /* and how much was thereby lost */
};

/* Stays at its place; its contents change when the card reconnects to another configuration. */
const struct xa_stream_config *xa_stream_config(const struct xa_stream *stream);
enum xa_stream_state xa_stream_state(const struct xa_stream *stream);

/* Narrows `ranges` to what the backend can do; then XA_EVENT_QUERIED. -EOPNOTSUPP: protocol 1. */
int xa_stream_query(struct xa_stream *stream, const struct xa_stream_ranges *ranges);
/* The answer of the last query that succeeded. -ENODATA when there is none. */
int xa_stream_queried(const struct xa_stream *stream, struct xa_stream_ranges *ranges);

/*
 * Opens the stream; then XA_EVENT_OPENED. The shared buffer of an earlier OPEN is used again when
 * it is large enough. -EINVAL when the configuration does not allow the parameters; xa_share_new's
 * errors.
 */
int xa_stream_open(struct xa_stream *stream, const struct xa_stream_params *params);

/* Closes it; then XA_EVENT_CLOSED. What was written and not played is dropped. */
int xa_stream_close(struct xa_stream *stream);

/* `type`: XENSND_OP_TRIGGER_START, _PAUSE, _STOP or _RESUME; then XA_EVENT_TRIGGERED. After STOP,
 * what was written and not heard, or captured and not fetched, is gone; positions count on from
 * where the backend says that it stopped, which may be up to a buffer further on. -EBUSY while
 * another STOP is not answered. */
int xa_stream_trigger(struct xa_stream *stream, uint8_t type);

/*
 * Playback: copies up to `octets` octets, whole frames, to the shared buffer and hands them to the
 * backend. The number taken, 0 when there is no room (wait for XA_EVENT_POSITION); after a refused
 * WRITE its error. At most two requests a call. Allowed before START: that is how a buffer is
 * filled first.
 */
int64_t xa_stream_write(struct xa_stream *stream, const void *data, uint32_t octets);

/* Playback: octets that xa_stream_write takes now. */
uint32_t xa_stream_room(const struct xa_stream *stream);

/*
 * Capture: copies up to `octets` octets, whole frames, of what was captured. The number given, 0
 * when there is none (wait for XA_EVENT_DATA); after a refused READ its error. What was captured is
 * fetched without being asked for as positions arrive.
 */
int64_t xa_stream_read(struct xa_stream *stream, void *data, uint32_t octets);

/* The last position reported, octets since OPEN: heard (playback) or captured. *time_us: when it
 * arrived, 0 when none has. */
uint64_t xa_stream_position(const struct xa_stream *stream, uint64_t *time_us);

/*
 * Playback: octets of what was written since OPEN that are certainly over: heard, or dropped by
 * STOP. Less than the position says while it counts silence that the backend played for want of
 * samples; never counts what a WRITE without a response covers.
 */
uint64_t xa_stream_heard(const struct xa_stream *stream);

/* Octets written (playback) or given out (capture) since OPEN. */
uint64_t xa_stream_transferred(const struct xa_stream *stream);

/*
 * Frames between the application and the ear: written - heard for playback (negative when the
 * backend ran on past the last frame written), captured - read for capture.
 */
int64_t xa_stream_latency(const struct xa_stream *stream);

void xa_stream_stats(const struct xa_stream *stream, struct xa_stream_stats *stats);
/* cffi: end */

/* Whether the card has the stream, as it is configured now. */
bool xa_stream_is_configured(const struct xa_stream *stream);

#endif
