/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a sink's or source's stream; see stream-run.h. */
#include "config.h"

#include "stream-run.h"

#include <pulsecore/log.h>
#include <pulsecore/macro.h>

#include "sndif/xen.h"

/* When the last position arrived; 0: none has since OPEN. */
static uint64_t position_us(const struct xa_stream *front)
{
    uint64_t at = 0;

    (void) xa_stream_position(front, &at);
    return at;
}

static uint64_t period_us(const struct xa_pulse_run *run)
{
    return xa_pulse_us(&run->stream, run->stream.period_frames);
}

/* When a stream is taken for silent that told of no position since. */
static uint64_t silent_at(const struct xa_pulse_run *run, const struct xa_stream *front)
{
    uint64_t last = position_us(front);

    if (last < run->started_us)
        return run->started_us + XA_PULSE_LATE_FIRST + period_us(run);
    return last + XA_PULSE_LATE + period_us(run);
}

/*
 * Whether the stream told of no position for too long; *deadline: when it will have. If we come to
 * look much too late ourselves, it is all of the machine that stood still, perhaps, and the backend
 * has not had its turn yet.
 */
static bool is_silent(struct xa_pulse_run *run, const struct xa_stream *front, uint64_t now,
                      uint64_t *deadline)
{
    uint64_t limit = PA_MAX(silent_at(run, front), run->excused_us);

    if (now > limit + XA_PULSE_OVERSLEPT) {
        run->excused_us = now + XA_PULSE_EXCUSE;
        limit = run->excused_us;
    }
    *deadline = limit;
    return now >= limit;
}

/* What clients were asked for and was not heard yet, or was captured and they were not given yet,
 * when the backend told of a position last, at *when; or when the stream was started. */
static uint64_t told_latency(const struct xa_pulse_run *run, const struct xa_stream *front,
                             uint64_t *when)
{
    int64_t frames = xa_stream_latency(front) + run->ops->held(run->user);

    *when = PA_MAX(position_us(front), run->started_us);
    return xa_pulse_us(&run->stream, frames > 0 ? (uint64_t) frames : 0);
}

/* What was heard or captured since the last position is reckoned. */
static uint64_t moving_latency(const struct xa_pulse_run *run, const struct xa_stream *front,
                               uint64_t now)
{
    uint64_t when, latency = told_latency(run, front, &when);
    uint64_t passed = when > run->started_us ? now - PA_MIN(now, when) : 0;

    passed = PA_MIN(passed, period_us(run));
    if (run->stream.address.capture)
        return latency + passed;
    return latency > passed ? latency - passed : 0;
}

uint64_t xa_pulse_run_latency(const struct xa_pulse_run *run, uint64_t now_us)
{
    const struct xa_stream *front;

    switch (run->phase) {
    case XA_PULSE_CLOCKED:
    case XA_PULSE_STARTING:
        if (run->stream.address.capture)
            return now_us > run->clock_us ? now_us - run->clock_us : 0;
        return run->clock_us > now_us ? run->clock_us - now_us : 0;
    case XA_PULSE_MOVING:
        front = xa_pulse_stream_front(&run->stream);
        return front ? moving_latency(run, front, now_us) : 0;
    default:
        return 0;
    }
}

/* The clock begins where the stream ended: with what clients were asked for, or given, by then.
 * What would have been heard by now is not asked for in one go. */
static void go_clocked(struct xa_pulse_run *run, uint64_t now)
{
    const struct xa_stream *front = xa_pulse_stream_front(&run->stream);
    uint64_t when = now, latency = front ? told_latency(run, front, &when) : 0;

    run->clock_us =
        run->stream.address.capture ? when - PA_MIN(latency, when) : PA_MAX(when + latency, now);
    run->phase = XA_PULSE_CLOCKED;
    run->ops->let_go(run->user);
}

static void wait_for_stream(struct xa_pulse_run *run, uint64_t until)
{
    run->phase = XA_PULSE_WAITING;
    run->wait_until_us = until;
}

/* `phase`: MOVING, or STARTING. */
static void start(struct xa_pulse_run *run, struct xa_stream *front, enum xa_pulse_phase phase,
                  uint64_t now)
{
    run->ops->let_go(run->user);
    run->phase = phase;
    run->news = run->broken = false;
    run->started_us = now;
    run->excused_us = 0;
    run->ops->start(run->user, front);
    if (xa_stream_trigger(front, XENSND_OP_TRIGGER_START) < 0)
        run->broken = true;
}

/* Whether the stream is of no use any more: closes it then. *deadline: lowered to when to look
 * again. */
static bool gives_up(struct xa_pulse_run *run, const struct xa_stream *front, uint64_t now,
                     uint64_t *deadline)
{
    uint64_t silent_until;

    if (!is_silent(run, front, now, &silent_until) && !run->broken) {
        *deadline = PA_MIN(*deadline, silent_until);
        return false;
    }
    pa_log_info("%s: the backend %s: it goes by the clock", run->name,
                run->broken ? "refuses what it took before" : "tells of no position");
    if (run->phase == XA_PULSE_MOVING)
        go_clocked(run, now);
    else
        run->phase = XA_PULSE_CLOCKED;
    run->broken = false;
    xa_pulse_stream_close(&run->stream, now, deadline);
    return true;
}

/* The stream is open and started. Returns the next deadline. */
static uint64_t move(struct xa_pulse_run *run, struct xa_stream *front, uint64_t now)
{
    uint64_t deadline = UINT64_MAX;
    bool suits = run->ops->move(run->user, front, now, &deadline);

    if (gives_up(run, front, now, &deadline))
        return PA_MIN(deadline, run->ops->move_clocked(run->user, now));
    if (suits)
        return deadline;
    deadline = UINT64_MAX;
    wait_for_stream(run, now + XA_PULSE_PATIENCE_PLAYING);
    run->ops->let_go(run->user);
    xa_pulse_stream_close(&run->stream, now, &deadline);
    return PA_MIN(deadline, run->wait_until_us);
}

/* The same, but clients go by the clock until the backend tells of the first position. */
static uint64_t start_on(struct xa_pulse_run *run, struct xa_stream *front, uint64_t now)
{
    uint64_t deadline = UINT64_MAX;

    if (run->news && !run->broken) {
        run->phase = XA_PULSE_MOVING;
        return move(run, front, now);
    }
    (void) gives_up(run, front, now, &deadline);
    return PA_MIN(deadline, run->ops->move_clocked(run->user, now));
}

static uint64_t on_run(struct xa_pulse_client *client, uint64_t now)
{
    struct xa_pulse_run *run = client->user;
    uint64_t deadline = UINT64_MAX;
    enum xa_pulse_status status;
    struct xa_stream *front;

    if (!run->ops->wanted(run->user)) {
        run->phase = XA_PULSE_ASLEEP;
        run->ops->let_go(run->user);
        xa_pulse_stream_close(&run->stream, now, &deadline);
        return deadline;
    }
    if (run->phase == XA_PULSE_ASLEEP)
        wait_for_stream(run, now + XA_PULSE_PATIENCE);
    status = xa_pulse_stream_strive(&run->stream, run->latency_us, now, &deadline);
    front = xa_pulse_stream_front(&run->stream);
    if (run->phase == XA_PULSE_MOVING && status != XA_PULSE_OPEN) {
        pa_log_info("%s: its stream was closed: it goes by the clock", run->name);
        go_clocked(run, now);
    } else if (run->phase == XA_PULSE_STARTING && status != XA_PULSE_OPEN) {
        run->phase = XA_PULSE_CLOCKED;
    } else if (run->phase == XA_PULSE_WAITING && status == XA_PULSE_OPEN) {
        start(run, front, XA_PULSE_MOVING, now);
    } else if (run->phase == XA_PULSE_CLOCKED && status == XA_PULSE_OPEN) {
        start(run, front, XA_PULSE_STARTING, now);
    }
    if (run->phase == XA_PULSE_WAITING && (status == XA_PULSE_NEVER || now >= run->wait_until_us)) {
        pa_log_info("%s: its stream is not open: it goes by the clock", run->name);
        run->phase = XA_PULSE_CLOCKED;
        run->clock_us = now;
    }
    switch (run->phase) {
    case XA_PULSE_MOVING:
        return PA_MIN(deadline, move(run, front, now));
    case XA_PULSE_STARTING:
        return PA_MIN(deadline, start_on(run, front, now));
    case XA_PULSE_CLOCKED:
        return PA_MIN(deadline, run->ops->move_clocked(run->user, now));
    default:
        return PA_MIN(deadline, run->wait_until_us);
    }
}

static void on_stream(struct xa_pulse_client *client, struct xa_stream *stream,
                      enum xa_stream_event event, int error)
{
    struct xa_pulse_run *run = client->user;

    if (stream != xa_pulse_stream_front(&run->stream))
        return;
    xa_pulse_stream_event(&run->stream, event, error);
    if (event == (run->stream.address.capture ? XA_EVENT_DATA : XA_EVENT_POSITION))
        run->news = true;
    else if (event == XA_EVENT_FAILED || (event == XA_EVENT_TRIGGERED && error < 0))
        run->broken = true;
}

static void on_card(struct xa_pulse_client *client)
{
    struct xa_pulse_run *run = client->user;

    xa_pulse_stream_card(&run->stream);
}

void xa_pulse_run_init(struct xa_pulse_run *run, const struct xa_pulse_run_ops *ops, void *user,
                       const char *name)
{
    run->ops = ops;
    run->user = user;
    run->name = name;
    run->client.address = run->stream.address;
    run->client.run = on_run;
    run->client.stream = on_stream;
    run->client.card = on_card;
    run->client.user = run;
}
