/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whatever a server sends, in whatever pieces: the XenStore client (csrc/hv/store.h) answers every
 * request exactly once, with whole strings, or says that the connection is over. A libFuzzer
 * target.
 *
 * The first octet is the size of the pieces that the server sends (0: all at once), the rest is its
 * output. Eleven requests wait when it begins, one of each kind; their ids are 1 to 11, in the
 * order of `first`. Requests made by replies follow from 12.
 */
#include "hv/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/xs_error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ASKED_MAX 64u /* and one to be refused */

/* A socket pair's buffer takes this much at once on every Linux. */
#define OUTPUT_MAX 65536u

static const uint32_t first[] = {
    XS_READ,  XS_DIRECTORY, XS_GET_PERMS, XS_WATCH,     XS_UNWATCH,         XS_TRANSACTION_START,
    XS_WRITE, XS_MKDIR,     XS_RM,        XS_SET_PERMS, XS_GET_DOMAIN_PATH,
};

struct client;

struct asked {
    struct client *client;
    uint32_t type;
    unsigned answers;
};

struct client {
    struct xa_store *store;
    struct asked asked[ASKED_MAX + 1];
    unsigned count;
};

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void on_reply(void *user, int error, const char *data, size_t length);

static int ask(struct client *client, uint32_t type)
{
    static const char *const perms[] = {"n0", "r1"};
    struct asked *asked = &client->asked[client->count];
    struct xa_store *store = client->store;
    int result = -EINVAL;

    *asked = (struct asked){.client = client, .type = type};
    switch (type) {
    case XS_READ:
        result = xa_store_read(store, 1, "a", on_reply, asked);
        break;
    case XS_DIRECTORY:
        result = xa_store_directory(store, 0, "a", on_reply, asked);
        break;
    case XS_GET_PERMS:
        result = xa_store_get_perms(store, 0, "a", on_reply, asked);
        break;
    case XS_WATCH:
        result = xa_store_watch(store, "a", "t", on_reply, asked);
        break;
    case XS_UNWATCH:
        result = xa_store_unwatch(store, "a", "t", on_reply, asked);
        break;
    case XS_TRANSACTION_START:
        result = xa_store_transaction_start(store, on_reply, asked);
        break;
    case XS_WRITE:
        result = xa_store_write(store, 0, "a", "1", on_reply, asked);
        break;
    case XS_MKDIR:
        result = xa_store_mkdir(store, 0, "a", on_reply, asked);
        break;
    case XS_RM:
        result = xa_store_rm(store, 0, "a", on_reply, asked);
        break;
    case XS_SET_PERMS:
        result = xa_store_set_perms(store, 0, "a", perms, 2, on_reply, asked);
        break;
    case XS_GET_DOMAIN_PATH:
        result = xa_store_get_domain_path(store, 1, on_reply, asked);
        break;
    default:
        break;
    }
    if (result == 0)
        client->count++;
    return result;
}

static void on_reply(void *user, int error, const char *data, size_t length)
{
    struct asked *asked = user;

    require(++asked->answers == 1);
    require(error <= 0 && error > -4096);
    require(length <= XENSTORE_PAYLOAD_MAX && data[length] == '\0');
    if (error != 0)
        require(length == 0);
    else if (asked->type == XS_DIRECTORY || asked->type == XS_GET_PERMS)
        require(length == 0 || data[length - 1] == '\0');
    else if (asked->type != XS_READ)
        require(strlen(data) == length);
    if (asked->client->count < ASKED_MAX) {
        int result = ask(asked->client, asked->type);

        require(result == 0 || (result == -EPIPE && error == -EPIPE));
    }
}

static void on_watch(void *user, const char *path, const char *token)
{
    struct client *client = user;

    require(strlen(path) + strlen(token) + 2 <= XENSTORE_PAYLOAD_MAX);
    require(xa_store_process(client->store) == -EBUSY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct client client = {.count = 0};
    size_t piece, octets;
    int fds[2], result = 0;

    if (size < 2 || size > OUTPUT_MAX)
        return 0;
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    client.store = xa_store_new(fds[0], on_watch, &client);
    require(client.store != NULL);
    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++)
        require(ask(&client, first[i]) == 0);

    piece = data[0] == 0 ? size : data[0];
    for (size_t at = 1; at < size && result == 0; at += octets) {
        octets = size - at < piece ? size - at : piece;
        require(send(fds[1], data + at, octets, MSG_NOSIGNAL) == (ssize_t) octets);
        result = xa_store_process(client.store);
        require(result == 0 || result == -EPROTO);
    }
    require(shutdown(fds[1], SHUT_WR) == 0);
    while (result == 0)
        result = xa_store_process(client.store);
    require(result == -EPIPE || result == -EPROTO);
    for (unsigned i = 0; i < client.count; i++)
        require(client.asked[i].answers == 1);
    require(ask(&client, XS_READ) == -EPIPE);
    xa_store_free(client.store);
    close(fds[1]);
    return 0;
}
