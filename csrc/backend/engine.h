/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backend's data plane, as the control plane sees it: one engine, whose thread moves the
 * samples of all streams and answers their requests, and a stream for each of a connected card's.
 *
 * The control plane connects a stream when a frontend has published its rings, reads its
 * statistics, and disconnects it. Nothing here calls back: the engine makes xa_engine_fd readable
 * when a stream has something to tell (xa_back_stream_stats: broken, trouble). All functions may be
 * called from any thread but the engine's; those that may block say so.
 */
#ifndef XA_BACKEND_ENGINE_H
#define XA_BACKEND_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/endpoint.h"
#include "hv/hv.h"

/* cffi: begin */
struct xa_engine;
struct xa_back_stream;

/* Starts the engine's thread. NULL with errno set. */
struct xa_engine *xa_engine_new(void);

/* Ends the thread and frees the engine. Every stream must have been disconnected before. */
void xa_engine_free(struct xa_engine *engine);

/* An eventfd that becomes readable when a stream broke or has other trouble than before; read 8
 * octets from it to clear it. */
int xa_engine_fd(const struct xa_engine *engine);

/* 0 when the engine's thread has real-time priority (SCHED_RR, 10), or the negative errno value
 * with which it was refused: then whatever else the machine does may make gaps. */
int xa_engine_realtime(const struct xa_engine *engine);

struct xa_back_stream_config {
    uint16_t domid; /* the guest */
    bool capture;
    uint32_t ring_ref, event_channel;
    uint32_t evt_ring_ref, evt_event_channel; /* both 0: a frontend of protocol version 1 */
    bool adopted;  /* a backend that is gone has served these rings: go on where it was */
    bool hold_off; /* the frontend rings for all but WRITE, asked to or not: for WRITE it may
                    * be left unasked (XA_CARD_FEATURE_HOLD_OFF of frontend/card.h) */
    struct xa_caps caps;
    struct xa_route route;
};

/*
 * Maps the stream's rings, binds its channels and hands it to the engine. May block for as long as
 * the hypervisor does. 0 with *stream set, or a negative errno value; *failed then says what
 * failed. `hv` must outlive the stream.
 */
int xa_back_stream_connect(struct xa_engine *engine, struct xa_hv *hv,
                           const struct xa_back_stream_config *config,
                           struct xa_back_stream **stream, const char **failed);

/*
 * From now on refuses every request but CLOSE and STOP (XEN_EIO), so that the guest's players end:
 * the stream is about to be disconnected. What the guest had written is still played, and its
 * events still sent.
 */
void xa_back_stream_refuse(struct xa_back_stream *stream);

/*
 * Takes the stream from the engine, closes what is open, unmaps and unbinds, and frees it. Blocks
 * for as long as closing its output and a job in progress take.
 */
void xa_back_stream_disconnect(struct xa_back_stream *stream);

enum xa_back_stream_state {
    XA_BACK_STREAM_CLOSED,  /* no PCM is open */
    XA_BACK_STREAM_BUSY,    /* opening or closing */
    XA_BACK_STREAM_OPEN,    /* opened, stopped or paused */
    XA_BACK_STREAM_RUNNING, /* started */
};

/* Amounts count from the connection, unless they say otherwise. */
struct xa_back_stream_stats {
    enum xa_back_stream_state state;
    /* Why the stream is of no use any more, in words for a log; NULL while it is well. The control
     * plane then closes the device. */
    const char *broken;
    /* What keeps the open PCM's output from being heard, or its input from hearing; NULL: nothing
     * that is known. The guest does not notice it. */
    const char *trouble;

    /* The open PCM's parameters, of the last one when closed. */
    uint8_t format; /* XENSND_PCM_FORMAT_* */
    uint32_t rate, channels, frame_octets, buffer_octets, period_octets;

    uint64_t opens;
    uint64_t requests;     /* taken from the ring */
    uint64_t bad_requests; /* answered with an error */
    int32_t last_error;    /* the status of the last one of these */
    const char *last_error_why;
    uint32_t last_error_value;
    uint64_t frames_in;      /* playback: taken from the guest; capture: from the input */
    uint64_t frames_out;     /* playback: given to the output; capture: to the guest */
    uint64_t frames_silent;  /* playback: silence given because the guest was late */
    uint64_t frames_dropped; /* playback: discarded by STOP or CLOSE; capture: not read in time */
    uint64_t frames_lost;    /* by the output: its disk was slow or full, its server away */
    uint64_t xruns;          /* gaps in the sound: underruns, or overruns of a capture */
    uint64_t events;         /* sent */
    uint64_t events_held;    /* merged into a later one because the page was full */
    uint64_t clamps;         /* positions that had to run ahead of what is heard */
    uint64_t wakeups;        /* of the engine for this stream's event channel */
    uint64_t throttles;      /* times the guest was made to wait for asking too much */

    uint64_t position;     /* octets since OPEN, as last reported */
    uint32_t fill_frames;  /* stored at the moment */
    uint32_t delay_frames; /* given to the output and not heard yet; capture: 0 */
    float peak;            /* largest sample since the last call, 0.0 to 1.0 */
};

/* A consistent copy of the statistics. `peak` begins anew. */
void xa_back_stream_read_stats(struct xa_back_stream *stream, struct xa_back_stream_stats *stats);

/* A point of a PCM's history, taken whenever its position is looked at. */
struct xa_trace_point {
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    uint64_t frames;  /* played (or captured) since OPEN */
    uint32_t fill;    /* frames stored then */
    uint32_t open;    /* which OPEN of the stream, from 1 */
    uint64_t silent;  /* playback: frames of silence since OPEN, because the guest was late */
};

/* Takes up to `most` of the points recorded since the last call, oldest first; their number. The
 * engine keeps the last 4096. */
uint32_t xa_back_stream_read_trace(struct xa_back_stream *stream, struct xa_trace_point *points,
                                   uint32_t most);
/* cffi: end */

#endif
