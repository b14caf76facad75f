/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stream on a PulseAudio server and its thread: see pulse_link.h. */
#ifdef XA_HAVE_PULSE

#include "backend/pulse_link.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "backend/clock.h"

#define MS UINT64_C(1000000)

#define RETRY (500 * MS)
/* An opening guest waits so long for a server or a device that is slow: it loses no sound then. */
#define OPEN_PATIENCE_MS 400
/* A guest that closes waits so long for what it played to be heard. */
#define CLOSE_PATIENCE (1000 * MS)
/* For so long a message of the server's may lie there unread, milliseconds. */
#define PATIENT_MS 20

static pa_sample_format_t pulse_format(const struct xa_format *format)
{
    switch (format->code) {
    case XENSND_PCM_FORMAT_U8:
        return PA_SAMPLE_U8;
    case XENSND_PCM_FORMAT_S16_LE:
        return PA_SAMPLE_S16LE;
    case XENSND_PCM_FORMAT_S16_BE:
        return PA_SAMPLE_S16BE;
    case XENSND_PCM_FORMAT_S24_LE:
        return PA_SAMPLE_S24_32LE;
    case XENSND_PCM_FORMAT_S24_BE:
        return PA_SAMPLE_S24_32BE;
    case XENSND_PCM_FORMAT_S32_LE:
        return PA_SAMPLE_S32LE;
    case XENSND_PCM_FORMAT_S32_BE:
        return PA_SAMPLE_S32BE;
    case XENSND_PCM_FORMAT_F32_LE:
        return PA_SAMPLE_FLOAT32LE;
    case XENSND_PCM_FORMAT_F32_BE:
        return PA_SAMPLE_FLOAT32BE;
    case XENSND_PCM_FORMAT_MU_LAW:
        return PA_SAMPLE_ULAW;
    case XENSND_PCM_FORMAT_A_LAW:
        return PA_SAMPLE_ALAW;
    default:
        return PA_SAMPLE_INVALID;
    }
}

bool xa_pulse_holds(const struct xa_format *format)
{
    return pulse_format(format) != PA_SAMPLE_INVALID;
}

static void say(struct xa_pulse_link *link, const char *trouble)
{
    if (atomic_exchange(&link->trouble, trouble) != trouble)
        eventfd_write(link->wakes.control, 1);
}

static void settle(struct xa_pulse_link *link)
{
    if (!link->settled_once)
        sem_post(&link->settled);
    link->settled_once = true;
}

static void set_up(struct xa_pulse_link *link, bool up)
{
    if (atomic_load_explicit(&link->up, memory_order_relaxed) == up)
        return;
    link->ops->changed(link, up);
    atomic_store_explicit(&link->up, up, memory_order_release);
}

static void drop_stream(struct xa_pulse_link *link)
{
    if (!link->stream)
        return;
    set_up(link, false);
    pa_stream_set_underflow_callback(link->stream, NULL, NULL);
    pa_stream_set_started_callback(link->stream, NULL, NULL);
    pa_stream_set_moved_callback(link->stream, NULL, NULL);
    pa_stream_disconnect(link->stream);
    pa_stream_unref(link->stream);
    link->stream = NULL;
}

static void drop_context(struct xa_pulse_link *link)
{
    drop_stream(link);
    if (!link->context)
        return;
    pa_context_disconnect(link->context);
    pa_context_unref(link->context);
    link->context = NULL;
}

/* It did not work: says why, and tries again later. */
static void fail(struct xa_pulse_link *link, uint64_t now, bool stream_only)
{
    int error = link->context ? pa_context_errno(link->context) : PA_ERR_INTERNAL;

    say(link, pa_strerror(error == PA_OK ? PA_ERR_CONNECTIONTERMINATED : error));
    if (stream_only)
        drop_stream(link);
    else
        drop_context(link);
    link->retry_at = now + RETRY;
    settle(link);
}

static void connect_context(struct xa_pulse_link *link, uint64_t now)
{
    pa_proplist *properties = pa_proplist_new();

    /* Neither media.role nor application.id: PulseAudio would then remember one volume for all
     * guests. It remembers one for each application.name. */
    pa_proplist_sets(properties, PA_PROP_APPLICATION_NAME, link->route.guest);
    pa_proplist_sets(properties, PA_PROP_APPLICATION_ICON_NAME, "computer");
    link->context = pa_context_new_with_proplist(pa_mainloop_get_api(link->loop), link->route.guest,
                                                 properties);
    pa_proplist_free(properties);
    if (!link->context ||
        pa_context_connect(link->context, link->route.server[0] ? link->route.server : NULL,
                           PA_CONTEXT_NOAUTOSPAWN, NULL) < 0)
        fail(link, now, false);
}

static void connect_stream(struct xa_pulse_link *link, uint64_t now)
{
    const char *device = link->route.device[0] ? link->route.device : NULL;
    pa_proplist *properties = pa_proplist_new();

    pa_proplist_sets(properties, PA_PROP_MEDIA_NAME, link->route.stream);
    pa_proplist_sets(properties, PA_PROP_MEDIA_ICON_NAME, "computer");
    link->stream = pa_stream_new_with_proplist(link->context, link->route.stream, &link->spec,
                                               &link->map, properties);
    pa_proplist_free(properties);
    if (!link->stream) {
        fail(link, now, true);
        return;
    }
    link->corked = true;
    if (link->ops->connect(link, device, PA_STREAM_START_CORKED | PA_STREAM_ADJUST_LATENCY) < 0)
        fail(link, now, true);
}

/* Does what the states call for; when to do so again at the latest. */
static uint64_t step(struct xa_pulse_link *link, uint64_t now)
{
    bool wanted = !link->settled_once ||
                  atomic_load_explicit(&link->want, memory_order_acquire) == XA_PULSE_RUNNING;

    if (link->context && !PA_CONTEXT_IS_GOOD(pa_context_get_state(link->context)))
        fail(link, now, false);
    if (link->stream && !PA_STREAM_IS_GOOD(pa_stream_get_state(link->stream)))
        fail(link, now, true);
    if (!link->context ||
        (!link->stream && pa_context_get_state(link->context) == PA_CONTEXT_READY)) {
        if (!wanted)
            return UINT64_MAX;
        if (now < link->retry_at)
            return link->retry_at;
        if (!link->context)
            connect_context(link, now);
        else
            connect_stream(link, now);
        return link->retry_at > now ? link->retry_at : UINT64_MAX;
    }
    if (!link->stream || pa_stream_get_state(link->stream) != PA_STREAM_READY)
        return UINT64_MAX;
    if (!link->settled_once && link->ops->prepare &&
        !link->ops->prepare(link, now < link->open_until))
        return link->open_until;
    set_up(link, true);
    settle(link);
    say(link, !link->corked && pa_stream_is_suspended(link->stream) > 0 ? "its device is suspended"
                                                                        : NULL);
    return link->ops->run(link, now);
}

static bool quits(struct xa_pulse_link *link, uint64_t now)
{
    if (!atomic_load_explicit(&link->quit, memory_order_acquire))
        return false;
    if (!link->quit_at)
        link->quit_at = now + CLOSE_PATIENCE;
    return now >= link->quit_at || !atomic_load_explicit(&link->up, memory_order_relaxed) ||
           link->ops->finished(link, now);
}

static void on_wake(pa_mainloop_api *api, pa_io_event *event, int fd, pa_io_event_flags_t flags,
                    void *user)
{
    eventfd_t value;

    (void) api;
    (void) event;
    (void) flags;
    (void) user;
    (void) eventfd_read(fd, &value);
}

/*
 * A server sends a message for each block that it played, and others that give memory back. While
 * they cannot change what the thread does next, they do not wake it: they are read when the engine
 * does, which is when there is something to write.
 */
static int wait_for_events(struct pollfd *polls, unsigned long count, int timeout_ms, void *user)
{
    const struct xa_pulse_link *link = user;
    struct pollfd wake = {.fd = link->wake_fd, .events = POLLIN};

    if (link->patient && timeout_ms != 0) {
        if (timeout_ms < 0 || timeout_ms > PATIENT_MS)
            timeout_ms = PATIENT_MS;
        if (poll(&wake, 1, timeout_ms) < 0)
            return -1;
        timeout_ms = 0;
    }
    return poll(polls, count, timeout_ms);
}

static void *run_link(void *user)
{
    struct xa_pulse_link *link = user;
    pa_mainloop_api *api = pa_mainloop_get_api(link->loop);
    pa_io_event *wake = api->io_new(api, link->wake_fd, PA_IO_EVENT_INPUT, on_wake, link);

    prctl(PR_SET_TIMERSLACK, 1);
    pa_mainloop_set_poll_func(link->loop, wait_for_events, link);
    for (;;) {
        uint64_t deadline, now;
        int timeout_us = -1;

        link->patient = false;
        deadline = step(link, xa_monotonic_ns());
        now = xa_monotonic_ns();
        if (quits(link, now))
            break;
        if (link->quit_at && link->quit_at < deadline)
            deadline = link->quit_at;
        if (deadline != UINT64_MAX)
            timeout_us = deadline > now ? (int) ((deadline - now + 999) / 1000) : 0;
        if (pa_mainloop_prepare(link->loop, timeout_us) < 0 || pa_mainloop_poll(link->loop) < 0 ||
            pa_mainloop_dispatch(link->loop) < 0)
            break;
    }
    drop_context(link);
    settle(link);
    api->io_free(wake);
    return NULL;
}

/* Like the engine's thread, and after it. */
static int start_thread(struct xa_pulse_link *link)
{
    struct sched_param priority = {.sched_priority = 9};
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = -pthread_create(&link->thread, NULL, run_link, link);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return error;
    pthread_setname_np(link->thread, "xa-pulse");
    pthread_setschedparam(link->thread, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
    return 0;
}

int xa_pulse_link_open(struct xa_pulse_link *link, const struct xa_route *route,
                       const struct xa_pcm_params *params, const struct xa_endpoint_wakes *wakes)
{
    struct timespec limit;
    int error;

    link->open_until = xa_monotonic_ns() + OPEN_PATIENCE_MS * MS;
    link->route = *route;
    link->wakes = *wakes;
    link->frame_octets = params->frame_octets;
    link->spec = (pa_sample_spec){.format = pulse_format(params->format),
                                  .rate = params->rate,
                                  .channels = (uint8_t) params->channels};
    if (params->channels > PA_CHANNELS_MAX || !pa_sample_spec_valid(&link->spec))
        return -ENOTSUP;
    pa_channel_map_init_extend(&link->map, params->channels, PA_CHANNEL_MAP_ALSA);
    link->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (link->wake_fd < 0)
        return -errno;
    error = -ENOMEM;
    link->loop = pa_mainloop_new();
    if (!link->loop)
        goto fail;
    sem_init(&link->settled, 0, 0);
    error = start_thread(link);
    if (error)
        goto fail_loop;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_nsec += OPEN_PATIENCE_MS * 1000000L;
    limit.tv_sec += limit.tv_nsec / 1000000000L;
    limit.tv_nsec %= 1000000000L;
    while (sem_timedwait(&link->settled, &limit) < 0 && errno == EINTR)
        ;
    return 0;

fail_loop:
    sem_destroy(&link->settled);
    pa_mainloop_free(link->loop);
fail:
    close(link->wake_fd);
    return error;
}

void xa_pulse_link_close(struct xa_pulse_link *link)
{
    atomic_store_explicit(&link->quit, true, memory_order_release);
    xa_pulse_link_wake(link);
    pthread_join(link->thread, NULL);
    sem_destroy(&link->settled);
    pa_mainloop_free(link->loop);
    close(link->wake_fd);
}

void xa_pulse_link_want(struct xa_pulse_link *link, enum xa_pulse_want want)
{
    if (atomic_exchange_explicit(&link->want, want, memory_order_acq_rel) != want)
        xa_pulse_link_wake(link);
}

void xa_pulse_link_wake(struct xa_pulse_link *link)
{
    eventfd_write(link->wake_fd, 1);
}

void xa_pulse_link_cork(struct xa_pulse_link *link, bool cork)
{
    pa_operation *operation = pa_stream_cork(link->stream, cork, NULL, NULL);

    if (operation)
        pa_operation_unref(operation);
    link->corked = cork;
}

#endif
