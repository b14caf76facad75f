/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv.h through the guest service (`xenaudio guestd`): the client of guestd_wire.h. For programs of
 * ordinary users, who can open none of Xen's devices.
 *
 * One connection, the client, is made when it is first needed and shared by all that comes of it:
 * the service gives everything back when it ends. Objects hold a reference on it, so that it lasts
 * as long as they do, and its lock lets different objects be used by different threads.
 *
 * An event channel handle binds its ports at the first xa_evtchn_alloc_unbound, all to one domain.
 */
#include "hv_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* <xen/evtchn.h> wants domid_t, and does not say where it is from. */
#include <xen/xen.h>

#include <xen/evtchn.h>

#include "eventfds.h"
#include "guestd_wire.h"
#include "rpc.h"

struct client {
    pthread_mutex_t lock;
    unsigned users; /* under the lock */
    bool broken;    /* likewise */
    int connection;
};

struct guestd_share {
    struct xa_share base;
    struct client *client;
    uint32_t pieces; /* of XA_GUESTD_GRANT_MAX pages each, the last of what is left */
    uint32_t id[];   /* of each piece */
};

struct guestd_evtchn {
    struct xa_evtchn base;
    struct client *client;
    bool bound;
    bool is_device; /* base.fd is an open /dev/xen/evtchn, else the epoll of `eventfds` */
    uint32_t id;
    uint16_t remote;
    unsigned given; /* of ports */
    uint32_t ports[XA_GUESTD_PORTS_MAX];
    struct xa_eventfds eventfds;
};

static const char *path_of(const struct xa_hv *hv)
{
    const char *colon = strchr(hv->address, ':');

    return colon != NULL ? colon + 1 : XA_GUESTD_SOCKET;
}

static struct client *client_new(const struct xa_hv *hv, int *error)
{
    struct client *client = malloc(sizeof(*client));

    *error = -ENOMEM;
    if (client == NULL)
        return NULL;
    *client = (struct client){.users = 1, .connection = xa_hv_connect_unix(path_of(hv))};
    if (client->connection < 0) {
        /* ENOENT would say that a grant or a port is not there. */
        *error = client->connection == -ENOENT ? -ENODEV : client->connection;
        free(client);
        return NULL;
    }
    pthread_mutex_init(&client->lock, NULL);
    return client;
}

static void client_drop(struct client *client)
{
    bool last;

    pthread_mutex_lock(&client->lock);
    last = --client->users == 0;
    pthread_mutex_unlock(&client->lock);
    if (!last)
        return;
    close(client->connection);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

/* xa_rpc_call on the client's connection. `*lost`: the connection is of no use any more. */
static int ask(struct client *client, uint32_t type, const void *request, size_t request_octets,
               void *reply, size_t reply_octets, struct xa_fds *fds, bool *lost)
{
    int result = -EPIPE;

    pthread_mutex_lock(&client->lock);
    if (!client->broken)
        result = xa_rpc_call(client->connection, type, request, request_octets, reply, reply_octets,
                             fds, &client->broken);
    *lost = client->broken;
    pthread_mutex_unlock(&client->lock);
    return result;
}

/* Serialises the making of a struct xa_hv's client. */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

/* The struct xa_hv's client, with a reference for the caller; NULL with *error set. */
static struct client *client_of(struct xa_hv *hv, int *error)
{
    struct client *client;

    pthread_mutex_lock(&making);
    if (hv->own == NULL)
        hv->own = client_new(hv, error);
    client = hv->own;
    if (client != NULL) {
        pthread_mutex_lock(&client->lock);
        client->users++;
        pthread_mutex_unlock(&client->lock);
    }
    pthread_mutex_unlock(&making);
    return client;
}

/* The next is to be a new one. The caller's own reference on this one stays. */
static void replace(struct xa_hv *hv, struct client *lost)
{
    pthread_mutex_lock(&making);
    if (hv->own == lost) {
        hv->own = NULL;
        pthread_mutex_lock(&lost->lock);
        lost->users--;
        pthread_mutex_unlock(&lost->lock);
    }
    pthread_mutex_unlock(&making);
}

/* As `ask`, on the struct xa_hv's client, and on a new one when the service was started anew since.
 */
static int ask_anew(struct xa_hv *hv, uint32_t type, const void *request, size_t request_octets,
                    void *reply, size_t reply_octets, struct xa_fds *fds)
{
    for (bool again = false;; again = true) {
        bool lost;
        int result;
        struct client *client = client_of(hv, &result);

        if (client == NULL)
            return result;
        result = ask(client, type, request, request_octets, reply, reply_octets, fds, &lost);
        if (lost)
            replace(hv, client);
        client_drop(client);
        if (!lost || result == -ETIMEDOUT || again)
            return result;
    }
}

static void forget(struct xa_hv *hv)
{
    if (hv->own != NULL)
        client_drop(hv->own);
}

static int connect_store(struct xa_hv *hv)
{
    struct xa_fds fds;
    int result = ask_anew(hv, XA_GUESTD_STORE, NULL, 0, NULL, 0, &fds);

    if (result < 0)
        return result;
    if (fds.count != 1) {
        xa_fds_close(&fds);
        return -EPROTO;
    }
    return fds.fd[0];
}

static uint32_t pages_of_piece(const struct xa_share *share, uint32_t piece)
{
    uint32_t left = share->pages - piece * XA_GUESTD_GRANT_MAX;

    return left < XA_GUESTD_GRANT_MAX ? left : XA_GUESTD_GRANT_MAX;
}

static int grant_piece(struct guestd_share *share, uint16_t remote, uint32_t *grefs)
{
    struct {
        struct xa_guestd_granted head;
        uint32_t grefs[XA_GUESTD_GRANT_MAX];
    } reply;
    uint32_t number = share->pieces, count = pages_of_piece(&share->base, number);
    struct xa_guestd_grant request = {.remote = remote, .count = count};
    struct xa_fds fds;
    bool lost;
    int result;

    result = ask(share->client, XA_GUESTD_GRANT, &request, sizeof(request), &reply,
                 sizeof(reply.head) + count * sizeof(uint32_t), &fds, &lost);
    if (result < 0)
        return result;
    share->id[share->pieces++] = reply.head.id;
    if (fds.count != 1)
        result = -EPROTO;
    else
        result = xa_hv_place(share->base.memory, number * XA_GUESTD_GRANT_MAX, count, true,
                             fds.fd[0], (off_t) reply.head.offset);
    /* The mapping is enough. */
    xa_fds_close(&fds);
    if (result == 0)
        memcpy(grefs + number * XA_GUESTD_GRANT_MAX, reply.grefs, count * sizeof(uint32_t));
    return result;
}

static void share_free(struct xa_share *base)
{
    struct guestd_share *share = (struct guestd_share *) base;

    if (base->memory != NULL)
        munmap(base->memory, (size_t) base->pages * XA_HV_PAGE_OCTETS);
    for (uint32_t i = 0; i < share->pieces; i++) {
        bool lost;

        ask(share->client, XA_GUESTD_GRANT_END, &share->id[i], sizeof(uint32_t), NULL, 0, NULL,
            &lost);
    }
    client_drop(share->client);
    free(share);
}

static int share_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                     struct xa_share **share)
{
    uint32_t pieces = (pages + XA_GUESTD_GRANT_MAX - 1) / XA_GUESTD_GRANT_MAX;
    struct guestd_share *new = calloc(1, sizeof(*new) + pieces * sizeof(new->id[0]));
    int result = 0;

    if (new == NULL)
        return -ENOMEM;
    new->base = (struct xa_share){.ops = &xa_hv_guestd, .pages = pages};
    new->client = client_of(hv, &result);
    if (new->client == NULL) {
        free(new);
        return result;
    }
    new->base.memory = xa_hv_reserve(pages);
    if (new->base.memory == NULL)
        result = -ENOMEM;
    else
        result = 0;
    while (result == 0 && new->pieces < pieces)
        result = grant_piece(new, remote, grefs);
    if (result < 0) {
        share_free(&new->base);
        return result;
    }
    *share = &new->base;
    return 0;
}

/* A guest's user maps nobody's pages. */
static int map_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
                   bool writable, struct xa_map **map)
{
    (void) hv;
    (void) remote;
    (void) pages;
    (void) grefs;
    (void) writable;
    (void) map;
    return -EACCES;
}

static void map_free(struct xa_map *map)
{
    (void) map;
}

static int evtchn_open(struct xa_hv *hv, struct xa_evtchn **evtchn)
{
    struct guestd_evtchn *new = calloc(1, sizeof(*new));
    int result;

    if (new == NULL)
        return -ENOMEM;
    new->base.ops = &xa_hv_guestd;
    result = new->base.fd = xa_eventfds_open(&new->eventfds);
    if (result >= 0) {
        new->client = client_of(hv, &result);
        if (new->client == NULL)
            close(new->base.fd);
    }
    if (new->client == NULL) {
        free(new);
        return result;
    }
    *evtchn = &new->base;
    return 0;
}

static int end(struct guestd_evtchn *evtchn)
{
    bool lost;

    if (!evtchn->bound)
        return 0;
    evtchn->bound = false;
    return ask(evtchn->client, XA_GUESTD_EVTCHN_END, &evtchn->id, sizeof(evtchn->id), NULL, 0, NULL,
               &lost);
}

static void evtchn_close(struct xa_evtchn *base)
{
    struct guestd_evtchn *evtchn = (struct guestd_evtchn *) base;

    end(evtchn);
    xa_eventfds_clear(&evtchn->eventfds);
    close(base->fd);
    client_drop(evtchn->client);
    free(evtchn);
}

static void evtchn_abandon(struct xa_evtchn *base)
{
    struct guestd_evtchn *evtchn = (struct guestd_evtchn *) base;
    int result = end(evtchn);

    xa_eventfds_clear(&evtchn->eventfds);
    /* The service has another descriptor, and knows what became of the ports. Where it has not
     * heard of us, ours may be the last. */
    if (result == 0 || !evtchn->is_device)
        close(base->fd);
    client_drop(evtchn->client);
    free(evtchn);
}

static int take_handle(struct guestd_evtchn *evtchn, struct xa_fds *fds)
{
    if (fds->count == 1) {
        /* The number that the owner polls becomes the device. */
        if (dup3(fds->fd[0], evtchn->base.fd, O_CLOEXEC) < 0)
            return -errno;
        evtchn->is_device = true;
        return 0;
    }
    if (fds->count != 2 * XA_GUESTD_PORTS_MAX)
        return -EPROTO;
    for (unsigned i = XA_GUESTD_PORTS_MAX; i-- > 0;) {
        int result = xa_eventfds_add(&evtchn->eventfds, evtchn->ports[i], fds->fd[2 * i],
                                     fds->fd[2 * i + 1]);

        if (result < 0)
            return result;
        fds->count -= 2;
    }
    return 0;
}

static int bind_ports(struct guestd_evtchn *evtchn, uint16_t remote)
{
    struct xa_guestd_evtchn request = {.remote = remote, .count = XA_GUESTD_PORTS_MAX};
    uint32_t reply[1 + XA_GUESTD_PORTS_MAX];
    struct xa_fds fds;
    bool lost;
    int result = ask(evtchn->client, XA_GUESTD_EVTCHN, &request, sizeof(request), reply,
                     sizeof(reply), &fds, &lost);

    if (result < 0)
        return result;
    evtchn->bound = true;
    evtchn->id = reply[0];
    evtchn->remote = remote;
    memcpy(evtchn->ports, reply + 1, sizeof(evtchn->ports));
    result = take_handle(evtchn, &fds);
    xa_fds_close(&fds);
    if (result < 0) {
        xa_eventfds_clear(&evtchn->eventfds);
        end(evtchn);
    }
    return result;
}

static int alloc_unbound(struct xa_evtchn *base, uint16_t remote, uint32_t *port)
{
    struct guestd_evtchn *evtchn = (struct guestd_evtchn *) base;

    if (!evtchn->bound) {
        int result = evtchn->given == 0 ? bind_ports(evtchn, remote) : -EPIPE;

        if (result < 0)
            return result;
    }
    if (evtchn->given == XA_GUESTD_PORTS_MAX || remote != evtchn->remote)
        return -EACCES;
    *port = evtchn->ports[evtchn->given++];
    return 0;
}

static int bind_interdomain(struct xa_evtchn *base, uint16_t remote, uint32_t remote_port,
                            uint32_t *port)
{
    (void) base;
    (void) remote;
    (void) remote_port;
    (void) port;
    return -EACCES;
}

static bool has_port(const struct guestd_evtchn *evtchn, uint32_t port)
{
    for (unsigned i = 0; i < evtchn->given; i++)
        if (evtchn->ports[i] == port)
            return true;
    return false;
}

/* A port ends with its handle. */
static int unbind(struct xa_evtchn *base, uint32_t port)
{
    return has_port((struct guestd_evtchn *) base, port) ? -EACCES : -ENOTCONN;
}

static int notify(struct xa_evtchn *base, uint32_t port)
{
    struct guestd_evtchn *evtchn = (struct guestd_evtchn *) base;
    struct ioctl_evtchn_notify request = {.port = port};

    if (!has_port(evtchn, port))
        return -ENOTCONN;
    if (!evtchn->is_device)
        return xa_eventfds_notify(&evtchn->eventfds, port);
    return ioctl(base->fd, IOCTL_EVTCHN_NOTIFY, &request) < 0 ? -errno : 0;
}

static int pending(struct xa_evtchn *base, uint32_t *port)
{
    struct guestd_evtchn *evtchn = (struct guestd_evtchn *) base;
    ssize_t octets;
    uint32_t next;

    if (!evtchn->is_device)
        return xa_eventfds_pending(&evtchn->eventfds, port);
    octets = read(base->fd, &next, sizeof(next));
    if (octets < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (octets != (ssize_t) sizeof(next))
        return -EPROTO;
    /* What is written is unmasked. */
    if (write(base->fd, &next, sizeof(next)) != (ssize_t) sizeof(next))
        return errno > 0 ? -errno : -EIO;
    *port = next;
    return 1;
}

const struct xa_hv_ops xa_hv_guestd = {
    .close = forget,
    .connect_store = connect_store,
    .share_new = share_new,
    .share_free = share_free,
    .map_new = map_new,
    .map_free = map_free,
    .evtchn_open = evtchn_open,
    .evtchn_close = evtchn_close,
    .evtchn_abandon = evtchn_abandon,
    .alloc_unbound = alloc_unbound,
    .bind_interdomain = bind_interdomain,
    .unbind = unbind,
    .notify = notify,
    .pending = pending,
};
