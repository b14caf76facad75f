/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One stream of a connected card: see stream.h. */
#include "backend/stream.h"

#include <errno.h>

#define MS UINT64_C(1000000)

/* Linux gives up on a response after 3 s. */
#define JOB_LIMIT (2500 * MS)
#define EVENTS_LIMIT (100 * MS)
#define EVENTS_POLL (2 * MS)

/* How soon, and how seldom, a full event page is looked at again. */
#define FLUSH_SOON (10 * MS)
#define FLUSH_SELDOM (500 * MS)

/* A thread, a map and a file; a thread is started for closing too. */
#define TOKENS_FOR_OPEN 100
#define TOKENS_FOR_CLOSE 30
#define TOKENS_AT_ONCE 32

static void break_stream(struct xa_back_stream *s, const char *why)
{
    if (s->stats.broken)
        return;
    s->stats.broken = why;
    xa_engine_forget(s);
    xa_engine_tell(s->engine);
}

static void notify(struct xa_back_stream *s, uint32_t port)
{
    if (xa_evtchn_notify(s->evtchn, port) < 0)
        break_stream(s, "its event channel cannot be notified");
}

static int32_t status_of(int error)
{
    switch (error) {
    case 0:
        return 0;
    case -ENOMEM:
        return -XEN_ENOMEM;
    case -EINVAL:
    case -EPROTO: /* the page directory */
        return -XEN_EINVAL;
    case -ENOENT:
    case -EACCES:
        return -XEN_EACCES;
    case -ENOSPC:
        return -XEN_ENOSPC;
    case -EBUSY:
        return -XEN_EBUSY;
    case -ENOTSUP:
        return -XEN_EOPNOTSUPP;
    default:
        return -XEN_EIO;
    }
}

/* Puts a response; the caller pushes it. */
static void respond(struct xa_back_stream *s, const struct xensnd_req *request, int32_t status,
                    const struct xensnd_query_hw_param *ranges)
{
    struct xensnd_resp response;

    /* All of it: an initialiser need not reach the octets of the union beyond its first member. */
    memset(&response, 0, sizeof(response));
    response.id = request->id;
    response.operation = request->operation;
    response.status = status;
    if (ranges)
        response.resp.hw_param = *ranges;
    if (status < 0) {
        s->stats.bad_requests++;
        s->stats.last_error = status;
    }
    if (xa_back_ring_put(&s->ring, &response) < 0)
        break_stream(s, "a response has no request");
}

static void refuse(struct xa_back_stream *s, const struct xensnd_req *request, int32_t status,
                   const char *why, uint32_t value)
{
    s->stats.last_error_why = why;
    s->stats.last_error_value = value;
    respond(s, request, status, NULL);
}

static void push(struct xa_back_stream *s)
{
    if (xa_back_ring_push(&s->ring))
        notify(s, s->ring_port);
}

static void finish(struct xa_back_stream *s, int32_t status)
{
    s->busy = XA_BUSY_NOT;
    respond(s, &s->request, status, NULL);
    push(s);
    s->more = true;
}

/* The memory that a PCM takes, with what its output or input stores. */
static uint64_t octets_of(const struct xa_pcm_params *params)
{
    uint64_t stored = (uint64_t) params->rate * params->frame_octets * XA_ENDPOINT_SECONDS;

    if (stored > XA_ENDPOINT_OCTETS)
        stored = XA_ENDPOINT_OCTETS;
    return (uint64_t) params->buffer_octets + 2 * (uint64_t) params->period_octets + stored;
}

/* Starts a job for the request in s->request. */
static void start_job(struct xa_back_stream *s, bool open, uint64_t now)
{
    int error;

    s->job.open = open;
    s->job.gref_directory = s->request.op.open.gref_directory;
    s->job.hv = s->hv;
    s->job.domid = s->config.domid;
    s->job.capture = s->config.capture;
    s->job.route = &s->config.route;
    s->job.wakes = xa_engine_wakes(s->engine);
    s->job.pcm = xa_transport_close(&s->transport, now);
    if (s->has_events)
        xa_evtpage_back_discard(&s->events);
    s->job.done = xa_engine_job_done;
    s->job.user = s;
    s->job_running = true;
    s->job_done = s->job_abandoned = false;
    s->busy = XA_BUSY_JOB;
    s->busy_until = now + JOB_LIMIT;
    error = xa_job_start(&s->job);
    if (error) {
        s->job_running = false;
        s->stats.last_error_why = "no thread can be started for it";
        finish(s, -XEN_ENOMEM);
        if (s->job.pcm) /* it is closed with the stream, where that may block */
            break_stream(s, "no thread can be started to close its output");
        else
            xa_allowance_hold(s->allowance, &s->held_octets, 0);
    }
}

static const char *trouble_of(const struct xa_pcm *pcm)
{
    return pcm->output ? pcm->output->ops->trouble(pcm->output)
                       : pcm->input->ops->trouble(pcm->input);
}

static void finish_job(struct xa_back_stream *s)
{
    s->job_running = s->job_done = false;
    if (!s->job.pcm)
        xa_allowance_hold(s->allowance, &s->held_octets, 0);
    if (s->job_abandoned) {
        /* Its request was answered long ago: what it opened is closed. */
        s->job_abandoned = false;
        if (!s->job.pcm)
            return;
        s->job.open = false;
        s->job_running = s->job_abandoned = true;
        if (xa_job_start(&s->job) < 0) {
            s->job_running = false; /* the PCM is closed with the stream */
            break_stream(s, "no thread can be started to close its output");
        }
        return;
    }
    if (s->job.open && !s->job.error) {
        const struct xa_pcm_params *params = &s->job.params;

        if (trouble_of(s->job.pcm))
            xa_engine_tell(s->engine); /* nobody could see it yet when it was told */
        xa_transport_open(&s->transport, s->job.pcm);
        s->job.pcm = NULL;
        s->sent = 0;
        s->stats.opens++;
        s->silent_before = s->transport.frames_silent;
        s->accounted = 0;
        s->stats.format = params->format->code;
        s->stats.rate = params->rate;
        s->stats.channels = params->channels;
        s->stats.frame_octets = params->frame_octets;
        s->stats.buffer_octets = params->buffer_octets;
        s->stats.period_octets = params->period_octets;
    } else if (s->job.error) {
        s->stats.last_error_why = s->job.failed;
        s->stats.last_error_value = (uint32_t) -s->job.error;
    }
    finish(s, s->job.open ? status_of(s->job.error) : 0);
}

static void send_position(struct xa_back_stream *s, uint64_t now)
{
    bool held = s->events.held;
    int sent;

    if (!s->has_events)
        return;
    sent = xa_evtpage_back_cur_pos(&s->events, s->transport.position);
    if (sent < 0) {
        break_stream(s, "its event page has an impossible index");
    } else if (sent) {
        s->sent = s->transport.position;
        s->stats.events++;
        s->untold = true;
    } else {
        s->stats.events_held++;
        if (!held)
            s->held_since = now;
        s->flush_at = now + FLUSH_SOON;
    }
}

/* Sends the position that found the page full, once there is room. Nobody tells when: it is looked
 * for, ever more seldom, because the guest may be paused for hours. */
static void flush_position(struct xa_back_stream *s, uint64_t now)
{
    uint64_t position = s->events.held_position;
    int sent = xa_evtpage_back_flush(&s->events);
    uint64_t wait = now - s->held_since;

    if (sent < 0) {
        break_stream(s, "its event page has an impossible index");
    } else if (sent) {
        s->sent = position;
        s->stats.events++;
        s->untold = true;
    } else {
        wait = wait < FLUSH_SOON ? FLUSH_SOON : wait;
        s->flush_at = now + (wait < FLUSH_SELDOM ? wait : FLUSH_SELDOM);
    }
}

static void record(struct xa_back_stream *s, uint64_t now)
{
    const struct xa_transport *t = &s->transport;
    uint32_t frame = t->pcm->params.frame_octets;

    if (s->trace_put - s->trace_got == XA_TRACE_POINTS)
        s->trace_got++;
    s->trace[s->trace_put++ % XA_TRACE_POINTS] = (struct xa_trace_point){
        .time_ns = now,
        .frames = t->moved / frame,
        .fill = t->fifo.fill / frame,
        .open = (uint32_t) s->stats.opens,
        .silent = t->frames_silent - s->silent_before,
    };
}

static void spend(struct xa_back_stream *s, uint64_t now, uint32_t tokens)
{
    s->stats.throttles += xa_allowance_spend(s->allowance, now, tokens);
}

static void advance(struct xa_back_stream *s, uint64_t now)
{
    uint64_t moved;

    if (xa_transport_advance(&s->transport, now)) {
        spend(s, now, 1);
        send_position(s, now);
    }
    /* A WRITE may have moved samples too. */
    moved = s->transport.moved - s->accounted;
    s->accounted = s->transport.moved;
    if (moved) {
        spend(s, now, 1 + (uint32_t) (moved / XA_OCTETS_PER_TOKEN));
        record(s, now);
    }
}

static void handle_open(struct xa_back_stream *s, const struct xensnd_req *request, uint64_t now)
{
    struct xa_pcm_params params;
    const char *why;
    uint32_t value;
    int status = xa_caps_check_open(&s->config.caps, &request->op.open, &params, &why, &value);

    if (s->job_running) {
        refuse(s, request, -XEN_EBUSY, "the last request to open still blocks", 0);
    } else if (status < 0) {
        refuse(s, request, status, why, value);
    } else if (!xa_allowance_hold(s->allowance, &s->held_octets, octets_of(&params))) {
        refuse(s, request, -XEN_ENOMEM, "a buffer for which the guest has no memory left",
               params.buffer_octets);
    } else {
        push(s);
        s->request = *request;
        s->job.params = params;
        start_job(s, true, now);
    }
}

static void handle_close(struct xa_back_stream *s, const struct xensnd_req *request, uint64_t now)
{
    if (!s->transport.pcm) {
        respond(s, request, 0, NULL);
        return;
    }
    push(s);
    s->request = *request;
    xa_transport_trigger(&s->transport, now, XENSND_OP_TRIGGER_STOP);
    if (s->has_events)
        xa_evtpage_back_discard(&s->events);
    s->busy = XA_BUSY_EVENTS;
    s->busy_until = now + EVENTS_LIMIT;
    s->events_poll_at = now;
}

/* Answers a request to the open PCM; `why` and `value` say what was wrong if it was refused. */
static void answer(struct xa_back_stream *s, const struct xensnd_req *request, int status,
                   const char *why, uint32_t value)
{
    if (status == 0)
        respond(s, request, 0, NULL);
    else
        refuse(s, request, status, s->transport.pcm ? why : "a request to a PCM that is not open",
               value);
}

static void handle_trigger(struct xa_back_stream *s, const struct xensnd_req *request, uint64_t now)
{
    unsigned type = request->op.trigger.type;
    int status;

    advance(s, now);
    if (type == XENSND_OP_TRIGGER_STOP && s->has_events && s->events.held) {
        /* It would tell of what STOP drops, after STOP was answered. */
        xa_evtpage_back_discard(&s->events);
        s->transport.told = s->sent;
    }
    status = xa_transport_trigger(&s->transport, now, type);
    if (s->transport.pcm && s->transport.pcm->params.period_octets && s->transport.told != s->sent)
        send_position(s, now); /* STOP took it to a multiple of the buffer */
    answer(s, request, status, "a TRIGGER out of place", type);
}

static bool ends_something(const struct xensnd_req *request)
{
    return request->operation == XENSND_OP_CLOSE ||
           (request->operation == XENSND_OP_TRIGGER &&
            request->op.trigger.type == XENSND_OP_TRIGGER_STOP);
}

static void handle(struct xa_back_stream *s, const struct xensnd_req *request, uint64_t now)
{
    struct xensnd_query_hw_param ranges;
    struct xensnd_rw_req rw = request->op.rw;
    int status;

    if (s->refusing && !ends_something(request)) {
        refuse(s, request, -XEN_EIO, "a request to a card that is being taken away",
               request->operation);
        return;
    }
    switch (request->operation) {
    case XENSND_OP_OPEN:
        handle_open(s, request, now);
        return;
    case XENSND_OP_CLOSE:
        handle_close(s, request, now);
        return;
    case XENSND_OP_WRITE:
        /* What was due before these samples came was due in silence; but nobody knows when they
         * came that were not to be told of. */
        if (!s->held_off)
            advance(s, now);
        status = xa_transport_write(&s->transport, now, rw.offset, rw.length);
        answer(s, request, status, "a WRITE that does not fit", rw.length);
        return;
    case XENSND_OP_READ:
        advance(s, now);
        status = xa_transport_read(&s->transport, now, rw.offset, rw.length);
        answer(s, request, status, "a READ that does not fit", rw.length);
        return;
    case XENSND_OP_TRIGGER:
        handle_trigger(s, request, now);
        return;
    case XENSND_OP_HW_PARAM_QUERY:
        ranges = request->op.hw_param;
        status = xa_caps_narrow(&s->config.caps, &ranges);
        if (status < 0)
            refuse(s, request, status, "ranges that leave nothing", 0);
        else
            respond(s, request, 0, &ranges);
        return;
    case XENSND_OP_SET_VOLUME:
    case XENSND_OP_GET_VOLUME:
    case XENSND_OP_MUTE:
    case XENSND_OP_UNMUTE:
        refuse(s, request, -XEN_EOPNOTSUPP, "volume is not offered", request->operation);
        return;
    default:
        refuse(s, request, -XEN_EOPNOTSUPP, "an unknown operation", request->operation);
        return;
    }
}

/* Opening is work, and so is copying; a length that is refused is not copied. */
static uint32_t tokens_for(const struct xa_back_stream *s, const struct xensnd_req *request)
{
    switch (request->operation) {
    case XENSND_OP_OPEN:
        return TOKENS_FOR_OPEN;
    case XENSND_OP_CLOSE:
        return s->transport.pcm ? TOKENS_FOR_CLOSE : 1;
    case XENSND_OP_READ:
    case XENSND_OP_WRITE:
        if (request->op.rw.length > s->config.caps.buffer_octets_max)
            return 1;
        return 1 + request->op.rw.length / XA_OCTETS_PER_TOKEN;
    default:
        return 1;
    }
}

/*
 * Whether WRITEs need no doorbell, because all that is due until the ring is looked at in any case
 * is there. Then a steady stream costs one wake-up a period.
 */
static bool can_hold_off(const struct xa_back_stream *s)
{
    return s->config.hold_off && s->has_events && xa_transport_is_ahead(&s->transport);
}

/* Answers what is in the ring. `last`: nothing else is due now, so a doorbell may be asked for. */
static void serve_requests(struct xa_back_stream *s, uint64_t now, bool last)
{
    s->more = false;
    for (uint32_t spent = 0, tokens; !s->busy && !s->stats.broken; spent += tokens) {
        struct xensnd_req request;
        int got;

        tokens = 1; /* a guest that plays with its index makes no endless loop */
        if (spent >= TOKENS_AT_ONCE || !xa_allowance_awake(s->allowance, now)) {
            s->more = true;
            break;
        }
        got = xa_back_ring_get(&s->ring, &request);
        if (got == 0) {
            if (last)
                s->held_off = can_hold_off(s);
            if (s->held_off)
                break;
            got = xa_back_ring_arm(&s->ring);
            if (got == 0)
                break;
            if (got > 0)
                continue;
        }
        if (got < 0) {
            break_stream(s, "its request ring has an impossible index");
            return;
        }
        s->stats.requests++;
        tokens = tokens_for(s, &request);
        spend(s, now, tokens);
        handle(s, &request, now);
    }
    push(s);
}

void xa_back_stream_woken(struct xa_back_stream *s, uint64_t now)
{
    uint32_t port;
    int pending;

    if (s->stats.broken)
        return;
    s->stats.wakeups++;
    spend(s, now, 1);
    if (!xa_allowance_awake(s->allowance, now)) {
        s->deaf = true;
        xa_engine_listen(s, false);
        return;
    }
    /* Both of its ports at most; more are for the next turn. */
    for (unsigned n = 0; n < 2; n++) {
        pending = xa_evtchn_pending(s->evtchn, &port);
        if (pending < 0) {
            break_stream(s, "its event channel is broken");
            return;
        }
        if (pending == 0)
            break;
    }
    s->more = true;
}

/* CLOSE may be answered when the frontend has seen every event, or has had time enough. */
static void wait_for_events(struct xa_back_stream *s, uint64_t now)
{
    int drained = s->has_events ? xa_evtpage_back_drained(&s->events) : 1;

    if (drained < 0)
        break_stream(s, "its event page has an impossible index");
    else if (drained || now >= s->busy_until)
        start_job(s, false, now);
    else
        s->events_poll_at = now + EVENTS_POLL;
}

static void run(struct xa_back_stream *s, uint64_t now)
{
    if (s->job_done)
        finish_job(s);
    if (s->stats.broken)
        return;
    if (!xa_allowance_awake(s->allowance, now))
        return;
    if (s->deaf) {
        s->deaf = false;
        xa_engine_listen(s, true);
        s->more = true;
    }
    if (s->busy == XA_BUSY_EVENTS)
        wait_for_events(s, now);
    if (s->busy == XA_BUSY_JOB && now >= s->busy_until) {
        s->job_abandoned = true;
        s->stats.last_error_why = "opening or closing its output takes too long";
        finish(s, -XEN_ETIMEDOUT);
    }
    if (s->has_events && s->events.held)
        flush_position(s, now);
    if (s->held_off && !s->busy && !s->stats.broken)
        serve_requests(s, now, false);
    if (s->transport.pcm)
        advance(s, now);
    if ((s->more || s->held_off) && !s->busy && !s->stats.broken)
        serve_requests(s, now, true);
}

void xa_back_stream_run(struct xa_back_stream *s, uint64_t now)
{
    run(s, now);
    /* At the end: the guest that wakes up finds its WRITEs answered too. */
    if (s->untold && !s->stats.broken)
        notify(s, s->evt_port);
    s->untold = false;
}

uint64_t xa_back_stream_deadline(const struct xa_back_stream *s)
{
    uint64_t deadline = UINT64_MAX, transport = xa_transport_deadline(&s->transport);

    if (s->job_done)
        return 0;
    if (s->stats.broken)
        return UINT64_MAX;
    if (s->busy == XA_BUSY_JOB)
        deadline = s->busy_until;
    else if (s->busy == XA_BUSY_EVENTS)
        deadline = s->events_poll_at;
    else if (s->more)
        deadline = 0;
    if (s->deaf)
        deadline = 0;
    if (s->has_events && s->events.held && s->flush_at < deadline)
        deadline = s->flush_at;
    if (transport < deadline)
        deadline = transport;
    return deadline < s->allowance->rest_until ? s->allowance->rest_until : deadline;
}
