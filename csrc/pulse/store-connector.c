/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connecting to the store elsewhere; see store-connector.h. */
#include "config.h"

#include "store-connector.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <pulse/xmalloc.h>

#include "plain-thread.h"

#define NO_OUTCOME INT_MIN

struct xa_store_connector {
    atomic_int users; /* the owner, and the thread of an attempt; the last one frees it */
    struct xa_hv *hv;
    int ready; /* eventfd */
    atomic_int outcome;
};

static void unref(struct xa_store_connector *c)
{
    int outcome;

    /* Acquire and release: the last one sees all that the other did. */
    if (atomic_fetch_sub_explicit(&c->users, 1, memory_order_acq_rel) > 1)
        return;
    outcome = atomic_load_explicit(&c->outcome, memory_order_relaxed);
    if (outcome >= 0)
        close(outcome);
    xa_hv_close(c->hv);
    close(c->ready);
    pa_xfree(c);
}

static void tell(struct xa_store_connector *c, int outcome)
{
    /* Release: whoever takes it sees what the thread did to the hypervisor's connection. */
    atomic_store_explicit(&c->outcome, outcome, memory_order_release);
    (void) eventfd_write(c->ready, 1);
}

static void *connecting_thread(void *user)
{
    struct xa_store_connector *c = user;

    tell(c, xa_hv_connect_store(c->hv));
    unref(c);
    return NULL;
}

struct xa_store_connector *xa_store_connector_new(struct xa_hv *hv)
{
    int ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct xa_store_connector *c;

    if (ready < 0)
        return NULL;
    c = pa_xnew0(struct xa_store_connector, 1);
    atomic_init(&c->users, 1);
    atomic_init(&c->outcome, NO_OUTCOME);
    c->hv = hv;
    c->ready = ready;
    return c;
}

void xa_store_connector_free(struct xa_store_connector *c)
{
    if (c)
        unref(c);
}

int xa_store_connector_fd(const struct xa_store_connector *c)
{
    return c->ready;
}

void xa_store_connector_begin(struct xa_store_connector *c)
{
    pthread_t thread;
    int error;

    atomic_fetch_add_explicit(&c->users, 1, memory_order_relaxed);
    error = xa_pulse_thread_begin(&thread, "xenpv-store", connecting_thread, c);
    if (error == 0) {
        pthread_detach(thread);
        return;
    }
    atomic_fetch_sub_explicit(&c->users, 1, memory_order_relaxed);
    tell(c, error);
}

bool xa_store_connector_take(struct xa_store_connector *c, int *fd)
{
    eventfd_t times;

    /* First this, and then the outcome: it is there before the descriptor is readable. */
    (void) eventfd_read(c->ready, &times);
    /* Acquire: pairs with the store in tell(). */
    *fd = atomic_exchange_explicit(&c->outcome, NO_OUTCOME, memory_order_acquire);
    return *fd != NO_OUTCOME;
}
