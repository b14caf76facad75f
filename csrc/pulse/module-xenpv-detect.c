/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module-xenpv-detect: every sound card of a Xen guest in PulseAudio, with a sink or source for
 * each of its streams, as cards are attached and detached. One line in default.pa.
 *
 * The module itself only keeps what there is in PulseAudio (detected-card.h) like the list of what
 * the guest has (devices-thread.h). The store is asked on other threads: loading it takes no time,
 * whatever the store does.
 */
#include "config.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <pulse/mainloop-api.h>
#include <pulse/rtclock.h>
#include <pulse/timeval.h>
#include <pulse/xmalloc.h>
#include <pulsecore/core.h>
#include <pulsecore/core-error.h>
#include <pulsecore/core-util.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>
#include <pulsecore/modargs.h>
#include <pulsecore/module.h>

#include "card-thread.h"
#include "detected-card.h"
#include "device-arguments.h"
#include "devices-thread.h"

PA_MODULE_AUTHOR("xenaudio");
PA_MODULE_DESCRIPTION("Sinks and sources for the sound cards of a Xen guest");
PA_MODULE_VERSION(PACKAGE_VERSION);
PA_MODULE_LOAD_ONCE(true);
PA_MODULE_USAGE("latency_msec=<the longest latency of each sink and source> "
                "hypervisor=<xen, or the socket of a domain of the stand-in>");

static const char *const valid_modargs[] = {"latency_msec", "hypervisor", NULL};

/* No node of the store tells that Linux's driver has let go of a card. */
#define HELD_RETRY (5 * PA_USEC_PER_SEC)

struct userdata {
    pa_core *core;
    pa_modargs *arguments;
    struct xa_detected_common common;
    pa_io_event *woken;
    pa_time_event *retry;
    struct xa_pulse_devices *devices;

    struct xa_pulse_device_list list;
    struct {
        unsigned device;
        struct xa_detected_card *card; /* NULL: it cannot be had */
    } cards[XA_DEVICES_MAX];
    unsigned count;
};

static bool is_listed(const struct userdata *u, unsigned device)
{
    for (unsigned i = 0; i < u->list.count; i++) {
        if (u->list.devices[i] == device)
            return true;
    }
    return false;
}

static bool is_there(const struct userdata *u, unsigned device)
{
    for (unsigned i = 0; i < u->count; i++) {
        if (u->cards[i].device == device)
            return true;
    }
    return false;
}

/* Takes the cards that are new, and gives back those that are gone. */
static void follow_list(struct userdata *u)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < u->count; i++) {
        if (is_listed(u, u->cards[i].device))
            u->cards[kept++] = u->cards[i];
        else
            xa_detected_card_free(u->cards[i].card);
    }
    u->count = kept;
    for (unsigned i = 0; i < u->list.count; i++) {
        unsigned device = u->list.devices[i];

        if (is_there(u, device))
            continue;
        u->cards[u->count].device = device;
        u->cards[u->count++].card = xa_detected_card_new(&u->common, device);
    }
}

/* Tries again those that could not be had; the reason is not logged again while it is the same. */
static void on_retry(pa_mainloop_api *api, pa_time_event *event, const struct timeval *when,
                     void *user)
{
    struct userdata *u = user;
    bool all = true;

    (void) api;
    (void) when;
    for (unsigned i = 0; i < u->count; i++) {
        if (!u->cards[i].card && !xa_pulse_card_held_by_the_kernel(u->cards[i].device))
            u->cards[i].card = xa_detected_card_new(&u->common, u->cards[i].device);
        all = all && u->cards[i].card;
    }
    pa_core_rttime_restart(u->core, event, all ? PA_USEC_INVALID : pa_rtclock_now() + HELD_RETRY);
}

static void on_woken(pa_mainloop_api *api, pa_io_event *event, int fd, pa_io_event_flags_t flags,
                     void *user)
{
    struct userdata *u = user;
    struct xa_pulse_device_list *list;
    bool all = true;
    eventfd_t times;

    (void) api;
    (void) event;
    (void) flags;
    (void) eventfd_read(fd, &times);
    list = xa_pulse_devices_take(u->devices);
    if (list) {
        u->list = *list;
        pa_xfree(list);
        follow_list(u);
        for (unsigned i = 0; i < u->count; i++)
            all = all && u->cards[i].card;
        pa_core_rttime_restart(u->core, u->retry,
                               all ? PA_USEC_INVALID : pa_rtclock_now() + HELD_RETRY);
    }
    for (unsigned i = 0; i < u->count; i++) {
        if (u->cards[i].card)
            xa_detected_card_update(u->cards[i].card);
    }
}

void pa__done(pa_module *m);

int pa__init(pa_module *m)
{
    struct userdata *u = pa_xnew0(struct userdata, 1);

    m->userdata = u;
    u->core = m->core;
    u->common.module = m;
    u->common.wake = -1;
    u->arguments = xa_pulse_arguments(m, valid_modargs);
    if (!u->arguments)
        goto fail;
    u->common.hypervisor = pa_modargs_get_value(u->arguments, "hypervisor", NULL);
    u->common.latency = pa_modargs_get_value(u->arguments, "latency_msec", NULL);
    u->common.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->common.wake < 0) {
        pa_log_error("sound cards cannot be followed: %s", pa_cstrerror(errno));
        goto fail;
    }
    u->woken = m->core->mainloop->io_new(m->core->mainloop, u->common.wake, PA_IO_EVENT_INPUT,
                                         on_woken, u);
    u->retry = pa_core_rttime_new(m->core, PA_USEC_INVALID, on_retry, u);
    u->devices = xa_pulse_devices_new(u->common.hypervisor, u->common.wake);
    if (!u->devices)
        goto fail;
    return 0;

fail:
    pa__done(m);
    return -1;
}

void pa__done(pa_module *m)
{
    struct userdata *u = m->userdata;

    if (!u)
        return;
    m->userdata = NULL;
    xa_pulse_devices_free(u->devices);
    for (unsigned i = 0; i < u->count; i++)
        xa_detected_card_free(u->cards[i].card);
    if (u->retry)
        u->core->mainloop->time_free(u->retry);
    if (u->woken)
        u->core->mainloop->io_free(u->woken);
    if (u->common.wake >= 0)
        close(u->common.wake);
    if (u->arguments)
        pa_modargs_free(u->arguments);
    pa_xfree(u);
}
