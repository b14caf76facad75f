/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of the guest's cards (csrc/frontend/devices.h) over a store that is this test: what it
 * says of cards that come and go, and what it does when the store is absent, refuses, is stuck or
 * goes away. The time is the test's.
 */
#include "frontend/devices.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xen/io/xs_wire.h>

#include "hv/hv_ops.h"

#include "check.h"

#define SECOND UINT64_C(1000000)

/* The store's end. */
static struct {
    int connect_error; /* 0: connections are taken */
    int fd;            /* of the last one that was taken, or -1 */
    unsigned attempts;
} store = {.fd = -1};

static int take_connection(struct xa_hv *hv)
{
    int ends[2];

    (void) hv;
    store.attempts++;
    if (store.connect_error < 0)
        return store.connect_error;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    if (store.fd >= 0)
        close(store.fd);
    store.fd = ends[1];
    return ends[0];
}

static void send_message(uint32_t type, uint32_t id, const char *octets, size_t length)
{
    struct xsd_sockmsg header = {.type = type, .req_id = id, .len = (uint32_t) length};

    CHECK(send(store.fd, &header, sizeof(header), 0) == (ssize_t) sizeof(header));
    CHECK(send(store.fd, octets, length, 0) == (ssize_t) length);
}

/* The id of the next request, which is of this type and about the cards; 0: there is none. */
static uint32_t request(uint32_t type)
{
    struct xsd_sockmsg header = {0};
    char path[64] = "";

    if (recv(store.fd, &header, sizeof(header), MSG_DONTWAIT) != (ssize_t) sizeof(header))
        return 0;
    CHECK_EQ(header.type, type);
    CHECK(header.len < sizeof(path) && recv(store.fd, path, header.len, 0) == (ssize_t) header.len);
    CHECK(strcmp(path, "device/vsnd") == 0);
    return header.req_id;
}

static void refuse(uint32_t type, const char *error)
{
    send_message(XS_ERROR, request(type), error, strlen(error) + 1);
}

static void accept_watch(void)
{
    send_message(XS_WATCH, request(XS_WATCH), "OK", 3);
}

static void fire(const char *path)
{
    char event[64];
    int length = snprintf(event, sizeof(event), "%s%cxenaudio-devices", path, 0);

    send_message(XS_WATCH_EVENT, 0, event, (size_t) length + 1);
}

#define LIST(names) send_message(XS_DIRECTORY, request(XS_DIRECTORY), names, sizeof(names) - 1)

/* What the owner was told, one word each. */
struct fixture {
    struct xa_hv *hv;
    struct xa_devices *devices;
    uint64_t now;
    char told[256];
    char trouble[256];
};

static void on_list(void *user, const unsigned *devices, unsigned count)
{
    struct fixture *f = user;
    size_t used = strlen(f->told);

    used += (size_t) snprintf(f->told + used, sizeof(f->told) - used, "[");
    for (unsigned i = 0; i < count && used < sizeof(f->told); i++)
        used +=
            (size_t) snprintf(f->told + used, sizeof(f->told) - used, i ? " %u" : "%u", devices[i]);
    snprintf(f->told + used, sizeof(f->told) - used, "]");
}

static void on_store(void *user, const char *trouble)
{
    struct fixture *f = user;

    snprintf(f->trouble, sizeof(f->trouble), "%s", trouble);
}

static void process(struct fixture *f)
{
    xa_devices_process(f->devices, f->now);
}

static void begin(struct fixture *f)
{
    static const struct xa_hv_ops ops = {.connect_store = take_connection};
    static const struct xa_devices_callbacks callbacks = {.list = on_list, .store = on_store};

    memset(f, 0, sizeof(*f));
    store.connect_error = 0;
    store.attempts = 0;
    f->now = 5 * SECOND;
    f->hv = xa_hv_open_ops("test", &ops);
    f->devices = xa_devices_new(f->hv, &callbacks, f);
}

static void end(struct fixture *f)
{
    xa_devices_free(f->devices);
    xa_hv_close(f->hv);
    if (store.fd >= 0)
        close(store.fd);
    store.fd = -1;
}

/* Begins, with these cards. */
#define BEGIN_WITH(f, names)                                                                       \
    do {                                                                                           \
        begin(f);                                                                                  \
        process(f);                                                                                \
        accept_watch();                                                                            \
        LIST(names);                                                                               \
        process(f);                                                                                \
    } while (0)

static void a_guest_has_the_cards_that_are_numbers(void)
{
    struct fixture f;
    short events;

    BEGIN_WITH(&f, "10\0002\0x\00070000\0");
    CHECK(strcmp(f.told, "[2 10]") == 0);
    CHECK(f.trouble[0] == '\0');
    CHECK(xa_devices_fd(f.devices, &events) >= 0 && events == POLLIN);
    CHECK(xa_devices_deadline(f.devices) == UINT64_MAX);
    end(&f);
}

static void a_guest_without_the_folder_has_no_card(void)
{
    struct fixture f;

    begin(&f);
    process(&f);
    accept_watch();
    refuse(XS_DIRECTORY, "ENOENT");
    process(&f);
    CHECK(strcmp(f.told, "[]") == 0);
    CHECK(f.trouble[0] == '\0');
    end(&f);
}

static void a_card_that_comes_or_goes_is_told_once(void)
{
    struct fixture f;

    BEGIN_WITH(&f, "0\0");
    fire("device/vsnd/1");
    fire("device/vsnd/1/backend");
    process(&f);
    LIST("0\0001\0");
    process(&f);
    CHECK_EQ(request(XS_DIRECTORY), 0);
    fire("device/vsnd/0");
    process(&f);
    LIST("1\0");
    process(&f);
    fire("device/vsnd");
    process(&f);
    LIST("1\0");
    process(&f);
    CHECK(strcmp(f.told, "[0][0 1][1]") == 0);
    end(&f);
}

static void a_change_while_an_answer_is_owed_is_looked_at_after_it(void)
{
    struct fixture f;

    begin(&f);
    process(&f);
    accept_watch();
    fire("device/vsnd/0");
    process(&f);
    LIST("");
    CHECK_EQ(request(XS_DIRECTORY), 0);
    process(&f);
    LIST("0\0");
    process(&f);
    CHECK(strcmp(f.told, "[][0]") == 0);
    end(&f);
}

static void what_a_card_does_costs_no_request(void)
{
    struct fixture f;

    BEGIN_WITH(&f, "0\00012\0");
    fire("device/vsnd/0/state");
    fire("device/vsnd/12/0/0/ring-ref");
    process(&f);
    CHECK_EQ(request(XS_DIRECTORY), 0);
    /* Of a card that is not known, each node tells that it is there. */
    fire("device/vsnd/1/state");
    process(&f);
    LIST("0\0001\00012\0");
    process(&f);
    CHECK(strcmp(f.told, "[0 12][0 1 12]") == 0);
    end(&f);
}

static void an_absent_store_is_tried_again_less_and_less_often(void)
{
    static const unsigned pauses[] = {1, 2, 4, 8, 8};
    struct fixture f;
    short events;

    begin(&f);
    store.connect_error = -ECONNREFUSED;
    process(&f);
    CHECK(strcmp(f.trouble, "the store of test cannot be asked: Connection refused") == 0);
    for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
        CHECK_EQ(xa_devices_fd(f.devices, &events), -1);
        CHECK_EQ(xa_devices_deadline(f.devices), f.now + pauses[i] * SECOND);
        f.now = xa_devices_deadline(f.devices) - 1;
        process(&f);
        CHECK_EQ(store.attempts, i + 1);
        f.now++;
        process(&f);
        CHECK_EQ(store.attempts, i + 2);
    }
    store.connect_error = 0;
    f.now = xa_devices_deadline(f.devices);
    process(&f);
    accept_watch();
    LIST("0\0");
    process(&f);
    CHECK(strcmp(f.told, "[0]") == 0);
    CHECK(f.trouble[0] == '\0');
    end(&f);
}

static void cards_stay_while_the_store_is_restarted(void)
{
    struct fixture f;

    BEGIN_WITH(&f, "0\0001\0");
    shutdown(store.fd, SHUT_RDWR);
    process(&f);
    CHECK(f.trouble[0] != '\0');
    CHECK_EQ(xa_devices_deadline(f.devices), f.now + SECOND);
    f.now += SECOND;
    process(&f);
    accept_watch();
    LIST("1\0");
    process(&f);
    CHECK(strcmp(f.told, "[0 1][1]") == 0);
    CHECK(f.trouble[0] == '\0');
    end(&f);
}

static void a_store_that_is_stuck_is_connected_to_anew(void)
{
    struct fixture f;

    BEGIN_WITH(&f, "0\0");
    fire("device/vsnd/1");
    process(&f);
    CHECK_EQ(xa_devices_deadline(f.devices), f.now + 10 * SECOND);
    f.now += 10 * SECOND;
    process(&f);
    CHECK(strstr(f.trouble, "timed out") != NULL);
    f.now += SECOND;
    process(&f);
    CHECK_EQ(store.attempts, 2);
    accept_watch();
    LIST("0\0001\0");
    process(&f);
    CHECK(strcmp(f.told, "[0][0 1]") == 0);
    end(&f);
}

static void a_store_that_refuses_is_asked_again_later(void)
{
    struct fixture f;

    begin(&f);
    process(&f);
    refuse(XS_WATCH, "EACCES");
    process(&f);
    CHECK(strstr(f.trouble, "Permission denied") != NULL);
    f.now += SECOND;
    process(&f);
    accept_watch();
    refuse(XS_DIRECTORY, "EACCES");
    process(&f);
    CHECK(strstr(f.trouble, "Permission denied") != NULL);
    CHECK_EQ(xa_devices_deadline(f.devices), f.now + 2 * SECOND);
    CHECK(f.told[0] == '\0');
    end(&f);
}

static void of_too_many_cards_64_are_followed(void)
{
    struct fixture f;
    char names[400];
    size_t length = 0;

    begin(&f);
    process(&f);
    accept_watch();
    for (unsigned i = 0; i < 70; i++)
        length += (size_t) snprintf(names + length, sizeof(names) - length, "%u", i) + 1;
    send_message(XS_DIRECTORY, request(XS_DIRECTORY), names, length);
    process(&f);
    CHECK(strstr(f.told, " 62 63]") != NULL);
    end(&f);
}

int main(void)
{
    a_guest_has_the_cards_that_are_numbers();
    a_guest_without_the_folder_has_no_card();
    a_card_that_comes_or_goes_is_told_once();
    a_change_while_an_answer_is_owed_is_looked_at_after_it();
    what_a_card_does_costs_no_request();
    an_absent_store_is_tried_again_less_and_less_often();
    cards_stay_while_the_store_is_restarted();
    a_store_that_is_stuck_is_connected_to_anew();
    a_store_that_refuses_is_asked_again_later();
    of_too_many_cards_64_are_followed();
    return check_result();
}
