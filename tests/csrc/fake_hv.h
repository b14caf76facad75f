/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hypervisor inside the test's process, for tests of the backend: grants are pages of the heap,
 * event channels are flags and an eventfd. It counts what is open, so that a test can tell what was
 * left behind, and it can let the mapping of a page block. Any thread, one hypervisor.
 */
#ifndef XA_TESTS_FAKE_HV_H
#define XA_TESTS_FAKE_HV_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/hv_ops.h"
#include "sndif/xen.h"

enum { FAKE_GREFS = 16384, FAKE_PORTS = 64 };

/* Pages of one share; they live as long as the grant or a map of it does. */
struct fake_pages {
    uint8_t *memory;
    unsigned users;
};

struct fake_share {
    struct xa_share base;
    uint32_t gref; /* the first */
};

struct fake_map {
    struct xa_map base;
    struct fake_pages *pages; /* NULL: a copy of scattered pages */
};

struct fake_evtchn {
    struct xa_evtchn base;
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct {
        struct fake_pages *pages;
        uint32_t page;
    } grants[FAKE_GREFS]; /* by reference; 0 is none */
    uint32_t grefs;
    struct {
        struct fake_evtchn *owner;
        uint32_t peer;
        bool pending;
    } ports[FAKE_PORTS];
    uint32_t blocked_gref; /* mapping it waits until this changes */
    unsigned blocked;      /* threads that wait */
    unsigned shares, maps, evtchns, bound;
} fake = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void fake_pages_release(struct fake_pages *pages)
{
    if (--pages->users > 0)
        return;
    free(pages->memory);
    free(pages);
}

static int fake_connect_store(struct xa_hv *hv)
{
    (void) hv;
    return -ENOTSUP;
}

static int fake_share_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                          struct xa_share **share)
{
    struct fake_share *new = calloc(1, sizeof(*new));
    struct fake_pages *memory = calloc(1, sizeof(*memory));

    (void) remote;
    memory->memory = aligned_alloc(XA_PAGE_SIZE, (size_t) pages * XA_PAGE_SIZE);
    memset(memory->memory, 0, (size_t) pages * XA_PAGE_SIZE);
    memory->users = 1;
    new->base = (struct xa_share){.ops = hv->ops, .memory = memory->memory, .pages = pages};
    pthread_mutex_lock(&fake.mutex);
    if (fake.grefs + pages >= FAKE_GREFS)
        abort(); /* the test is too large */
    new->gref = fake.grefs + 1;
    for (uint32_t i = 0; i < pages; i++) {
        grefs[i] = ++fake.grefs;
        fake.grants[grefs[i]].pages = memory;
        fake.grants[grefs[i]].page = i;
    }
    fake.shares++;
    pthread_mutex_unlock(&fake.mutex);
    *share = &new->base;
    return 0;
}

static void fake_share_free(struct xa_share *share)
{
    struct fake_share *old = (struct fake_share *) share;

    pthread_mutex_lock(&fake.mutex);
    fake.shares--;
    fake_pages_release(fake.grants[old->gref].pages);
    for (uint32_t i = 0; i < share->pages; i++)
        fake.grants[old->gref + i].pages = NULL;
    pthread_mutex_unlock(&fake.mutex);
    free(old);
}

/* Pages that follow each other are mapped; scattered ones are copied, which does for the
 * directories of hostile guests. */
static int fake_map_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
                        bool writable, struct xa_map **map)
{
    struct fake_map *new = calloc(1, sizeof(*new));
    bool scattered = false;
    int error = 0;

    (void) remote;
    (void) writable;
    pthread_mutex_lock(&fake.mutex);
    if (fake.blocked_gref == grefs[0]) {
        fake.blocked++;
        pthread_cond_broadcast(&fake.changed);
        while (fake.blocked_gref == grefs[0])
            pthread_cond_wait(&fake.changed, &fake.mutex);
        fake.blocked--;
    }
    for (uint32_t i = 0; i < pages && !error; i++) {
        if (grefs[i] >= FAKE_GREFS || !fake.grants[grefs[i]].pages)
            error = -ENOENT;
        else if (grefs[i] != grefs[0] + i ||
                 fake.grants[grefs[i]].pages != fake.grants[grefs[0]].pages)
            scattered = true;
    }
    if (!error) {
        struct fake_pages *first = fake.grants[grefs[0]].pages;

        new->base.ops = hv->ops;
        new->base.pages = pages;
        if (scattered) {
            uint8_t *copy = malloc((size_t) pages * XA_PAGE_SIZE);

            for (uint32_t i = 0; i < pages; i++)
                memcpy(copy + (size_t) i * XA_PAGE_SIZE,
                       fake.grants[grefs[i]].pages->memory +
                           (size_t) fake.grants[grefs[i]].page * XA_PAGE_SIZE,
                       XA_PAGE_SIZE);
            new->base.memory = copy;
        } else {
            new->base.memory = first->memory + (size_t) fake.grants[grefs[0]].page *XA_PAGE_SIZE;
            new->pages = first;
            first->users++;
        }
        fake.maps++;
    }
    pthread_mutex_unlock(&fake.mutex);
    if (error)
        free(new);
    else
        *map = &new->base;
    return error;
}

static void fake_map_free(struct xa_map *map)
{
    struct fake_map *old = (struct fake_map *) map;

    pthread_mutex_lock(&fake.mutex);
    fake.maps--;
    if (old->pages)
        fake_pages_release(old->pages);
    else
        free(map->memory);
    pthread_mutex_unlock(&fake.mutex);
    free(old);
}

static int fake_evtchn_open(struct xa_hv *hv, struct xa_evtchn **evtchn)
{
    struct fake_evtchn *new = calloc(1, sizeof(*new));

    new->base.ops = hv->ops;
    new->base.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_lock(&fake.mutex);
    fake.evtchns++;
    pthread_mutex_unlock(&fake.mutex);
    *evtchn = &new->base;
    return 0;
}

static void fake_raise(uint32_t port)
{
    if (fake.ports[port].pending || !fake.ports[port].owner)
        return;
    fake.ports[port].pending = true;
    eventfd_write(fake.ports[port].owner->base.fd, 1);
}

static int fake_unbind(struct xa_evtchn *evtchn, uint32_t port)
{
    (void) evtchn;
    pthread_mutex_lock(&fake.mutex);
    if (fake.ports[port].peer)
        fake.ports[fake.ports[port].peer].peer = 0;
    memset(&fake.ports[port], 0, sizeof(fake.ports[port]));
    fake.bound--;
    pthread_mutex_unlock(&fake.mutex);
    return 0;
}

static void fake_evtchn_close(struct xa_evtchn *evtchn)
{
    for (uint32_t port = 1; port < FAKE_PORTS; port++) {
        bool mine;

        pthread_mutex_lock(&fake.mutex);
        mine = fake.ports[port].owner == (struct fake_evtchn *) evtchn;
        pthread_mutex_unlock(&fake.mutex);
        if (mine)
            fake_unbind(evtchn, port);
    }
    pthread_mutex_lock(&fake.mutex);
    fake.evtchns--;
    pthread_mutex_unlock(&fake.mutex);
    close(evtchn->fd);
    free(evtchn);
}

/* With the mutex held. */
static uint32_t fake_new_port(struct xa_evtchn *evtchn)
{
    uint32_t port = 1;

    while (port < FAKE_PORTS && fake.ports[port].owner)
        port++;
    if (port == FAKE_PORTS)
        abort();
    fake.ports[port].owner = (struct fake_evtchn *) evtchn;
    fake.bound++;
    return port;
}

static int fake_alloc_unbound(struct xa_evtchn *evtchn, uint16_t remote, uint32_t *port)
{
    (void) remote;
    pthread_mutex_lock(&fake.mutex);
    *port = fake_new_port(evtchn);
    pthread_mutex_unlock(&fake.mutex);
    return 0;
}

static int fake_bind_interdomain(struct xa_evtchn *evtchn, uint16_t remote, uint32_t remote_port,
                                 uint32_t *port)
{
    int error = 0;

    (void) remote;
    pthread_mutex_lock(&fake.mutex);
    if (remote_port >= FAKE_PORTS || !fake.ports[remote_port].owner ||
        fake.ports[remote_port].peer) {
        error = -EINVAL;
    } else {
        *port = fake_new_port(evtchn);
        fake.ports[*port].peer = remote_port;
        fake.ports[remote_port].peer = *port;
        fake_raise(*port);
    }
    pthread_mutex_unlock(&fake.mutex);
    return error;
}

static int fake_notify(struct xa_evtchn *evtchn, uint32_t port)
{
    (void) evtchn;
    pthread_mutex_lock(&fake.mutex);
    if (fake.ports[port].peer)
        fake_raise(fake.ports[port].peer);
    pthread_mutex_unlock(&fake.mutex);
    return 0;
}

static int fake_pending(struct xa_evtchn *evtchn, uint32_t *port)
{
    unsigned pending = 0;

    pthread_mutex_lock(&fake.mutex);
    for (uint32_t p = 1; p < FAKE_PORTS; p++) {
        if (fake.ports[p].owner == (struct fake_evtchn *) evtchn && fake.ports[p].pending) {
            *port = p;
            pending++;
        }
    }
    if (pending)
        fake.ports[*port].pending = false;
    if (pending <= 1) {
        eventfd_t value;

        (void) eventfd_read(evtchn->fd, &value);
    }
    pthread_mutex_unlock(&fake.mutex);
    return pending > 0;
}

static struct xa_hv *fake_hv_open(void)
{
    static struct xa_hv_ops ops = {
        .connect_store = fake_connect_store,
        .share_new = fake_share_new,
        .share_free = fake_share_free,
        .map_new = fake_map_new,
        .map_free = fake_map_free,
        .evtchn_open = fake_evtchn_open,
        .evtchn_close = fake_evtchn_close,
        .alloc_unbound = fake_alloc_unbound,
        .bind_interdomain = fake_bind_interdomain,
        .unbind = fake_unbind,
        .notify = fake_notify,
        .pending = fake_pending,
    };

    return xa_hv_open_ops("test", &ops);
}

/* Maps of pages that begin with this reference wait until the next call. 0: none do. */
static void fake_block(uint32_t gref)
{
    pthread_mutex_lock(&fake.mutex);
    fake.blocked_gref = gref;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.mutex);
}

/* Waits until a thread is blocked. */
static void fake_wait_blocked(void)
{
    pthread_mutex_lock(&fake.mutex);
    while (!fake.blocked)
        pthread_cond_wait(&fake.changed, &fake.mutex);
    pthread_mutex_unlock(&fake.mutex);
}

/* Shares, maps, handles and ports that are open. */
static unsigned fake_open_things(void)
{
    unsigned count;

    pthread_mutex_lock(&fake.mutex);
    count = fake.shares + fake.maps + fake.evtchns + fake.bound;
    pthread_mutex_unlock(&fake.mutex);
    return count;
}

static unsigned fake_open_maps(void)
{
    unsigned count;

    pthread_mutex_lock(&fake.mutex);
    count = fake.maps;
    pthread_mutex_unlock(&fake.mutex);
    return count;
}

#endif
