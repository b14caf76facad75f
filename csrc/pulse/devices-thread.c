/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread that follows the guest's cards; see devices-thread.h.
 *
 * It may outlive its owner, and with it the module: so what it uses is freed by whichever of the
 * two is the last, and the library that has its code stays loaded (meson.build).
 */
#include "config.h"

#include "devices-thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <pulse/rtclock.h>
#include <pulse/xmalloc.h>
#include <pulsecore/core-error.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>

#include "plain-thread.h"

struct xa_pulse_devices {
    atomic_int users; /* the owner and the thread; the last one frees it */
    struct xa_hv *hv;
    int wake; /* of our own, so that it is good as long as the thread is */
    int stop; /* eventfd: the thread is to end */
    _Atomic(struct xa_pulse_device_list *) newest;
    pthread_t thread;
    struct xa_devices *devices; /* the thread's alone */
};

static void unref(struct xa_pulse_devices *d)
{
    /* Acquire and release: the last one sees all that the other did. */
    if (atomic_fetch_sub_explicit(&d->users, 1, memory_order_acq_rel) > 1)
        return;
    pa_xfree(atomic_load_explicit(&d->newest, memory_order_relaxed));
    xa_devices_free(d->devices);
    if (d->hv)
        xa_hv_close(d->hv);
    if (d->wake >= 0)
        close(d->wake);
    if (d->stop >= 0)
        close(d->stop);
    pa_xfree(d);
}

/* ---- On the thread ---- */

static void on_list(void *user, const unsigned *devices, unsigned count)
{
    struct xa_pulse_devices *d = user;
    struct xa_pulse_device_list *list = pa_xnew0(struct xa_pulse_device_list, 1);

    list->count = count;
    memcpy(list->devices, devices, count * sizeof(devices[0]));
    /* Release: xa_pulse_devices_take sees what is in it. Acquire: of one that was not taken, to
     * free it, what is in it is ours already. */
    list = atomic_exchange_explicit(&d->newest, list, memory_order_acq_rel);
    pa_xfree(list);
    (void) eventfd_write(d->wake, 1);
}

static void on_store(void *user, const char *trouble)
{
    (void) user;
    if (*trouble)
        pa_log_notice("sound cards cannot be looked for, it is tried again: %s", trouble);
    else
        pa_log_info("sound cards are looked for");
}

/* Waits for the store, or for the end: false. */
static bool wait_for_more(struct xa_pulse_devices *d)
{
    struct pollfd polls[2] = {{.fd = d->stop, .events = POLLIN}};
    uint64_t now = pa_rtclock_now();
    uint64_t deadline = xa_devices_deadline(d->devices);
    int timeout = -1;

    polls[1].fd = xa_devices_fd(d->devices, &polls[1].events);
    if (deadline != UINT64_MAX)
        timeout = deadline > now ? (int) ((deadline - now + 999) / 1000) : 0;
    if (poll(polls, 2, timeout) < 0 && errno != EINTR) {
        pa_log_error("sound cards cannot be followed: poll failed: %s", pa_cstrerror(errno));
        return false;
    }
    return polls[0].revents == 0;
}

static void *devices_thread(void *user)
{
    struct xa_pulse_devices *d = user;

    do {
        xa_devices_process(d->devices, pa_rtclock_now());
    } while (wait_for_more(d));
    unref(d);
    return NULL;
}

/* ---- On PulseAudio's main thread ---- */

struct xa_pulse_devices *xa_pulse_devices_new(const char *hypervisor, int wake)
{
    static const struct xa_devices_callbacks callbacks = {.list = on_list, .store = on_store};
    struct xa_pulse_devices *d = pa_xnew0(struct xa_pulse_devices, 1);
    int error = 0;

    atomic_init(&d->users, 1);
    d->wake = fcntl(wake, F_DUPFD_CLOEXEC, 0);
    d->stop = eventfd(0, EFD_CLOEXEC);
    d->hv = xa_hv_open(hypervisor);
    if (d->wake < 0 || d->stop < 0 || !d->hv)
        error = -errno;
    if (error == 0) {
        d->devices = xa_devices_new(d->hv, &callbacks, d);
        error = d->devices ? 0 : -ENOMEM;
    }
    if (error == 0) {
        atomic_fetch_add_explicit(&d->users, 1, memory_order_relaxed);
        error = xa_pulse_thread_begin(&d->thread, "xenpv-devices", devices_thread, d);
        if (error < 0)
            atomic_fetch_sub_explicit(&d->users, 1, memory_order_relaxed);
    }
    if (error == 0)
        return d;
    if (error == -ENOTSUP)
        pa_log_error("hypervisor xen: these modules were built without Xen's libraries");
    else
        pa_log_error("sound cards cannot be followed: %s", pa_cstrerror(-error));
    unref(d);
    return NULL;
}

void xa_pulse_devices_free(struct xa_pulse_devices *d)
{
    struct timespec limit;

    if (!d)
        return;
    (void) eventfd_write(d->stop, 1);
    limit = xa_pulse_thread_patience();
    if (pthread_clockjoin_np(d->thread, NULL, CLOCK_MONOTONIC, &limit) != 0) {
        pa_log_info("the store is stuck: what looks for sound cards is left to itself");
        pthread_detach(d->thread);
    }
    unref(d);
}

struct xa_pulse_device_list *xa_pulse_devices_take(struct xa_pulse_devices *d)
{
    /* Acquire: pairs with the exchange in on_list. */
    return atomic_exchange_explicit(&d->newest, NULL, memory_order_acquire);
}
