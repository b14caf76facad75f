/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The XenStore client: requests in one list, in the order in which they were made, from the moment
 * they are queued until they are answered.
 *
 * What /dev/xen/xenbus asks of its user decides how requests are written, for sockets too:
 *  - It assembles one message from any number of writes, but drops what follows a complete message
 *    in the same write: so no write spans two messages.
 *  - Its buffer holds XENSTORE_PAYLOAD_MAX octets with the header: so that is the limit here.
 *  - It never polls as writable: so a request is written when it is made, and only what a socket
 *    does not take then waits for POLLOUT.
 * What it asks besides is kept from sockets, where it would cost time:
 *  - It takes a second message while it still sends the first from the same buffer, which xenstored
 *    then gets with the second one's text (seen on Linux 6.1): so the next request is written when
 *    the last one is answered.
 *  - It sets and ends watches while it is written to, and what xenstored says against one is the
 *    error of that write; of every failed write it forgets the message: so the error is that
 *    request's alone, and the connection lives on.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "xs_error.h"

#define HEADER_OCTETS sizeof(struct xsd_sockmsg)
#define MESSAGE_OCTETS_MAX (HEADER_OCTETS + XENSTORE_PAYLOAD_MAX)

/* Reads for each call of xa_store_process: whoever can make watches fire fast enough must not keep
 * the caller from its other work. */
#define READS_MAX 16

struct request {
    struct request *next;
    xa_store_reply_fn fn;
    void *user;
    uint32_t type;
    uint32_t id;
    size_t octets; /* of message */
    size_t sent;   /* of them */
    uint8_t message[];
};

struct xa_store {
    int fd;
    bool is_socket; /* else /dev/xen/xenbus */
    bool dead;
    bool processing;
    int write_error;
    uint32_t last_id;
    xa_store_watch_fn watch_fn;
    void *user;
    struct request *first;
    struct request **end;   /* where the next request is linked in */
    struct request *unsent; /* the first of which octets are left to write */
    size_t received;        /* octets in `input` */
    uint8_t input[MESSAGE_OCTETS_MAX];
    char payload[XENSTORE_PAYLOAD_MAX + 1];
};

struct xa_store *xa_store_new(int fd, xa_store_watch_fn watch_fn, void *user)
{
    struct xa_store *store;
    struct stat status;
    int flags;

    if (fstat(fd, &status) < 0)
        return NULL;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return NULL;
    store = calloc(1, sizeof(*store));
    if (store == NULL)
        return NULL;
    store->fd = fd;
    store->is_socket = S_ISSOCK(status.st_mode);
    store->watch_fn = watch_fn;
    store->user = user;
    store->end = &store->first;
    return store;
}

void xa_store_free(struct xa_store *store)
{
    if (store == NULL)
        return;
    while (store->first != NULL) {
        struct request *request = store->first;

        store->first = request->next;
        free(request);
    }
    close(store->fd);
    free(store);
}

int xa_store_fd(const struct xa_store *store)
{
    return store->fd;
}

/* Whether octets wait that may be written now. */
static bool may_write(const struct xa_store *store)
{
    return store->unsent != NULL && store->write_error == 0 &&
           (store->is_socket || store->unsent == store->first);
}

bool xa_store_wants_write(const struct xa_store *store)
{
    return !store->dead && may_write(store);
}

static void unlink_request(struct xa_store *store, struct request **link)
{
    struct request *request = *link;

    *link = request->next;
    if (store->end == &request->next)
        store->end = link;
    if (store->unsent == request)
        store->unsent = request->next;
}

/* Writes what the descriptor takes. An error of a socket is remembered, not acted on: replies that
 * the server sent before it went away are still to be read. Another descriptor's is returned, and
 * is about the one request that was being written, store->unsent. */
static int flush(struct xa_store *store)
{
    while (may_write(store)) {
        struct request *request = store->unsent;
        const uint8_t *from = request->message + request->sent;
        size_t left = request->octets - request->sent;
        ssize_t written = store->is_socket ? send(store->fd, from, left, MSG_NOSIGNAL)
                                           : write(store->fd, from, left);

        if (written < 0) {
            if (errno == EINTR)
                continue;
            if (!store->is_socket)
                return -errno;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                store->write_error = -errno;
            return 0;
        }
        request->sent += (size_t) written;
        if (request->sent < request->octets) {
            if (written == 0)
                store->write_error = -EIO;
            continue;
        }
        store->unsent = request->next;
    }
    return 0;
}

/* As flush, and answers the requests that were refused. */
static void flush_and_answer(struct xa_store *store)
{
    int error;

    while ((error = flush(store)) < 0) {
        struct request *request = store->unsent;

        unlink_request(store, &store->first);
        if (request->fn != NULL)
            request->fn(request->user, error, "", 0);
        free(request);
    }
}

static void fail(struct xa_store *store)
{
    store->dead = true;
    while (store->first != NULL) {
        struct request *request = store->first;

        unlink_request(store, &store->first);
        if (request->fn != NULL)
            request->fn(request->user, -EPIPE, "", 0);
        free(request);
    }
}

/* Whether payload[0..length-1] is whole strings. */
static bool ends_in_nul(const struct xa_store *store, size_t length)
{
    return length > 0 && store->payload[length - 1] == '\0';
}

/* Whether it is exactly one. */
static bool is_string(const struct xa_store *store, size_t length)
{
    return ends_in_nul(store, length) && strlen(store->payload) == length - 1;
}

static int take_watch_event(struct xa_store *store, size_t length)
{
    const char *path = store->payload, *token;
    size_t path_octets;

    if (!ends_in_nul(store, length))
        return -EPROTO;
    path_octets = strlen(path) + 1;
    if (path_octets == length)
        return -EPROTO;
    token = path + path_octets;
    /* Other servers may append to the event; what follows the token is not ours to judge. */
    if (store->watch_fn != NULL)
        store->watch_fn(store->user, path, token);
    return 0;
}

static int take_message(struct xa_store *store, const struct xsd_sockmsg *header)
{
    struct request **link = &store->first, *request;
    size_t length = header->len;
    int error = 0;

    if (header->type == XS_WATCH_EVENT)
        return take_watch_event(store, length);

    while (*link != NULL && (*link)->id != header->req_id)
        link = &(*link)->next;
    request = *link;
    if (request == NULL || request->sent < request->octets)
        return -EPROTO;

    if (header->type == XS_ERROR) {
        if (!is_string(store, length))
            return -EPROTO;
        error = xa_xs_error(store->payload);
        length = 0;
        store->payload[0] = '\0';
    } else if (header->type != request->type) {
        return -EPROTO;
    } else if (header->type == XS_DIRECTORY || header->type == XS_GET_PERMS) {
        if (length > 0 && !ends_in_nul(store, length))
            return -EPROTO;
    } else if (header->type != XS_READ) {
        if (!is_string(store, length))
            return -EPROTO;
        length--;
    }

    unlink_request(store, link);
    if (request->fn != NULL)
        request->fn(request->user, error, store->payload, length);
    free(request);
    return 0;
}

/* Takes the whole messages at the front of the input. */
static int take_input(struct xa_store *store)
{
    size_t taken = 0;
    int result = 0;

    while (store->received - taken >= HEADER_OCTETS) {
        struct xsd_sockmsg header;

        memcpy(&header, store->input + taken, sizeof(header));
        if (header.len > XENSTORE_PAYLOAD_MAX) {
            result = -EPROTO;
            break;
        }
        if (store->received - taken - HEADER_OCTETS < header.len)
            break;
        memcpy(store->payload, store->input + taken + HEADER_OCTETS, header.len);
        store->payload[header.len] = '\0';
        taken += HEADER_OCTETS + header.len;
        result = take_message(store, &header);
        if (result < 0)
            break;
    }
    store->received -= taken;
    memmove(store->input, store->input + taken, store->received);
    return result;
}

static int receive(struct xa_store *store)
{
    for (unsigned reads = 0; reads < READS_MAX; reads++) {
        ssize_t got =
            read(store->fd, store->input + store->received, sizeof(store->input) - store->received);
        int result;

        if (got == 0)
            return -EPIPE;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return store->write_error;
            return errno == ECONNRESET ? -EPIPE : -errno;
        }
        store->received += (size_t) got;
        result = take_input(store);
        if (result < 0)
            return result;
    }
    return 0;
}

int xa_store_process(struct xa_store *store)
{
    int result;

    if (store->processing)
        return -EBUSY;
    if (store->dead)
        return -EPIPE;
    store->processing = true;
    flush_and_answer(store);
    result = receive(store);
    if (result < 0)
        fail(store);
    else if (!store->is_socket)
        flush_and_answer(store); /* what waited for the replies just given out */
    store->processing = false;
    return result;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int xa_store_process_wait(struct xa_store *store, int timeout_ms)
{
    int64_t deadline = timeout_ms < 0 ? 0 : now_ms() + timeout_ms;

    if (store->processing)
        return -EBUSY;
    if (store->dead)
        return -EPIPE;
    for (;;) {
        struct pollfd pollfd = {.fd = store->fd, .events = POLLIN};
        int64_t left = timeout_ms < 0 ? -1 : deadline - now_ms();
        int ready;

        if (timeout_ms >= 0 && left < 0)
            left = 0;
        if (store->write_error != 0)
            left = 0;
        if (xa_store_wants_write(store))
            pollfd.events |= POLLOUT;
        ready = poll(&pollfd, 1, (int) left);
        if (ready < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (ready == 0 && store->write_error == 0)
            return -ETIMEDOUT;
        if (pollfd.revents == POLLOUT) {
            /* Room to write is not yet something that arrived. */
            (void) flush(store);
            continue;
        }
        return xa_store_process(store);
    }
}

static uint32_t unused_id(struct xa_store *store)
{
    for (;;) {
        const struct request *request = store->first;

        if (++store->last_id == 0)
            continue;
        while (request != NULL && request->id != store->last_id)
            request = request->next;
        if (request == NULL)
            return store->last_id;
    }
}

static int queue(struct xa_store *store, uint32_t type, uint32_t tx, const struct iovec *parts,
                 unsigned count, xa_store_reply_fn fn, void *user)
{
    struct xsd_sockmsg header = {.type = type, .tx_id = tx};
    struct request *request, **link;
    size_t octets = HEADER_OCTETS;
    int error = 0;

    if (store->dead || store->write_error != 0)
        return -EPIPE;
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].iov_len > XENSTORE_PAYLOAD_MAX - octets)
            return -EINVAL;
        octets += parts[i].iov_len;
    }
    request = malloc(sizeof(*request) + octets);
    if (request == NULL)
        return -ENOMEM;
    header.req_id = unused_id(store);
    header.len = (uint32_t) (octets - HEADER_OCTETS);
    *request = (struct request){
        .fn = fn, .user = user, .type = type, .id = header.req_id, .octets = octets};
    memcpy(request->message, &header, HEADER_OCTETS);
    octets = HEADER_OCTETS;
    for (unsigned i = 0; i < count; i++) {
        memcpy(request->message + octets, parts[i].iov_base, parts[i].iov_len);
        octets += parts[i].iov_len;
    }

    link = store->end;
    *link = request;
    store->end = &request->next;
    if (store->unsent == NULL)
        store->unsent = request;
    /* From within a callback others may wait before it, the refusal of which is not to be heard
     * here; then xa_store_process goes on with all of them. */
    if (store->is_socket || !store->processing)
        error = flush(store);
    if (store->write_error != 0)
        error = -EPIPE;
    if (error != 0) {
        unlink_request(store, link);
        free(request);
    }
    return error;
}

static struct iovec octets_of(const char *string, size_t length)
{
    return (struct iovec){.iov_base = (void *) (uintptr_t) string, .iov_len = length};
}

static struct iovec string_of(const char *string)
{
    return octets_of(string, strlen(string) + 1);
}

static bool is_path(const char *path)
{
    size_t length;

    if (path == NULL)
        return false;
    length = strlen(path);
    return length > 0 && length <= (path[0] == '/' ? XENSTORE_ABS_PATH_MAX : XENSTORE_REL_PATH_MAX);
}

static int queue_path(struct xa_store *store, uint32_t type, uint32_t tx, const char *path,
                      xa_store_reply_fn fn, void *user)
{
    struct iovec part;

    if (!is_path(path))
        return -EINVAL;
    part = string_of(path);
    return queue(store, type, tx, &part, 1, fn, user);
}

int xa_store_read(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                  void *user)
{
    return queue_path(store, XS_READ, tx, path, fn, user);
}

int xa_store_directory(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                       void *user)
{
    return queue_path(store, XS_DIRECTORY, tx, path, fn, user);
}

int xa_store_write(struct xa_store *store, uint32_t tx, const char *path, const char *value,
                   xa_store_reply_fn fn, void *user)
{
    struct iovec parts[2];

    if (!is_path(path) || value == NULL)
        return -EINVAL;
    parts[0] = string_of(path);
    parts[1] = octets_of(value, strlen(value));
    return queue(store, XS_WRITE, tx, parts, 2, fn, user);
}

int xa_store_mkdir(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                   void *user)
{
    return queue_path(store, XS_MKDIR, tx, path, fn, user);
}

int xa_store_rm(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                void *user)
{
    return queue_path(store, XS_RM, tx, path, fn, user);
}

int xa_store_get_perms(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                       void *user)
{
    return queue_path(store, XS_GET_PERMS, tx, path, fn, user);
}

int xa_store_set_perms(struct xa_store *store, uint32_t tx, const char *path,
                       const char *const *perms, unsigned count, xa_store_reply_fn fn, void *user)
{
    char payload[XENSTORE_PAYLOAD_MAX];
    struct iovec parts[2];
    size_t octets = 0;

    if (!is_path(path) || count == 0)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++) {
        size_t length = strlen(perms[i]) + 1;

        if (length == 1 || length > sizeof(payload) - octets)
            return -EINVAL;
        memcpy(payload + octets, perms[i], length);
        octets += length;
    }
    parts[0] = string_of(path);
    parts[1] = octets_of(payload, octets);
    return queue(store, XS_SET_PERMS, tx, parts, 2, fn, user);
}

int xa_store_get_domain_path(struct xa_store *store, unsigned domid, xa_store_reply_fn fn,
                             void *user)
{
    char text[sizeof("4294967295")];
    struct iovec part;

    snprintf(text, sizeof(text), "%u", domid);
    part = string_of(text);
    return queue(store, XS_GET_DOMAIN_PATH, 0, &part, 1, fn, user);
}

static int queue_watch(struct xa_store *store, uint32_t type, const char *path, const char *token,
                       xa_store_reply_fn fn, void *user)
{
    struct iovec parts[2];

    if (!is_path(path) || token == NULL)
        return -EINVAL;
    parts[0] = string_of(path);
    parts[1] = string_of(token);
    return queue(store, type, 0, parts, 2, fn, user);
}

int xa_store_watch(struct xa_store *store, const char *path, const char *token,
                   xa_store_reply_fn fn, void *user)
{
    return queue_watch(store, XS_WATCH, path, token, fn, user);
}

int xa_store_unwatch(struct xa_store *store, const char *path, const char *token,
                     xa_store_reply_fn fn, void *user)
{
    return queue_watch(store, XS_UNWATCH, path, token, fn, user);
}

int xa_store_transaction_start(struct xa_store *store, xa_store_reply_fn fn, void *user)
{
    struct iovec part = string_of("");

    return queue(store, XS_TRANSACTION_START, 0, &part, 1, fn, user);
}

int xa_store_transaction_end(struct xa_store *store, uint32_t tx, bool commit, xa_store_reply_fn fn,
                             void *user)
{
    struct iovec part = string_of(commit ? "T" : "F");

    return queue(store, XS_TRANSACTION_END, tx, &part, 1, fn, user);
}
