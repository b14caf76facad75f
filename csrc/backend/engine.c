/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine: one thread that waits for all streams' event channels and deadlines. See engine.h.
 *
 * One mutex covers the list of streams and all that stream.h declares. The engine holds it while it
 * works, never while it waits; the control plane holds it to copy statistics or change the list, a
 * few microseconds; a job's thread holds it to say that it is done. It inherits priority, so the
 * engine waits for none of them longer than that.
 */
#include "backend/engine.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "backend/clock.h"
#include "backend/stream.h"

enum { EVENTS_AT_ONCE = 64 };

struct xa_engine {
    pthread_t thread;
    int realtime; /* xa_engine_realtime; set before anybody can ask */
    pthread_mutex_t mutex;
    pthread_cond_t job_done;
    struct xa_back_stream *streams;
    struct xa_allowance *allowances; /* of the guests that have streams */
    uint64_t removals; /* streams removed so far: an event for one may still be on its way */
    bool stop;
    int epoll_fd;
    int wake_fd;  /* eventfd: the list changed, a job is done, stop */
    int timer_fd; /* the next deadline */
    int tell_fd;  /* eventfd: to the control plane */
};

static void wake(const struct xa_engine *engine)
{
    eventfd_write(engine->wake_fd, 1);
}

void xa_engine_tell(struct xa_engine *engine)
{
    eventfd_write(engine->tell_fd, 1);
}

struct xa_endpoint_wakes xa_engine_wakes(const struct xa_engine *engine)
{
    return (struct xa_endpoint_wakes){.engine = engine->wake_fd, .control = engine->tell_fd};
}

void xa_engine_listen(struct xa_back_stream *stream, bool listen)
{
    struct epoll_event event = {.events = listen ? EPOLLIN : 0, .data.ptr = stream};

    epoll_ctl(stream->engine->epoll_fd, EPOLL_CTL_MOD, xa_evtchn_fd(stream->evtchn), &event);
}

void xa_engine_forget(struct xa_back_stream *stream)
{
    epoll_ctl(stream->engine->epoll_fd, EPOLL_CTL_DEL, xa_evtchn_fd(stream->evtchn), NULL);
}

void xa_engine_job_done(void *user, struct xa_job *job)
{
    struct xa_back_stream *stream = user;
    struct xa_engine *engine = stream->engine;

    (void) job;
    pthread_mutex_lock(&engine->mutex);
    stream->job_done = true;
    pthread_cond_broadcast(&engine->job_done);
    wake(engine); /* under the mutex: afterwards the stream, and then the engine, may be gone */
    pthread_mutex_unlock(&engine->mutex);
}

static void set_timer(struct xa_engine *engine, uint64_t deadline)
{
    struct itimerspec when = {0};

    if (deadline != UINT64_MAX) {
        when.it_value.tv_sec = (time_t) (deadline / 1000000000u);
        when.it_value.tv_nsec = (long) (deadline % 1000000000u);
    }
    timerfd_settime(engine->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Whether the timer was among them. */
static bool handle_events(struct xa_engine *engine, const struct epoll_event *events, int count,
                          uint64_t now)
{
    bool timed = false;

    for (int i = 0; i < count; i++) {
        uint64_t value;

        if (events[i].data.ptr == &engine->timer_fd)
            timed = true;
        else if (events[i].data.ptr != &engine->wake_fd)
            xa_back_stream_woken(events[i].data.ptr, now);
        else if (eventfd_read(engine->wake_fd, &value) < 0)
            continue;
    }
    return timed;
}

static void *run_engine(void *user)
{
    struct xa_engine *engine = user;
    uint64_t armed = UINT64_MAX;

    prctl(PR_SET_TIMERSLACK, 1);
    pthread_mutex_lock(&engine->mutex);
    while (!engine->stop) {
        struct epoll_event events[EVENTS_AT_ONCE];
        uint64_t deadline = UINT64_MAX, removals = engine->removals, now;
        int count;

        for (const struct xa_back_stream *s = engine->streams; s; s = s->next) {
            uint64_t due = xa_back_stream_deadline(s);

            if (due < deadline)
                deadline = due;
        }
        if (deadline != 0 && deadline != armed) {
            set_timer(engine, deadline);
            armed = deadline;
        }
        pthread_mutex_unlock(&engine->mutex);
        count = epoll_wait(engine->epoll_fd, events, EVENTS_AT_ONCE, deadline == 0 ? 0 : -1);
        pthread_mutex_lock(&engine->mutex);

        now = xa_monotonic_ns();
        /* Events are level-triggered, but the timer's: those of streams that are still there come
         * again. A timer that fired is set again even if this clock says that it is not time yet:
         * the kernel's may be ahead of what a program reads by a moment. */
        if (removals != engine->removals || handle_events(engine, events, count, now) ||
            now >= armed)
            armed = UINT64_MAX;
        for (struct xa_back_stream *s = engine->streams; s; s = s->next)
            if (xa_back_stream_deadline(s) <= now)
                xa_back_stream_run(s, now);
    }
    pthread_mutex_unlock(&engine->mutex);
    return NULL;
}

static int add_fd(const struct xa_engine *engine, int fd, void *tag)
{
    /* The timer is edge-triggered: it need not be read, which is a system call for each period. */
    struct epoll_event event = {.events = fd == engine->timer_fd ? EPOLLIN | EPOLLET : EPOLLIN,
                                .data.ptr = tag};

    return epoll_ctl(engine->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* Signals are the control plane's; real-time priority is taken where it is to be had. */
static int start_thread(struct xa_engine *engine)
{
    struct sched_param priority = {.sched_priority = 10};
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = -pthread_create(&engine->thread, NULL, run_engine, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return error;
    pthread_setname_np(engine->thread, "xa-engine");
    engine->realtime =
        -pthread_setschedparam(engine->thread, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
    return 0;
}

static void close_fds(const struct xa_engine *engine)
{
    const int fds[] = {engine->epoll_fd, engine->wake_fd, engine->timer_fd, engine->tell_fd};

    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

struct xa_engine *xa_engine_new(void)
{
    struct xa_engine *engine = calloc(1, sizeof(*engine));
    pthread_mutexattr_t attributes;
    int error = 0;

    if (!engine)
        return NULL;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&engine->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    pthread_cond_init(&engine->job_done, NULL);
    engine->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    engine->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    engine->tell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    engine->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (engine->epoll_fd < 0 || engine->wake_fd < 0 || engine->tell_fd < 0 || engine->timer_fd < 0)
        error = -errno;
    if (!error)
        error = add_fd(engine, engine->wake_fd, &engine->wake_fd);
    if (!error)
        error = add_fd(engine, engine->timer_fd, &engine->timer_fd);
    if (!error)
        error = start_thread(engine);
    if (!error)
        return engine;
    close_fds(engine);
    pthread_cond_destroy(&engine->job_done);
    pthread_mutex_destroy(&engine->mutex);
    free(engine);
    errno = -error;
    return NULL;
}

void xa_engine_free(struct xa_engine *engine)
{
    if (!engine)
        return;
    pthread_mutex_lock(&engine->mutex);
    engine->stop = true;
    wake(engine);
    pthread_mutex_unlock(&engine->mutex);
    pthread_join(engine->thread, NULL);
    close_fds(engine);
    pthread_cond_destroy(&engine->job_done);
    pthread_mutex_destroy(&engine->mutex);
    free(engine);
}

int xa_engine_fd(const struct xa_engine *engine)
{
    return engine->tell_fd;
}

int xa_engine_realtime(const struct xa_engine *engine)
{
    return engine->realtime;
}

/* Frees a stream that the engine does not know (any more). */
static void free_stream(struct xa_back_stream *stream)
{
    xa_pcm_free(xa_transport_close(&stream->transport, xa_monotonic_ns()));
    xa_pcm_free(stream->job.pcm);
    if (stream->evtchn)
        xa_evtchn_close(stream->evtchn);
    if (stream->evt_map)
        xa_map_free(stream->evt_map);
    if (stream->ring_map)
        xa_map_free(stream->ring_map);
    free(stream);
}

int xa_back_stream_connect(struct xa_engine *engine, struct xa_hv *hv,
                           const struct xa_back_stream_config *config,
                           struct xa_back_stream **stream, const char **failed)
{
    struct xa_back_stream *s = calloc(1, sizeof(*s));
    uint16_t domid = config->domid;
    int error;

    *failed = "no memory";
    if (!s)
        return -ENOMEM;
    s->engine = engine;
    s->hv = hv;
    s->config = *config;
    s->has_events = config->evt_ring_ref != 0;
    s->more = true; /* requests may be there already */
    xa_transport_init(&s->transport, config->capture);

    *failed = "its request ring (ring-ref) cannot be used";
    error = xa_map_new(hv, domid, 1, &config->ring_ref, true, &s->ring_map);
    if (error)
        goto fail;
    if (!config->adopted)
        xa_back_ring_attach(&s->ring, xa_map_memory(s->ring_map));
    else if ((error = xa_back_ring_adopt(&s->ring, xa_map_memory(s->ring_map))))
        goto fail;
    *failed = "event channels cannot be opened";
    error = xa_evtchn_open(hv, &s->evtchn);
    if (error)
        goto fail;
    *failed = "its event-channel cannot be bound";
    error = xa_evtchn_bind_interdomain(s->evtchn, domid, config->event_channel, &s->ring_port);
    if (error)
        goto fail;
    if (s->has_events) {
        *failed = "its event page (evt-ring-ref) cannot be used";
        error = xa_map_new(hv, domid, 1, &config->evt_ring_ref, true, &s->evt_map);
        if (error)
            goto fail;
        if (!config->adopted)
            xa_evtpage_back_attach(&s->events, xa_map_memory(s->evt_map));
        else if ((error = xa_evtpage_back_adopt(&s->events, xa_map_memory(s->evt_map))))
            goto fail;
        *failed = "its evt-event-channel cannot be bound";
        error =
            xa_evtchn_bind_interdomain(s->evtchn, domid, config->evt_event_channel, &s->evt_port);
        if (error)
            goto fail;
    }

    pthread_mutex_lock(&engine->mutex);
    *failed = "the engine cannot listen to it";
    s->allowance = xa_allowance_join(&engine->allowances, domid, xa_monotonic_ns());
    error = s->allowance ? add_fd(engine, xa_evtchn_fd(s->evtchn), s) : -ENOMEM;
    if (error) {
        xa_allowance_leave(&engine->allowances, s->allowance);
    } else {
        s->next = engine->streams;
        engine->streams = s;
        wake(engine);
    }
    pthread_mutex_unlock(&engine->mutex);
    if (error)
        goto fail;
    *stream = s;
    return 0;

fail:
    free_stream(s);
    return error;
}

void xa_back_stream_refuse(struct xa_back_stream *stream)
{
    pthread_mutex_lock(&stream->engine->mutex);
    stream->refusing = true;
    pthread_mutex_unlock(&stream->engine->mutex);
}

void xa_back_stream_disconnect(struct xa_back_stream *stream)
{
    struct xa_engine *engine = stream->engine;
    struct xa_back_stream **at = &engine->streams;

    pthread_mutex_lock(&engine->mutex);
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    engine->removals++;
    xa_engine_forget(stream);
    while (stream->job_running && !stream->job_done)
        pthread_cond_wait(&engine->job_done, &engine->mutex);
    xa_allowance_hold(stream->allowance, &stream->held_octets, 0);
    xa_allowance_leave(&engine->allowances, stream->allowance);
    pthread_mutex_unlock(&engine->mutex);
    free_stream(stream);
}

void xa_back_stream_read_stats(struct xa_back_stream *stream, struct xa_back_stream_stats *stats)
{
    struct xa_transport *t = &stream->transport;

    pthread_mutex_lock(&stream->engine->mutex);
    *stats = stream->stats;
    stats->state = stream->busy ? XA_BACK_STREAM_BUSY
                   : !t->pcm    ? XA_BACK_STREAM_CLOSED
                   : t->started ? XA_BACK_STREAM_RUNNING
                                : XA_BACK_STREAM_OPEN;
    stats->frames_in = t->frames_in;
    stats->frames_out = t->frames_out;
    stats->frames_silent = t->frames_silent;
    stats->frames_dropped = t->frames_dropped;
    stats->xruns = t->xruns;
    stats->clamps = t->clamps;
    stats->position = t->position;
    stats->frames_lost = t->frames_lost;
    stats->peak = t->peak;
    t->peak = 0.0f;
    if (t->pcm) {
        stats->fill_frames = t->fifo.fill / t->pcm->params.frame_octets;
        if (t->pcm->output) {
            stats->frames_lost += t->pcm->output->ops->lost(t->pcm->output);
            stats->delay_frames = t->pcm->output->ops->delay(t->pcm->output, xa_monotonic_ns());
            stats->trouble = t->pcm->output->ops->trouble(t->pcm->output);
        } else if (t->pcm->input) {
            stats->trouble = t->pcm->input->ops->trouble(t->pcm->input);
        }
    }
    pthread_mutex_unlock(&stream->engine->mutex);
}

uint32_t xa_back_stream_read_trace(struct xa_back_stream *stream, struct xa_trace_point *points,
                                   uint32_t most)
{
    uint32_t count = 0;

    pthread_mutex_lock(&stream->engine->mutex);
    while (count < most && stream->trace_got != stream->trace_put)
        points[count++] = stream->trace[stream->trace_got++ % XA_TRACE_POINTS];
    pthread_mutex_unlock(&stream->engine->mutex);
    return count;
}
