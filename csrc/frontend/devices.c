/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of the guest's cards; see devices.h. */
#include "devices.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "hv/store.h"
#include "sndif/xen.h"

#define FOLDER "device/" XENSND_DRIVER_NAME
#define TOKEN "xenaudio-devices"
#define DEVICE_MAX 65535

#define RETRY_FIRST_US UINT64_C(1000000)
#define RETRY_LAST_US UINT64_C(8000000)
#define ANSWER_LIMIT_US UINT64_C(10000000)

struct xa_devices {
    struct xa_hv *hv;
    struct xa_devices_callbacks callbacks;
    void *user;
    uint64_t now;

    struct xa_store *store;
    uint64_t retry_us;  /* without a store: when to connect */
    uint64_t pause_us;  /* before the next attempt, if this one fails */
    uint64_t answer_us; /* when an answer is overdue; UINT64_MAX: none is owed */
    bool look;          /* the folder is to be read again */
    int error;          /* the store is to be given up for it */
    char trouble[256];

    bool known; /* `list` was told */
    unsigned list[XA_DEVICES_MAX];
    unsigned count;
};

static void say(struct xa_devices *devices, const char *trouble)
{
    if (strcmp(devices->trouble, trouble) == 0)
        return;
    snprintf(devices->trouble, sizeof(devices->trouble), "%s", trouble);
    devices->callbacks.store(devices->user, devices->trouble);
}

static int ascending(const void *left, const void *right)
{
    unsigned a = *(const unsigned *) left, b = *(const unsigned *) right;

    return (a > b) - (a < b);
}

/* Takes the folder's entries. */
static void take(struct xa_devices *devices, const char *names, size_t length)
{
    unsigned list[XA_DEVICES_MAX], count = 0;

    for (size_t at = 0; at < length && count < XA_DEVICES_MAX; at += strlen(names + at) + 1) {
        uint64_t number;

        if (xa_config_number(names + at, DEVICE_MAX, &number) == 0)
            list[count++] = (unsigned) number;
    }
    qsort(list, count, sizeof(list[0]), ascending);
    if (devices->known && count == devices->count &&
        memcmp(list, devices->list, count * sizeof(list[0])) == 0)
        return;
    devices->known = true;
    devices->count = count;
    memcpy(devices->list, list, count * sizeof(list[0]));
    devices->callbacks.list(devices->user, devices->list, count);
}

static void on_folder(void *user, int error, const char *data, size_t length)
{
    struct xa_devices *devices = user;

    devices->answer_us = UINT64_MAX;
    if (error < 0 && error != -ENOENT) {
        devices->error = error;
        return;
    }
    devices->pause_us = RETRY_FIRST_US;
    say(devices, "");
    take(devices, data, error < 0 ? 0 : length);
}

static void on_watched(void *user, int error, const char *data, size_t length)
{
    struct xa_devices *devices = user;

    (void) data;
    (void) length;
    if (error < 0)
        devices->error = error;
}

/* Whether a path is that of a node of a card that is in the list. */
static bool in_known_device(const struct xa_devices *devices, const char *path)
{
    static const char folder[] = FOLDER "/";
    char known[16];

    if (strncmp(path, folder, strlen(folder)) != 0)
        return false;
    path += strlen(folder);
    for (unsigned i = 0; i < devices->count; i++) {
        int length = snprintf(known, sizeof(known), "%u/", devices->list[i]);

        if (strncmp(path, known, (size_t) length) == 0)
            return true;
    }
    return false;
}

/* Fires once when it is set, whenever a card comes or goes, and for each of its nodes. */
static void on_watch(void *user, const char *path, const char *token)
{
    struct xa_devices *devices = user;

    (void) token;
    if (!in_known_device(devices, path))
        devices->look = true;
}

static void look(struct xa_devices *devices)
{
    int error = xa_store_directory(devices->store, 0, FOLDER, on_folder, devices);

    devices->look = false;
    if (error < 0)
        devices->error = error;
    else
        devices->answer_us = devices->now + ANSWER_LIMIT_US;
}

static void connect_store(struct xa_devices *devices)
{
    int fd = xa_hv_connect_store(devices->hv);

    if (fd < 0) {
        devices->error = fd;
        return;
    }
    devices->store = xa_store_new(fd, on_watch, devices);
    if (!devices->store) {
        devices->error = -errno;
        close(fd);
        return;
    }
    devices->error = xa_store_watch(devices->store, FOLDER, TOKEN, on_watched, devices);
    if (devices->error == 0)
        look(devices);
}

static void give_up_store(struct xa_devices *devices)
{
    char text[sizeof(devices->trouble)];

    snprintf(text, sizeof(text), "the store of %s cannot be asked: %s", xa_hv_address(devices->hv),
             strerror(-devices->error));
    xa_store_free(devices->store);
    devices->store = NULL;
    devices->error = 0;
    devices->look = false;
    devices->answer_us = UINT64_MAX;
    devices->retry_us = devices->now + devices->pause_us;
    devices->pause_us *= 2;
    if (devices->pause_us > RETRY_LAST_US)
        devices->pause_us = RETRY_LAST_US;
    say(devices, text);
}

struct xa_devices *xa_devices_new(struct xa_hv *hv, const struct xa_devices_callbacks *callbacks,
                                  void *user)
{
    struct xa_devices *devices = calloc(1, sizeof(*devices));

    if (!devices)
        return NULL;
    devices->hv = hv;
    devices->callbacks = *callbacks;
    devices->user = user;
    devices->pause_us = RETRY_FIRST_US;
    devices->answer_us = UINT64_MAX;
    return devices;
}

void xa_devices_free(struct xa_devices *devices)
{
    if (!devices)
        return;
    xa_store_free(devices->store);
    free(devices);
}

int xa_devices_fd(const struct xa_devices *devices, short *events)
{
    *events = POLLIN;
    if (!devices->store)
        return -1;
    if (xa_store_wants_write(devices->store))
        *events |= POLLOUT;
    return xa_store_fd(devices->store);
}

uint64_t xa_devices_deadline(const struct xa_devices *devices)
{
    return devices->store ? devices->answer_us : devices->retry_us;
}

void xa_devices_process(struct xa_devices *devices, uint64_t now_us)
{
    devices->now = now_us;
    if (devices->store) {
        int error = xa_store_process(devices->store);

        if (error < 0)
            devices->error = error;
        else if (now_us >= devices->answer_us)
            devices->error = -ETIMEDOUT;
    } else if (now_us >= devices->retry_us) {
        connect_store(devices);
    }
    if (devices->look && devices->answer_us == UINT64_MAX && devices->error == 0)
        look(devices);
    if (devices->error < 0)
        give_up_store(devices);
}
