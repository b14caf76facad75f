/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls over a Unix socket; see rpc.h. */
#include "rpc.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "xs_error.h"

#define RPC_TIMEOUT_MS 2000

void xa_fds_close(struct xa_fds *fds)
{
    while (fds->count > 0)
        close(fds->fd[--fds->count]);
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

static int take_fds(struct msghdr *message, struct xa_fds *fds)
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
            if (fds->count < XA_FDS_MAX) {
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
static int receive_all(int connection, void *octets, size_t count, struct xa_fds *fds,
                       int64_t deadline)
{
    uint8_t *to = octets;

    while (count > 0) {
        union {
            struct cmsghdr align;
            uint8_t space[CMSG_SPACE(sizeof(int) * XA_FDS_MAX)];
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

int xa_rpc_call(int connection, uint32_t type, const void *request, size_t request_octets,
                void *reply, size_t reply_octets, struct xa_fds *fds, bool *broken)
{
    int64_t deadline = now_ms() + RPC_TIMEOUT_MS;
    struct xsd_sockmsg header = {.type = type, .req_id = 1, .len = (uint32_t) request_octets};
    struct xa_fds none = {.count = 0};
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
        xa_fds_close(fds);
        return error_called(name);
    }
    if (header.type != type || header.len != reply_octets)
        goto failed;
    result = receive_all(connection, reply, reply_octets, NULL, deadline);
    if (result < 0)
        goto failed;
    xa_fds_close(&none);
    return 0;

failed:
    xa_fds_close(fds);
    *broken = true;
    return result;
}
