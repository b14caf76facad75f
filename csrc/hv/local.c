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
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "local_wire.h"
#include "xs_error.h"

#define PAGE_OCTETS 4096u
#define RPC_TIMEOUT_MS 2000
#define FDS_MAX 128u
#define GNTALLOC_MAX 1000u
#define GNTMAP_MAX 128u
#define PORTS_OF_A_TABLE 1024u /* Linux's table of ports has so many, until it needs more */

/* Descriptors that came with a reply and are still ours to close. */
struct fds {
    unsigned count;
    int fd[FDS_MAX];
};

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

struct port {
    struct port *next;
    uint32_t number;
    int rx; /* readable while the port is pending */
    int tx; /* written to notify the peer */
};

struct local_evtchn {
    struct xa_evtchn base;
    int connection; /* -1 after it failed: the ports that there are go on working */
    struct port *ports;
};

static void close_fds(struct fds *fds)
{
    while (fds->count > 0)
        close(fds->fd[--fds->count]);
}

/* The like of opening a device file. */
static int open_connection(const struct xa_hv *hv)
{
    int fd = xa_hv_connect_unix(hv->address);

    /* ENOENT would say that a grant or a port is not there. */
    return fd == -ENOENT ? -ENODEV : fd;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wait_for(int connection, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd pollfd = {.fd = connection, .events = events};
        int64_t left = deadline - now_ms();
        int ready = poll(&pollfd, 1, left > 0 ? (int) left : 0);

        if (ready > 0)
            return 0;
        if (ready == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

static int send_all(int connection, const void *octets, size_t count, int64_t deadline)
{
    const uint8_t *from = octets;

    while (count > 0) {
        ssize_t sent = send(connection, from, count, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0) {
            from += sent;
            count -= (size_t) sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            int result = wait_for(connection, POLLOUT, deadline);

            if (result < 0)
                return result;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static int take_fds(struct msghdr *message, struct fds *fds)
{
    int result = message->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        size_t count;

        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
            if (fds->count < FDS_MAX) {
                fds->fd[fds->count++] = fd;
            } else {
                close(fd);
                result = -EPROTO;
            }
        }
    }
    return result;
}

/* Receives exactly `count` octets. Descriptors are taken with the first of them when `fds` is
 * given; where none is expected the kernel closes what comes. */
static int receive_all(int connection, void *octets, size_t count, struct fds *fds,
                       int64_t deadline)
{
    uint8_t *to = octets;

    while (count > 0) {
        union {
            struct cmsghdr align;
            uint8_t space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
        } control;
        struct iovec part = {.iov_base = to, .iov_len = count};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        ssize_t got;
        int result;

        if (fds != NULL) {
            message.msg_control = &control;
            message.msg_controllen = sizeof(control);
        }
        got = recvmsg(connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got > 0) {
            if (fds != NULL) {
                result = take_fds(&message, fds);
                if (result < 0)
                    return result;
                fds = NULL;
            }
            to += got;
            count -= (size_t) got;
        } else if (got == 0) {
            return -EPIPE;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            result = wait_for(connection, POLLIN, deadline);
            if (result < 0)
                return result;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* The negative errno value called `name`. */
static int error_called(const char *name)
{
    return strcmp(name, "ESRCH") == 0 ? -ESRCH : xa_xs_error(name);
}

/*
 * One request and its reply, of exactly `reply_octets` octets and, with `fds`, any number of
 * descriptors. `*broken` is set when the connection can no longer be used, and left alone when the
 * server merely refused. On failure no descriptor is kept.
 */
static int call(int connection, uint32_t type, const void *request, size_t request_octets,
                void *reply, size_t reply_octets, struct fds *fds, bool *broken)
{
    int64_t deadline = now_ms() + RPC_TIMEOUT_MS;
    struct xsd_sockmsg header = {.type = type, .req_id = 1, .len = (uint32_t) request_octets};
    struct fds none = {.count = 0};
    int result;

    if (fds == NULL)
        fds = &none;
    fds->count = 0;
    result = send_all(connection, &header, sizeof(header), deadline);
    if (result == 0)
        result = send_all(connection, request, request_octets, deadline);
    if (result == 0)
        result = receive_all(connection, &header, sizeof(header), fds, deadline);
    if (result < 0)
        goto failed;

    result = -EPROTO;
    if (header.req_id != 1)
        goto failed;
    if (header.type == XS_ERROR) {
        char name[32];
        int received;

        if (header.len == 0 || header.len > sizeof(name))
            goto failed;
        received = receive_all(connection, name, header.len, NULL, deadline);
        if (received < 0) {
            result = received;
            goto failed;
        }
        if (memchr(name, '\0', header.len) != name + header.len - 1)
            goto failed;
        close_fds(fds);
        return error_called(name);
    }
    if (header.type != type || header.len != reply_octets)
        goto failed;
    result = receive_all(connection, reply, reply_octets, NULL, deadline);
    if (result < 0)
        goto failed;
    close_fds(&none);
    return 0;

failed:
    close_fds(fds);
    *broken = true;
    return result;
}

static int connect_store(struct xa_hv *hv)
{
    return xa_hv_connect_unix(hv->address);
}

/* Addresses only, for mappings to be put into. */
static void *reserve(uint32_t pages)
{
    void *memory = mmap(NULL, (size_t) pages * PAGE_OCTETS, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* How many pages `fd` has and will keep, or a negative errno value. */
static int64_t pages_of(int fd)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &status) < 0)
        return -EPROTO;
    return (int64_t) (status.st_size / PAGE_OCTETS);
}

static int place(void *memory, uint32_t at, uint32_t count, bool writable, int fd, uint32_t page)
{
    void *where = (uint8_t *) memory + (size_t) at * PAGE_OCTETS;
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;

    if (mmap(where, (size_t) count * PAGE_OCTETS, protection, MAP_SHARED | MAP_FIXED, fd,
             (off_t) page * PAGE_OCTETS) == MAP_FAILED)
        return -errno;
    return 0;
}

static int share_some(struct local_share *share, uint16_t remote, uint32_t from, uint32_t count)
{
    struct xa_local_gntalloc request = {.remote = remote, .count = count};
    struct fds fds;
    bool broken = false;
    int result;

    result = call(share->connection, XA_LOCAL_GNTALLOC, &request, sizeof(request),
                  share->grefs + from, count * sizeof(uint32_t), &fds, &broken);
    if (result < 0)
        return result;
    if (fds.count != 1 || pages_of(fds.fd[0]) < (int64_t) count)
        result = -EPROTO;
    else
        result = place(share->base.memory, from, count, true, fds.fd[0], 0);
    close_fds(&fds);
    return result;
}

static void share_end(struct local_share *share)
{
    if (share->base.memory != NULL)
        munmap(share->base.memory, (size_t) share->base.pages * PAGE_OCTETS);
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
    new->base = (struct xa_share){.ops = &xa_hv_local, .pages = pages, .memory = reserve(pages)};
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

        call(share->connection, XA_LOCAL_GNTDEALLOC, share->grefs + done, count * sizeof(uint32_t),
             NULL, 0, NULL, &broken);
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
                     const struct xa_local_gntpage *pages, const struct fds *fds)
{
    int64_t available[FDS_MAX] = {0};

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
        result = place(map->base.memory, from + i, run, map->writable, fds->fd[pages[i].fd],
                       pages[i].page);
        if (result < 0)
            return result;
    }
    return 0;
}

static int map_some(struct local_map *map, uint32_t from, uint32_t count)
{
    struct xa_local_gntpage pages[GNTMAP_MAX];
    struct map_request request;
    struct fds fds;
    bool broken = false;
    int result;

    result = call(map->connection, XA_LOCAL_GNTMAP, &request,
                  fill_map_request(&request, map, from, count), pages, count * sizeof(pages[0]),
                  &fds, &broken);
    if (result < 0)
        return result;
    result = map_pages(map, from, count, pages, &fds);
    close_fds(&fds);
    return result;
}

static void map_end(struct local_map *map)
{
    if (map->base.memory != NULL)
        munmap(map->base.memory, (size_t) map->base.pages * PAGE_OCTETS);
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
    new->base = (struct xa_map){.ops = &xa_hv_local, .pages = pages, .memory = reserve(pages)};
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
    munmap(base->memory, (size_t) base->pages * PAGE_OCTETS);
    base->memory = NULL;
    for (uint32_t done = 0; done < base->pages && !broken;) {
        uint32_t left = base->pages - done, count = left < GNTMAP_MAX ? left : GNTMAP_MAX;

        call(map->connection, XA_LOCAL_GNTUNMAP, &request,
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
    new->base.fd = epoll_create1(EPOLL_CLOEXEC);
    if (new->base.fd < 0) {
        result = -errno;
        free(new);
        return result;
    }
    new->connection = open_connection(hv);
    if (new->connection < 0) {
        result = new->connection;
        close(new->base.fd);
        free(new);
        return result;
    }
    *evtchn = &new->base;
    return 0;
}

static int evtchn_call(struct local_evtchn *evtchn, uint32_t type, const void *request,
                       size_t request_octets, void *reply, size_t reply_octets, struct fds *fds)
{
    bool broken = false;
    int result;

    if (evtchn->connection < 0)
        return -EPIPE;
    result =
        call(evtchn->connection, type, request, request_octets, reply, reply_octets, fds, &broken);
    if (broken) {
        close(evtchn->connection);
        evtchn->connection = -1;
    }
    return result;
}

static bool never_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

static int add_port(struct local_evtchn *evtchn, uint32_t number, struct fds *fds)
{
    struct port *port;
    struct epoll_event event = {.events = EPOLLIN};

    if (fds->count != 2 || !never_blocks(fds->fd[0]) || !never_blocks(fds->fd[1]))
        return -EPROTO;
    port = malloc(sizeof(*port));
    if (port == NULL)
        return -ENOMEM;
    *port =
        (struct port){.next = evtchn->ports, .number = number, .rx = fds->fd[0], .tx = fds->fd[1]};
    event.data.ptr = port;
    if (epoll_ctl(evtchn->base.fd, EPOLL_CTL_ADD, port->rx, &event) < 0) {
        int result = -errno;

        free(port);
        return result;
    }
    fds->count = 0;
    evtchn->ports = port;
    return 0;
}

static int bind_port(struct xa_evtchn *base, uint32_t type, uint16_t remote, uint32_t remote_port,
                     uint32_t *port)
{
    struct local_evtchn *evtchn = (struct local_evtchn *) base;
    struct xa_local_evtchn request = {.remote = remote, .remote_port = remote_port};
    uint32_t number;
    struct fds fds;
    int result;

    result = evtchn_call(evtchn, type, &request, sizeof(request), &number, sizeof(number), &fds);
    if (result < 0)
        return result;
    result = add_port(evtchn, number, &fds);
    close_fds(&fds);
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

static struct port **find_port(struct local_evtchn *evtchn, uint32_t number)
{
    struct port **link = &evtchn->ports;

    while (*link != NULL && (*link)->number != number)
        link = &(*link)->next;
    return link;
}

static void drop_port(struct local_evtchn *evtchn, struct port **link)
{
    struct port *port = *link;

    /* The peer holds the same eventfd, so closing ours alone would leave it in the epoll. */
    epoll_ctl(evtchn->base.fd, EPOLL_CTL_DEL, port->rx, NULL);
    close(port->rx);
    close(port->tx);
    *link = port->next;
    free(port);
}

static int unbind(struct xa_evtchn *base, uint32_t number)
{
    struct local_evtchn *evtchn = (struct local_evtchn *) base;
    struct port **link = find_port(evtchn, number);

    if (*link == NULL)
        return number < PORTS_OF_A_TABLE ? -ENOTCONN : -EINVAL;
    drop_port(evtchn, link);
    return evtchn_call(evtchn, XA_LOCAL_EVTCHN_UNBIND, &number, sizeof(number), NULL, 0, NULL);
}

static void evtchn_close(struct xa_evtchn *base)
{
    struct local_evtchn *evtchn = (struct local_evtchn *) base;

    while (evtchn->ports != NULL)
        drop_port(evtchn, &evtchn->ports);
    if (evtchn->connection >= 0)
        close(evtchn->connection);
    close(base->fd);
    free(evtchn);
}

static int notify(struct xa_evtchn *base, uint32_t number)
{
    const uint64_t one = 1;
    struct port *port = *find_port((struct local_evtchn *) base, number);

    if (port == NULL)
        return -ENOTCONN;
    /* EAGAIN: the counter is full, so the port is pending already. */
    while (write(port->tx, &one, sizeof(one)) < 0 && errno != EAGAIN)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int pending(struct xa_evtchn *base, uint32_t *number)
{
    for (;;) {
        struct epoll_event event;
        struct port *port;
        uint64_t times;
        ssize_t got;
        int ready = epoll_wait(base->fd, &event, 1, 0);

        if (ready == 0)
            return 0;
        if (ready < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        port = event.data.ptr;
        got = read(port->rx, &times, sizeof(times));
        if (got == (ssize_t) sizeof(times)) {
            *number = port->number;
            return 1;
        }
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        /* Not an eventfd after all: it would stay readable for ever. */
        epoll_ctl(base->fd, EPOLL_CTL_DEL, port->rx, NULL);
        return -EPROTO;
    }
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
