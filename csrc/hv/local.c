/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv.h on the stand-in: the client of local_wire.h.
 *
 * Every share, map and event channel handle has a connection of its own, as it would have its own
 * open device file: so objects need no lock between them, and what one has made ends with it.
 *
 * The server is not trusted further than Xen's device files would be: a reply is checked before it
 * is used, a descriptor that comes along is closed on every way out, and memory is mapped only from
 * a memfd that is large enough and cannot shrink (else its other users could have us die of
 * SIGBUS).
 */
#include "hv_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eventfds.h"
#include "local_wire.h"
#include "rpc.h"

#define GNTALLOC_MAX 1000u
#define GNTMAP_MAX 128u
#define PORTS_OF_A_TABLE 1024u /* Linux's table of ports has so many, until it needs more */

struct local_share {
    struct xa_share base;
    int connection;
    uint32_t grefs[];
};

struct local_map {
    struct xa_map base;
    int connection;
    uint16_t remote;
    bool writable;
    uint32_t grefs[];
};

struct local_evtchn {
    struct xa_evtchn base;
    int connection;           /* -1 after it failed: the ports that there are go on working */
    struct xa_eventfds ports; /* its epoll is base.fd */
};

/* The like of opening a device file. */
static int open_connection(const struct xa_hv *hv)
{
    int fd = xa_hv_connect_unix(hv->address);

    /* ENOENT would say that a grant or a port is not there. */
    return fd == -ENOENT ? -ENODEV : fd;
}

static int connect_store(struct xa_hv *hv)
{
    return xa_hv_connect_unix(hv->address);
}

/* How many pages `fd` has and will keep, or a negative errno value. */
static int64_t pages_of(int fd)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &status) < 0)
        return -EPROTO;
    return (int64_t) (status.st_size / XA_HV_PAGE_OCTETS);
}

static int share_some(struct local_share *share, uint16_t remote, uint32_t from, uint32_t count)
{
    struct xa_local_gntalloc request = {.remote = remote, .count = count};
    struct xa_fds fds;
    bool broken = false;
    int result;

    result = xa_rpc_call(share->connection, XA_LOCAL_GNTALLOC, &request, sizeof(request),
                         share->grefs + from, count * sizeof(uint32_t), &fds, &broken);
    if (result < 0)
        return result;
    if (fds.count != 1 || pages_of(fds.fd[0]) < (int64_t) count)
        result = -EPROTO;
    else
        result = xa_hv_place(share->base.memory, from, count, true, fds.fd[0], 0);
    xa_fds_close(&fds);
    return result;
}

static void share_end(struct local_share *share)
{
    if (share->base.memory != NULL)
        munmap(share->base.memory, (size_t) share->base.pages * XA_HV_PAGE_OCTETS);
    if (share->connection >= 0)
        close(share->connection);
    free(share);
}

static int share_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, uint32_t *grefs,
                     struct xa_share **share)
{
    struct local_share *new = calloc(1, sizeof(*new) + pages * sizeof(uint32_t));
    int result = 0;

    if (new == NULL)
        return -ENOMEM;
    new->base =
        (struct xa_share){.ops = &xa_hv_local, .pages = pages, .memory = xa_hv_reserve(pages)};
    new->connection = open_connection(hv);
    if (new->base.memory == NULL)
        result = -ENOMEM;
    else if (new->connection < 0)
        result = new->connection;
    for (uint32_t done = 0; done < pages && result == 0;) {
        uint32_t count = pages - done < GNTALLOC_MAX ? pages - done : GNTALLOC_MAX;

        result = share_some(new, remote, done, count);
        done += count;
    }
    if (result < 0) {
        share_end(new);
        return result;
    }
    memcpy(grefs, new->grefs, pages * sizeof(uint32_t));
    *share = &new->base;
    return 0;
}

static void share_free(struct xa_share *base)
{
    struct local_share *share = (struct local_share *) base;
    bool broken = false;

    /* Closing the connection ends the grants too, but the server sees that only later; after this
     * call they are to be over. */
    for (uint32_t done = 0; done < base->pages && !broken;) {
        uint32_t left = base->pages - done, count = left < GNTALLOC_MAX ? left : GNTALLOC_MAX;

        xa_rpc_call(share->connection, XA_LOCAL_GNTDEALLOC, share->grefs + done,
                    count * sizeof(uint32_t), NULL, 0, NULL, &broken);
        done += count;
    }
    share_end(share);
}

/* A request of GNTMAP or GNTUNMAP. */
struct map_request {
    struct xa_local_gntmap head;
    uint32_t grefs[GNTMAP_MAX];
};

static size_t fill_map_request(struct map_request *request, const struct local_map *map,
                               uint32_t from, uint32_t count)
{
    request->head =
        (struct xa_local_gntmap){.remote = map->remote, .writable = map->writable, .count = count};
    memcpy(request->grefs, map->grefs + from, count * sizeof(uint32_t));
    return sizeof(request->head) + count * sizeof(uint32_t);
}

static int map_pages(struct local_map *map, uint32_t from, uint32_t count,
                     const struct xa_local_gntpage *pages, const struct xa_fds *fds)
{
    int64_t available[XA_FDS_MAX] = {0};

    for (unsigned i = 0; i < fds->count; i++) {
        available[i] = pages_of(fds->fd[i]);
        if (available[i] < 0)
            return -EPROTO;
    }
    for (uint32_t i = 0; i < count; i++)
        if (pages[i].fd >= fds->count || pages[i].page >= available[pages[i].fd])
            return -EPROTO;
    for (uint32_t i = 0, run; i < count; i += run) {
        int result;

        for (run = 1; i + run < count; run++)
            if (pages[i + run].fd != pages[i].fd || pages[i + run].page != pages[i].page + run)
                break;
        result = xa_hv_place(map->base.memory, from + i, run, map->writable, fds->fd[pages[i].fd],
                             (off_t) pages[i].page * XA_HV_PAGE_OCTETS);
        if (result < 0)
            return result;
    }
    return 0;
}

static int map_some(struct local_map *map, uint32_t from, uint32_t count)
{
    struct xa_local_gntpage pages[GNTMAP_MAX];
    struct map_request request;
    struct xa_fds fds;
    bool broken = false;
    int result;

    result = xa_rpc_call(map->connection, XA_LOCAL_GNTMAP, &request,
                         fill_map_request(&request, map, from, count), pages,
                         count * sizeof(pages[0]), &fds, &broken);
    if (result < 0)
        return result;
    result = map_pages(map, from, count, pages, &fds);
    xa_fds_close(&fds);
    return result;
}

static void map_end(struct local_map *map)
{
    if (map->base.memory != NULL)
        munmap(map->base.memory, (size_t) map->base.pages * XA_HV_PAGE_OCTETS);
    if (map->connection >= 0)
        close(map->connection);
    free(map);
}

static int map_new(struct xa_hv *hv, uint16_t remote, uint32_t pages, const uint32_t *grefs,
                   bool writable, struct xa_map **map)
{
    struct local_map *new = calloc(1, sizeof(*new) + pages * sizeof(uint32_t));
    int result = 0;

    if (new == NULL)
        return -ENOMEM;
    new->base =
        (struct xa_map){.ops = &xa_hv_local, .pages = pages, .memory = xa_hv_reserve(pages)};
    new->remote = remote;
    new->writable = writable;
    memcpy(new->grefs, grefs, pages * sizeof(uint32_t));
    new->connection = open_connection(hv);
    if (new->base.memory == NULL)
        result = -ENOMEM;
    else if (new->connection < 0)
        result = new->connection;
    for (uint32_t done = 0; done < pages && result == 0;) {
        uint32_t count = pages - done < GNTMAP_MAX ? pages - done : GNTMAP_MAX;

        result = map_some(new, done, count);
        done += count;
    }
    if (result < 0) {
        map_end(new);
        return result;
    }
    *map = &new->base;
    return 0;
}

static void map_free(struct xa_map *base)
{
    struct local_map *map = (struct local_map *) base;
    struct map_request request;
    bool broken = false;

    /* First the memory, so that the server never counts fewer mappings than there are. */
    munmap(base->memory, (size_t) base->pages * XA_HV_PAGE_OCTETS);
    base->memory = NULL;
    for (uint32_t done = 0; done < base->pages && !broken;) {
        uint32_t left = base->pages - done, count = left < GNTMAP_MAX ? left : GNTMAP_MAX;

        xa_rpc_call(map->connection, XA_LOCAL_GNTUNMAP, &request,
                    fill_map_request(&request, map, done, count), NULL, 0, NULL, &broken);
        done += count;
    }
    map_end(map);
}

static int evtchn_open(struct xa_hv *hv, struct xa_evtchn **evtchn)
{
    struct local_evtchn *new = calloc(1, sizeof(*new));
    int result;

    if (new == NULL)
        return -ENOMEM;
    new->base.ops = &xa_hv_local;
    result = new->base.fd = xa_eventfds_open(&new->ports);
    if (result >= 0) {
        result = new->connection = open_connection(hv);
        if (result < 0)
            close(new->base.fd);
    }
    if (result < 0) {
        free(new);
        return result;
    }
    *evtchn = &new->base;
    return 0;
}

static int evtchn_call(struct local_evtchn *evtchn, uint32_t type, const void *request,
                       size_t request_octets, void *reply, size_t reply_octets, struct xa_fds *fds)
{
    bool broken = false;
    int result;

    if (evtchn->connection < 0)
        return -EPIPE;
    result = xa_rpc_call(evtchn->connection, type, request, request_octets, reply, reply_octets,
                         fds, &broken);
    if (broken) {
        close(evtchn->connection);
        evtchn->connection = -1;
    }
    return result;
}

static int bind_port(struct xa_evtchn *base, uint32_t type, uint16_t remote, uint32_t remote_port,
                     uint32_t *port)
{
    struct local_evtchn *evtchn = (struct local_evtchn *) base;
    struct xa_local_evtchn request = {.remote = remote, .remote_port = remote_port};
    uint32_t number;
    struct xa_fds fds;
    int result;

    result = evtchn_call(evtchn, type, &request, sizeof(request), &number, sizeof(number), &fds);
    if (result < 0)
        return result;
    result =
        fds.count == 2 ? xa_eventfds_add(&evtchn->ports, number, fds.fd[0], fds.fd[1]) : -EPROTO;
    if (result == 0)
        fds.count = 0;
    xa_fds_close(&fds);
    if (result < 0) {
        evtchn_call(evtchn, XA_LOCAL_EVTCHN_UNBIND, &number, sizeof(number), NULL, 0, NULL);
        return result;
    }
    *port = number;
    return 0;
}

static int alloc_unbound(struct xa_evtchn *base, uint16_t remote, uint32_t *port)
{
    return bind_port(base, XA_LOCAL_EVTCHN_ALLOC_UNBOUND, remote, 0, port);
}

static int bind_interdomain(struct xa_evtchn *base, uint16_t remote, uint32_t remote_port,
                            uint32_t *port)
{
    return bind_port(base, XA_LOCAL_EVTCHN_BIND_INTERDOMAIN, remote, remote_port, port);
}

static int unbind(struct xa_evtchn *base, uint32_t number)
{
    struct local_evtchn *evtchn = (struct local_evtchn *) base;

    if (!xa_eventfds_remove(&evtchn->ports, number))
        return number < PORTS_OF_A_TABLE ? -ENOTCONN : -EINVAL;
    return evtchn_call(evtchn, XA_LOCAL_EVTCHN_UNBIND, &number, sizeof(number), NULL, 0, NULL);
}

static void evtchn_close(struct xa_evtchn *base)
{
    struct local_evtchn *evtchn = (struct local_evtchn *) base;

    xa_eventfds_clear(&evtchn->ports);
    if (evtchn->connection >= 0)
        close(evtchn->connection);
    close(base->fd);
    free(evtchn);
}

static int notify(struct xa_evtchn *base, uint32_t number)
{
    return xa_eventfds_notify(&((struct local_evtchn *) base)->ports, number);
}

static int pending(struct xa_evtchn *base, uint32_t *number)
{
    return xa_eventfds_pending(&((struct local_evtchn *) base)->ports, number);
}

const struct xa_hv_ops xa_hv_local = {
    .connect_store = connect_store,
    .share_new = share_new,
    .share_free = share_free,
    .map_new = map_new,
    .map_free = map_free,
    .evtchn_open = evtchn_open,
    .evtchn_close = evtchn_close,
    .alloc_unbound = alloc_unbound,
    .bind_interdomain = bind_interdomain,
    .unbind = unbind,
    .notify = notify,
    .pending = pending,
};
