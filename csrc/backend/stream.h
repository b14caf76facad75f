/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One stream of a connected card, as the engine sees it: its rings, its requests and their answers.
 *
 * The functions here are called by the engine's thread with the engine's mutex held, and never
 * block.
 */
#ifndef XA_BACKEND_STREAM_H
#define XA_BACKEND_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/allowance.h"
#include "backend/engine.h"
#include "backend/job.h"
#include "backend/transport.h"
#include "sndif/evtpage.h"
#include "sndif/ring.h"

enum { XA_TRACE_POINTS = 4096 };

/* Why no request is taken from the ring. */
enum xa_busy {
    XA_BUSY_NOT,
    XA_BUSY_JOB,    /* a job opens or closes */
    XA_BUSY_EVENTS, /* CLOSE waits for the frontend to consume the events sent */
};

struct xa_back_stream {
    struct xa_back_stream *next; /* in the engine's list */
    struct xa_engine *engine;
    struct xa_hv *hv;
    struct xa_back_stream_config config;

    struct xa_map *ring_map, *evt_map;
    struct xa_evtchn *evtchn;
    uint32_t ring_port, evt_port;
    struct xa_back_ring ring;
    struct xa_evtpage_back events;
    bool has_events;     /* protocol version 2 */
    bool untold;         /* there are events that the guest was not notified of */
    uint64_t sent;       /* the last position that found room in the event page */
    uint64_t held_since; /* while events.held: since when its page is full, */
    uint64_t flush_at;   /* and when to look again */

    struct xa_transport transport;
    enum xa_busy busy;
    struct xensnd_req request; /* the one being answered while busy */
    uint64_t busy_until;       /* then it is answered with an error */
    uint64_t events_poll_at;   /* XA_BUSY_EVENTS: when to look again */
    struct xa_job job;
    bool job_running;   /* the job is its thread's */
    bool job_done;      /* the job is ours again */
    bool job_abandoned; /* nobody waits for its result */

    struct xa_allowance *allowance; /* the guest's */
    uint64_t held_octets; /* what its PCM, or the one being opened, takes of the guest's memory */
    bool deaf;            /* its event channel is not listened to while the guest is at rest */
    bool more;            /* requests were left in the ring */
    bool held_off;        /* no doorbell was asked for: the ring is looked at when next due */
    bool refusing;        /* players are to end */

    struct xa_back_stream_stats stats;
    struct xa_trace_point trace[XA_TRACE_POINTS];
    uint32_t trace_put, trace_got;
    uint64_t silent_before; /* frames, when the PCM was opened */
    uint64_t accounted;     /* octets moved since then that the trace and the allowance know of */
};

/* The guest's event channel fired. */
void xa_back_stream_woken(struct xa_back_stream *stream, uint64_t now);

/* Does whatever is due: finished jobs, samples, events, requests left over. */
void xa_back_stream_run(struct xa_back_stream *stream, uint64_t now);

/* When xa_back_stream_run should be called next; 0: at once; UINT64_MAX: when something happens. */
uint64_t xa_back_stream_deadline(const struct xa_back_stream *stream);

/* The job's thread tells (without the mutex) that the job of the stream `user` is done. */
void xa_engine_job_done(void *user, struct xa_job *job);

/* Stops or resumes listening to the stream's event channel. */
void xa_engine_listen(struct xa_back_stream *stream, bool listen);

/* Ends listening to it for good: EPOLLERR and EPOLLHUP come even when not asked for. */
void xa_engine_forget(struct xa_back_stream *stream);

/* Tells the control plane that the stream broke. */
void xa_engine_tell(struct xa_engine *engine);

/* What wakes the engine, and the control plane. They stay open for as long as it has a stream. */
struct xa_endpoint_wakes xa_engine_wakes(const struct xa_engine *engine);

#endif
