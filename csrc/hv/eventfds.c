/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ports that are eventfds; see eventfds.h. */
#include "eventfds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct xa_eventfd_port {
    struct xa_eventfd_port *next;
    uint32_t number;
    int rx; /* readable while the port is pending */
    int tx; /* written to notify the peer */
};

static bool never_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

int xa_eventfds_open(struct xa_eventfds *eventfds)
{
    eventfds->epoll = epoll_create1(EPOLL_CLOEXEC);
    return eventfds->epoll < 0 ? -errno : eventfds->epoll;
}

int xa_eventfds_add(struct xa_eventfds *eventfds, uint32_t number, int rx, int tx)
{
    struct xa_eventfd_port *port;
    struct epoll_event event = {.events = EPOLLIN};

    if (!never_blocks(rx) || !never_blocks(tx))
        return -EPROTO;
    port = malloc(sizeof(*port));
    if (port == NULL)
        return -ENOMEM;
    *port = (struct xa_eventfd_port){.next = eventfds->ports, .number = number, .rx = rx, .tx = tx};
    event.data.ptr = port;
    if (epoll_ctl(eventfds->epoll, EPOLL_CTL_ADD, port->rx, &event) < 0) {
        int result = -errno;

        free(port);
        return result;
    }
    eventfds->ports = port;
    return 0;
}

static void drop(struct xa_eventfds *eventfds, struct xa_eventfd_port **link)
{
    struct xa_eventfd_port *port = *link;

    /* The peer holds the same eventfd, so closing ours alone would leave it in the epoll. */
    epoll_ctl(eventfds->epoll, EPOLL_CTL_DEL, port->rx, NULL);
    close(port->rx);
    close(port->tx);
    *link = port->next;
    free(port);
}

bool xa_eventfds_remove(struct xa_eventfds *eventfds, uint32_t number)
{
    struct xa_eventfd_port **link = &eventfds->ports;

    while (*link != NULL && (*link)->number != number)
        link = &(*link)->next;
    if (*link == NULL)
        return false;
    drop(eventfds, link);
    return true;
}

void xa_eventfds_clear(struct xa_eventfds *eventfds)
{
    while (eventfds->ports != NULL)
        drop(eventfds, &eventfds->ports);
}

int xa_eventfds_notify(const struct xa_eventfds *eventfds, uint32_t number)
{
    const uint64_t one = 1;
    const struct xa_eventfd_port *port = eventfds->ports;

    while (port != NULL && port->number != number)
        port = port->next;
    if (port == NULL)
        return -ENOTCONN;
    /* EAGAIN: the counter is full, so the port is pending already. */
    while (write(port->tx, &one, sizeof(one)) < 0 && errno != EAGAIN)
        if (errno != EINTR)
            return -errno;
    return 0;
}

int xa_eventfds_pending(const struct xa_eventfds *eventfds, uint32_t *number)
{
    for (;;) {
        struct xa_eventfd_port *port;
        struct epoll_event event;
        uint64_t times;
        ssize_t got;
        int ready = epoll_wait(eventfds->epoll, &event, 1, 0);

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
        epoll_ctl(eventfds->epoll, EPOLL_CTL_DEL, port->rx, NULL);
        return -EPROTO;
    }
}
