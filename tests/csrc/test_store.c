/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The XenStore client (csrc/hv/store.h) against a server that is this test: what it sends, octet by
 * octet, and what it makes of every answer, true or false.
 */
#include "hv/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "hv/xs_error.h"

#include "check.h"

#define SEEN_MAX 4096

/* What a client's callbacks saw, one line each. */
struct seen {
    char text[SEEN_MAX];
    size_t octets;
};

struct fixture {
    int server;
    struct xa_store *store;
    struct seen seen;
};

/* One request with a name, so that replies can be told apart. */
struct asked {
    struct fixture *fixture;
    const char *name;
};

static void note(struct seen *seen, const char *text, size_t length)
{
    for (size_t i = 0; i < length && seen->octets < SEEN_MAX - 1; i++)
        seen->text[seen->octets++] = text[i] == '\0' ? '|' : text[i];
    seen->text[seen->octets] = '\0';
}

static void note_string(struct seen *seen, const char *text)
{
    note(seen, text, strlen(text));
}

static void on_reply(void *user, int error, const char *data, size_t length)
{
    struct asked *asked = user;
    struct seen *seen = &asked->fixture->seen;

    note_string(seen, asked->name);
    if (error != 0) {
        CHECK(length == 0);
        note_string(seen, "!");
        note_string(seen, strerrorname_np(-error));
    } else {
        CHECK(data[length] == '\0');
        note_string(seen, "=");
        note(seen, data, length);
    }
    note_string(seen, "\n");
}

static void on_watch(void *user, const char *path, const char *token)
{
    struct fixture *fixture = user;

    note_string(&fixture->seen, "watch ");
    note_string(&fixture->seen, path);
    note_string(&fixture->seen, " ");
    note_string(&fixture->seen, token);
    note_string(&fixture->seen, "\n");
}

static bool saw(struct fixture *fixture, const char *text)
{
    bool same = strcmp(fixture->seen.text, text) == 0;

    if (!same)
        fprintf(stderr, "seen:\n%sexpected:\n%s", fixture->seen.text, text);
    fixture->seen.octets = 0;
    fixture->seen.text[0] = '\0';
    return same;
}

static void set_up_type(struct fixture *fixture, int type)
{
    int fds[2];

    memset(fixture, 0, sizeof(*fixture));
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0)
        abort();
    fixture->server = fds[1];
    fixture->store = xa_store_new(fds[0], on_watch, fixture);
    if (fixture->store == NULL)
        abort();
}

static void set_up(struct fixture *fixture)
{
    set_up_type(fixture, SOCK_STREAM);
}

static void hang_up(struct fixture *fixture)
{
    close(fixture->server);
    fixture->server = -1;
}

static void tear_down(struct fixture *fixture)
{
    xa_store_free(fixture->store);
    if (fixture->server >= 0)
        close(fixture->server);
}

static void send_octets(struct fixture *fixture, const void *octets, size_t count)
{
    CHECK(send(fixture->server, octets, count, MSG_NOSIGNAL) == (ssize_t) count);
}

static size_t put_message(uint8_t *to, uint32_t type, uint32_t id, const char *payload,
                          size_t length)
{
    struct xsd_sockmsg header = {.type = type, .req_id = id, .len = (uint32_t) length};

    memcpy(to, &header, sizeof(header));
    memcpy(to + sizeof(header), payload, length);
    return sizeof(header) + length;
}

static void answer(struct fixture *fixture, uint32_t type, uint32_t id, const char *payload,
                   size_t length)
{
    uint8_t message[sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX];

    send_octets(fixture, message, put_message(message, type, id, payload, length));
}

/* A string literal with its last 0 left out, as the wire's strings are written here. */
#define OCTETS(literal) literal, sizeof(literal) - 1

static size_t receive(int fd, void *octets, size_t count)
{
    size_t done = 0;

    while (done < count) {
        ssize_t got = recv(fd, (uint8_t *) octets + done, count - done, MSG_DONTWAIT);

        if (got <= 0)
            break;
        done += (size_t) got;
    }
    return done;
}

/* The next request's header; its payload goes to `payload`. Type XS_INVALID when there is none. */
static struct xsd_sockmsg next_request(struct fixture *fixture, char *payload)
{
    struct xsd_sockmsg header;

    if (receive(fixture->server, &header, sizeof(header)) != sizeof(header))
        return (struct xsd_sockmsg){.type = XS_INVALID};
    if (header.len > XENSTORE_PAYLOAD_MAX ||
        receive(fixture->server, payload, header.len) != header.len)
        return (struct xsd_sockmsg){.type = XS_INVALID};
    return header;
}

static uint32_t next_id(struct fixture *fixture)
{
    char payload[XENSTORE_PAYLOAD_MAX];

    return next_request(fixture, payload).req_id;
}

static bool asks(struct fixture *fixture, uint32_t type, uint32_t tx, const char *payload,
                 size_t length)
{
    char got[XENSTORE_PAYLOAD_MAX];
    struct xsd_sockmsg header = next_request(fixture, got);

    return header.type == type && header.tx_id == tx && header.req_id != 0 &&
           header.len == length && memcmp(got, payload, length) == 0;
}

static void requests_are_xs_wire(void)
{
    const char *const perms[] = {"n1", "r0"};
    struct fixture f;
    struct xa_store *s;

    set_up(&f);
    s = f.store;
    CHECK(xa_store_read(s, 7, "device/vsnd", NULL, NULL) == 0);
    CHECK(asks(&f, XS_READ, 7, OCTETS("device/vsnd\0")));
    CHECK(xa_store_directory(s, 0, "/local", NULL, NULL) == 0);
    CHECK(asks(&f, XS_DIRECTORY, 0, OCTETS("/local\0")));
    CHECK(xa_store_write(s, 1, "a/b", "value", NULL, NULL) == 0);
    CHECK(asks(&f, XS_WRITE, 1, OCTETS("a/b\0value")));
    CHECK(xa_store_write(s, 0, "a/b", "", NULL, NULL) == 0);
    CHECK(asks(&f, XS_WRITE, 0, OCTETS("a/b\0")));
    CHECK(xa_store_mkdir(s, 2, "a/c", NULL, NULL) == 0);
    CHECK(asks(&f, XS_MKDIR, 2, OCTETS("a/c\0")));
    CHECK(xa_store_rm(s, 3, "a/c", NULL, NULL) == 0);
    CHECK(asks(&f, XS_RM, 3, OCTETS("a/c\0")));
    CHECK(xa_store_get_perms(s, 4, "a", NULL, NULL) == 0);
    CHECK(asks(&f, XS_GET_PERMS, 4, OCTETS("a\0")));
    CHECK(xa_store_set_perms(s, 5, "a", perms, 2, NULL, NULL) == 0);
    CHECK(asks(&f, XS_SET_PERMS, 5, OCTETS("a\0n1\0r0\0")));
    CHECK(xa_store_get_domain_path(s, 12, NULL, NULL) == 0);
    CHECK(asks(&f, XS_GET_DOMAIN_PATH, 0, OCTETS("12\0")));
    CHECK(xa_store_watch(s, "@releaseDomain", "t1", NULL, NULL) == 0);
    CHECK(asks(&f, XS_WATCH, 0, OCTETS("@releaseDomain\0t1\0")));
    CHECK(xa_store_unwatch(s, "a", "t2", NULL, NULL) == 0);
    CHECK(asks(&f, XS_UNWATCH, 0, OCTETS("a\0t2\0")));
    CHECK(xa_store_transaction_start(s, NULL, NULL) == 0);
    CHECK(asks(&f, XS_TRANSACTION_START, 0, OCTETS("\0")));
    CHECK(xa_store_transaction_end(s, 9, true, NULL, NULL) == 0);
    CHECK(asks(&f, XS_TRANSACTION_END, 9, OCTETS("T\0")));
    CHECK(xa_store_transaction_end(s, 9, false, NULL, NULL) == 0);
    CHECK(asks(&f, XS_TRANSACTION_END, 9, OCTETS("F\0")));
    CHECK(!xa_store_wants_write(s));
    tear_down(&f);
}

/*
 * A store on what is no socket, as /dev/xen/xenbus is none. It refuses every write (EINVAL, a timer
 * that is not set has nothing to read either) until `accepts` makes it one end of a connection.
 */
static void set_up_device(struct fixture *fixture)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

    memset(fixture, 0, sizeof(*fixture));
    if (timer < 0)
        abort();
    fixture->server = -1;
    fixture->store = xa_store_new(timer, on_watch, fixture);
    if (fixture->store == NULL)
        abort();
}

static void accepts(struct fixture *fixture)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ||
        dup2(fds[0], xa_store_fd(fixture->store)) < 0)
        abort();
    close(fds[0]);
    fixture->server = fds[1];
}

static void refuses(struct fixture *fixture)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (timer < 0 || dup2(timer, xa_store_fd(fixture->store)) < 0)
        abort();
    close(timer);
}

/* /dev/xen/xenbus drops what follows a message in the same write; a packet here is one write. */
static void a_write_is_one_message(void)
{
    struct fixture f;
    uint8_t packet[2 * XENSTORE_PAYLOAD_MAX];

    set_up_type(&f, SOCK_SEQPACKET);
    for (int i = 0; i < 20; i++)
        CHECK(xa_store_read(f.store, 0, "a", NULL, NULL) == 0);
    for (int i = 0; i < 20; i++)
        CHECK(recv(f.server, packet, sizeof(packet), MSG_DONTWAIT) ==
              (ssize_t) sizeof(struct xsd_sockmsg) + 2);
    tear_down(&f);
}

/* /dev/xen/xenbus still sends a message from the buffer that it would take the next one into. */
static void a_device_gets_a_request_when_the_last_one_is_answered(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, b = {&f, "b"}, c = {&f, "c"};
    uint32_t id;

    set_up_device(&f);
    accepts(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    CHECK(xa_store_read(f.store, 0, "b", on_reply, &b) == 0);
    CHECK(xa_store_read(f.store, 0, "c", on_reply, &c) == 0);
    CHECK(!xa_store_wants_write(f.store));
    id = next_id(&f);
    CHECK(next_id(&f) == 0);
    answer(&f, XS_WATCH_EVENT, 0, OCTETS("p\0t\0"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(next_id(&f) == 0);
    answer(&f, XS_READ, id, OCTETS("A"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "watch p t\na=A\n"));
    id = next_id(&f);
    CHECK(next_id(&f) == 0);
    answer(&f, XS_READ, id, OCTETS("B"));
    CHECK(xa_store_process(f.store) == 0);
    id = next_id(&f);
    answer(&f, XS_READ, id, OCTETS("C"));
    CHECK(xa_store_process_wait(f.store, 1000) == 0);
    CHECK(saw(&f, "b=B\nc=C\n"));
    CHECK(next_id(&f) == 0);
    tear_down(&f);
}

/* /dev/xen/xenbus returns what xenstored says against a watch from the write. */
static void a_device_that_refuses_a_request_takes_the_next(void)
{
    struct fixture f;
    struct asked a = {&f, "a"};

    set_up_device(&f);
    CHECK(xa_store_watch(f.store, "w", "t", on_reply, &a) == -EINVAL);
    CHECK(xa_store_process(f.store) == 0);
    CHECK(xa_store_process_wait(f.store, 1) == -ETIMEDOUT);
    CHECK(saw(&f, ""));
    accepts(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    answer(&f, XS_READ, next_id(&f), OCTETS("A"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "a=A\n"));
    tear_down(&f);
}

static void then_refuses(void *user, int error, const char *data, size_t length)
{
    struct asked *asked = user;

    on_reply(user, error, data, length);
    refuses(asked->fixture);
}

static void then_asks(void *user, int error, const char *data, size_t length)
{
    struct asked *asked = user;

    on_reply(user, error, data, length);
    asked->name = "asked from a reply";
    CHECK(xa_store_watch(asked->fixture->store, "v", "t", on_reply, asked) == 0);
}

/* What it says against one that had to wait is the reply. */
static void a_device_refuses_a_request_that_waited(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, w = {&f, "w"}, r = {&f, "r"};

    set_up_device(&f);
    accepts(&f);
    CHECK(xa_store_read(f.store, 0, "a", then_refuses, &a) == 0);
    CHECK(xa_store_watch(f.store, "w", "t", then_asks, &w) == 0);
    CHECK(xa_store_unwatch(f.store, "w", "t", NULL, NULL) == 0);
    CHECK(xa_store_read(f.store, 0, "r", on_reply, &r) == 0);
    answer(&f, XS_READ, next_id(&f), OCTETS("A"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "a=A\nw!EINVAL\nr!EINVAL\nasked from a reply!EINVAL\n"));
    close(f.server);
    accepts(&f);
    CHECK(xa_store_read(f.store, 0, "r", on_reply, &r) == 0);
    answer(&f, XS_READ, next_id(&f), OCTETS("R"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "r=R\n"));
    tear_down(&f);
}

static void arguments_are_checked(void)
{
    const char *const perms[] = {"n1", ""};
    struct fixture f;
    char path[XENSTORE_ABS_PATH_MAX + 2], value[XENSTORE_PAYLOAD_MAX];
    size_t room = XENSTORE_PAYLOAD_MAX - sizeof(struct xsd_sockmsg) - sizeof("a");

    set_up(&f);
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    path[0] = '/';
    CHECK(xa_store_read(f.store, 0, path, NULL, NULL) == -EINVAL);
    path[XENSTORE_ABS_PATH_MAX] = '\0';
    CHECK(xa_store_read(f.store, 0, path, NULL, NULL) == 0);
    path[0] = 'a';
    CHECK(xa_store_read(f.store, 0, path, NULL, NULL) == -EINVAL);
    path[XENSTORE_REL_PATH_MAX] = '\0';
    CHECK(xa_store_read(f.store, 0, path, NULL, NULL) == 0);
    CHECK(xa_store_read(f.store, 0, "", NULL, NULL) == -EINVAL);
    CHECK(xa_store_read(f.store, 0, NULL, NULL, NULL) == -EINVAL);
    memset(value, 'v', sizeof(value));
    value[room + 1] = '\0';
    CHECK(xa_store_write(f.store, 0, "a", value, NULL, NULL) == -EINVAL);
    value[room] = '\0';
    CHECK(xa_store_write(f.store, 0, "a", value, NULL, NULL) == 0);
    CHECK(xa_store_write(f.store, 0, "a", NULL, NULL, NULL) == -EINVAL);
    CHECK(xa_store_set_perms(f.store, 0, "a", perms, 0, NULL, NULL) == -EINVAL);
    CHECK(xa_store_set_perms(f.store, 0, "a", perms, 2, NULL, NULL) == -EINVAL);
    CHECK(xa_store_watch(f.store, "a", NULL, NULL, NULL) == -EINVAL);
    tear_down(&f);

    errno = 0;
    CHECK(xa_store_new(-1, NULL, NULL) == NULL && errno == EBADF);
    xa_store_free(NULL);
}

static void replies_may_be_split_anywhere(void)
{
    uint8_t stream[512];
    size_t octets = 0;

    octets += put_message(stream + octets, XS_READ, 1, OCTETS("value"));
    octets += put_message(stream + octets, XS_WATCH_EVENT, 99, OCTETS("a/b\0tok\0"));
    octets += put_message(stream + octets, XS_DIRECTORY, 2, OCTETS("x\0y\0"));
    octets += put_message(stream + octets, XS_READ, 3, OCTETS(""));
    octets += put_message(stream + octets, XS_DIRECTORY, 4, OCTETS(""));
    octets += put_message(stream + octets, XS_TRANSACTION_START, 5, OCTETS("17\0"));
    octets += put_message(stream + octets, XS_ERROR, 6, OCTETS("ENOENT\0"));

    for (size_t split = 0; split <= octets; split++) {
        struct fixture f;
        struct asked a[6];

        set_up(&f);
        for (int i = 0; i < 6; i++)
            a[i] = (struct asked){&f, (const char *const[]){"1", "2", "3", "4", "5", "6"}[i]};
        CHECK(xa_store_read(f.store, 0, "p", on_reply, &a[0]) == 0);
        CHECK(xa_store_directory(f.store, 0, "p", on_reply, &a[1]) == 0);
        CHECK(xa_store_read(f.store, 0, "p", on_reply, &a[2]) == 0);
        CHECK(xa_store_directory(f.store, 0, "p", on_reply, &a[3]) == 0);
        CHECK(xa_store_transaction_start(f.store, on_reply, &a[4]) == 0);
        CHECK(xa_store_rm(f.store, 0, "p", on_reply, &a[5]) == 0);
        if (split > 0)
            send_octets(&f, stream, split);
        CHECK(xa_store_process(f.store) == 0);
        if (split < octets)
            send_octets(&f, stream + split, octets - split);
        CHECK(xa_store_process(f.store) == 0);
        CHECK(saw(&f, "1=value\nwatch a/b tok\n2=x|y|\n3=\n4=\n5=17\n6!ENOENT\n"));
        tear_down(&f);
    }
}

static void replies_come_in_any_order(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, b = {&f, "b"}, c = {&f, "c"};
    uint32_t ids[3];

    set_up(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    CHECK(xa_store_write(f.store, 0, "b", "1", on_reply, &b) == 0);
    CHECK(xa_store_read(f.store, 0, "c", on_reply, &c) == 0);
    for (int i = 0; i < 3; i++)
        ids[i] = next_id(&f);
    CHECK(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    answer(&f, XS_READ, ids[2], OCTETS("C"));
    answer(&f, XS_READ, ids[0], OCTETS("with\0zero"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "c=C\na=with|zero\n"));
    /* The last in the list went first; a new one must still find its place. */
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    answer(&f, XS_READ, next_id(&f), OCTETS("A"));
    answer(&f, XS_WRITE, ids[1], OCTETS("OK\0"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "a=A\nb=OK\n"));
    tear_down(&f);
}

static void errors_become_errno_values(void)
{
    static const struct {
        const char *name;
        const char *seen;
    } errors[] = {
        {"EINVAL", "a!EINVAL\n"}, {"EACCES", "a!EACCES\n"}, {"EEXIST", "a!EEXIST\n"},
        {"ENOENT", "a!ENOENT\n"}, {"EAGAIN", "a!EAGAIN\n"}, {"EBUSY", "a!EBUSY\n"},
        {"E2BIG", "a!E2BIG\n"},   {"EPERM", "a!EPERM\n"},   {"ENOSPC", "a!ENOSPC\n"},
        {"EODD", "a!EIO\n"},      {"", "a!EIO\n"},
    };
    struct fixture f;
    struct asked a = {&f, "a"};

    set_up(&f);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        CHECK(xa_store_mkdir(f.store, 0, "a", on_reply, &a) == 0);
        answer(&f, XS_ERROR, next_id(&f), errors[i].name, strlen(errors[i].name) + 1);
        CHECK(xa_store_process(f.store) == 0);
        CHECK(saw(&f, errors[i].seen));
    }
    tear_down(&f);
}

/* Every case: one READ and one DIRECTORY wait, the server sends this, the connection is over. */
static void what_is_not_xs_wire_ends_the_connection(void)
{
    static const struct {
        const char *what;
        uint32_t type, id; /* READ is asked as 1, DIRECTORY as 2, WRITE as 3 */
        const char *payload;
        size_t length;
        uint32_t claimed; /* length in the header, when it differs */
    } cases[] = {
        {"a reply to nothing", XS_READ, 4, OCTETS("x"), 0},
        {"a reply with id 0", XS_READ, 0, OCTETS("x"), 0},
        {"an error of nothing", XS_ERROR, 77, OCTETS("EINVAL\0"), 0},
        {"a reply of another type", XS_DIRECTORY, 1, OCTETS("x\0"), 0},
        {"a type that does not exist", 0xdeadbeef, 1, OCTETS("x\0"), 0},
        {"a length just over the limit", XS_READ, 1, OCTETS("x"), XENSTORE_PAYLOAD_MAX + 1},
        {"a huge length", XS_READ, 1, OCTETS("x"), UINT32_MAX},
        {"an error without its end", XS_ERROR, 1, OCTETS("EINVAL"), 0},
        {"an empty error", XS_ERROR, 1, OCTETS(""), 0},
        {"two errors in one", XS_ERROR, 1, OCTETS("EINVAL\0EINVAL\0"), 0},
        {"a directory without its end", XS_DIRECTORY, 2, OCTETS("x\0y"), 0},
        {"an acknowledgement without its end", XS_WRITE, 3, OCTETS("OK"), 0},
        {"an empty acknowledgement", XS_WRITE, 3, OCTETS(""), 0},
        {"a watch without a token", XS_WATCH_EVENT, 0, OCTETS("path\0"), 0},
        {"a watch without an end", XS_WATCH_EVENT, 0, OCTETS("path\0token"), 0},
        {"a watch without a 0", XS_WATCH_EVENT, 0, OCTETS("path"), 0},
        {"an empty watch", XS_WATCH_EVENT, 0, OCTETS(""), 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        struct asked a = {&f, "a"}, b = {&f, "b"};
        uint8_t message[64];
        size_t octets =
            put_message(message, cases[i].type, cases[i].id, cases[i].payload, cases[i].length);
        bool good;

        if (cases[i].claimed != 0)
            memcpy(message + offsetof(struct xsd_sockmsg, len), &cases[i].claimed,
                   sizeof(cases[i].claimed));
        set_up(&f);
        CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
        CHECK(xa_store_directory(f.store, 0, "b", on_reply, &b) == 0);
        CHECK(xa_store_write(f.store, 0, "c", "1", NULL, NULL) == 0);
        send_octets(&f, message, octets);
        good = xa_store_process(f.store) == -EPROTO && saw(&f, "a!EPIPE\nb!EPIPE\n") &&
               xa_store_read(f.store, 0, "a", on_reply, &a) == -EPIPE &&
               xa_store_process(f.store) == -EPIPE &&
               xa_store_process_wait(f.store, -1) == -EPIPE && !xa_store_wants_write(f.store) &&
               saw(&f, "");
        if (!good)
            fprintf(stderr, "case: %s\n", cases[i].what);
        CHECK(good);
        tear_down(&f);
    }
}

static void a_reply_before_its_request_is_refused(void)
{
    struct fixture f;
    char value[4001];
    int size = 1, count = 0;

    set_up(&f);
    CHECK(setsockopt(xa_store_fd(f.store), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    while (!xa_store_wants_write(f.store) && count < 1000) {
        CHECK(xa_store_write(f.store, 0, "a", value, NULL, NULL) == 0);
        count++;
    }
    CHECK(xa_store_wants_write(f.store));
    answer(&f, XS_WRITE, (uint32_t) count, OCTETS("OK\0"));
    CHECK(xa_store_process(f.store) == -EPROTO);
    tear_down(&f);
}

static void the_end_answers_every_request(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, b = {&f, "b"};

    set_up(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    CHECK(xa_store_write(f.store, 0, "b", "1", on_reply, &b) == 0);
    CHECK(xa_store_read(f.store, 0, "c", NULL, NULL) == 0);
    answer(&f, XS_WRITE, 2, OCTETS("OK\0"));
    send_octets(&f, "half a header", 10);
    hang_up(&f);
    CHECK(xa_store_process(f.store) == -EPIPE);
    CHECK(saw(&f, "b=OK\na!EPIPE\n"));
    CHECK(xa_store_process(f.store) == -EPIPE);
    CHECK(saw(&f, ""));
    tear_down(&f);
}

static void what_the_server_said_before_it_went_is_heard(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, b = {&f, "b"};
    uint32_t id;

    set_up(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    id = next_id(&f);
    answer(&f, XS_READ, id, OCTETS("last words"));
    hang_up(&f);
    /* The write fails (and raises no SIGPIPE), and takes nothing else with it. */
    CHECK(xa_store_read(f.store, 0, "b", on_reply, &b) == -EPIPE);
    CHECK(!xa_store_wants_write(f.store));
    CHECK(saw(&f, ""));
    CHECK(xa_store_process_wait(f.store, 1000) == -EPIPE);
    CHECK(saw(&f, "a=last words\n"));
    tear_down(&f);
}

static void a_failed_write_is_told_also_when_nothing_arrives(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, b = {&f, "b"};

    set_up(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    CHECK(shutdown(f.server, SHUT_RD) == 0);
    CHECK(xa_store_read(f.store, 0, "b", on_reply, &b) == -EPIPE);
    CHECK(xa_store_read(f.store, 0, "b", on_reply, &b) == -EPIPE);
    CHECK(xa_store_process_wait(f.store, -1) == -EPIPE);
    CHECK(saw(&f, "a!EPIPE\n"));
    tear_down(&f);
}

static void requests_given_up_are_not_answered(void)
{
    struct fixture f;
    struct asked a = {&f, "a"};

    set_up(&f);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    xa_store_free(f.store);
    CHECK(saw(&f, ""));
    close(f.server);
}

struct chain {
    struct fixture *fixture;
    int left;
    int refused;
};

static void ask_again(void *user, int error, const char *data, size_t length)
{
    struct chain *chain = user;
    int result;

    (void) data;
    (void) length;
    CHECK(xa_store_process(chain->fixture->store) == -EBUSY);
    CHECK(xa_store_process_wait(chain->fixture->store, -1) == -EBUSY);
    if (chain->left-- <= 0)
        return;
    result = xa_store_read(chain->fixture->store, 0, "again", ask_again, chain);
    if (error == 0)
        CHECK(result == 0);
    else if (result == -EPIPE)
        chain->refused++;
}

static void callbacks_may_ask_again(void)
{
    struct fixture f;
    struct chain chain = {&f, 3, 0};

    set_up(&f);
    CHECK(xa_store_read(f.store, 0, "first", ask_again, &chain) == 0);
    /* All in one go: each reply is there before the request that its predecessor's callback makes.
     */
    for (uint32_t id = 1; id <= 4; id++)
        answer(&f, XS_READ, id, OCTETS("x"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(chain.left == -1);
    for (uint32_t id = 1; id <= 4; id++)
        CHECK(next_id(&f) == id);

    /* At the end too: refused, not lost in a loop. */
    chain = (struct chain){&f, 2, 0};
    CHECK(xa_store_read(f.store, 0, "first", ask_again, &chain) == 0);
    CHECK(xa_store_read(f.store, 0, "second", ask_again, &chain) == 0);
    hang_up(&f);
    CHECK(xa_store_process(f.store) == -EPIPE);
    CHECK(chain.refused == 2 && chain.left == 0);
    tear_down(&f);
}

static void watches_come_between_replies(void)
{
    struct fixture f;
    struct asked a = {&f, "a"}, b = {&f, "b"};

    set_up(&f);
    CHECK(xa_store_watch(f.store, "a", "t", on_reply, &a) == 0);
    CHECK(xa_store_read(f.store, 0, "b", on_reply, &b) == 0);
    answer(&f, XS_WATCH_EVENT, 0, OCTETS("a\0t\0"));
    answer(&f, XS_WATCH, 1, OCTETS("OK\0"));
    answer(&f, XS_WATCH_EVENT, 2, OCTETS("a/x\0\0"));
    answer(&f, XS_READ, 2, OCTETS("B"));
    answer(&f, XS_WATCH_EVENT, 0, OCTETS("@releaseDomain\0t/2\0"));
    CHECK(xa_store_process(f.store) == 0);
    CHECK(saw(&f, "watch a t\na=OK\nwatch a/x \nb=B\nwatch @releaseDomain t/2\n"));
    tear_down(&f);
}

static void count_watch(void *user, const char *path, const char *token)
{
    (void) path;
    (void) token;
    ++*(int *) user;
}

static void a_flood_of_watches_does_not_keep_the_caller(void)
{
    static const char event[3000] = "path";
    int fds[2], sent = 0, seen = 0, calls = 0;
    uint8_t message[sizeof(struct xsd_sockmsg) + sizeof(event)];
    size_t octets = put_message(message, XS_WATCH_EVENT, 0, event, sizeof(event));
    struct xa_store *store;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        abort();
    store = xa_store_new(fds[0], count_watch, &seen);
    while (send(fds[1], message, octets, MSG_DONTWAIT) == (ssize_t) octets)
        sent++;
    CHECK(sent > 30);
    CHECK(xa_store_process(store) == 0);
    CHECK(seen > 0 && seen < sent);
    while (seen < sent && calls++ < sent)
        CHECK(xa_store_process(store) == 0);
    CHECK(seen == sent);
    xa_store_free(store);
    close(fds[1]);
}

static void more_is_queued_than_the_socket_takes(void)
{
    enum { COUNT = 500 };
    struct fixture f;
    struct xsd_sockmsg header;
    char value[3001], path[16], payload[XENSTORE_PAYLOAD_MAX];
    size_t have = 0;
    uint8_t *stream = malloc(COUNT * (sizeof(header) + sizeof(path) + sizeof(value)));
    /* The least there is, less than two messages: so that some are written in part. */
    int size = 1, rounds = 0;

    set_up(&f);
    CHECK(setsockopt(xa_store_fd(f.store), SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (int i = 0; i < COUNT; i++) {
        snprintf(path, sizeof(path), "n%d", i);
        CHECK(xa_store_write(f.store, 0, path, value, NULL, NULL) == 0);
    }
    CHECK(xa_store_wants_write(f.store));
    while (rounds++ < 100000) {
        size_t got = receive(f.server, stream + have, 997);

        have += got;
        if (got == 0 && !xa_store_wants_write(f.store))
            break;
        /* Also while there is room for a part of a message only, when poll would not say so. */
        CHECK(xa_store_process(f.store) == 0);
    }
    for (int i = 0; i < COUNT; i++) {
        int length = snprintf(path, sizeof(path), "n%d", i) + 1;

        if (have < sizeof(header))
            break;
        memcpy(&header, stream, sizeof(header));
        CHECK(header.type == XS_WRITE && header.len == (size_t) length + 3000);
        memcpy(payload, stream + sizeof(header), header.len);
        CHECK(strcmp(payload, path) == 0 && memcmp(payload + length, value, 3000) == 0);
        have -= sizeof(header) + header.len;
        memmove(stream, stream + sizeof(header) + header.len, have);
        CHECK(i < COUNT - 1 || have == 0);
    }
    CHECK(have == 0);
    free(stream);
    tear_down(&f);
}

static void waiting_has_an_end(void)
{
    struct fixture f;
    struct asked a = {&f, "a"};

    set_up(&f);
    CHECK(xa_store_process_wait(f.store, 0) == -ETIMEDOUT);
    CHECK(xa_store_process_wait(f.store, 5) == -ETIMEDOUT);
    CHECK(xa_store_read(f.store, 0, "a", on_reply, &a) == 0);
    answer(&f, XS_READ, 1, OCTETS("A"));
    CHECK(xa_store_process_wait(f.store, -1) == 0);
    CHECK(saw(&f, "a=A\n"));
    hang_up(&f);
    CHECK(xa_store_process_wait(f.store, -1) == -EPIPE);
    tear_down(&f);
}

int main(void)
{
    requests_are_xs_wire();
    a_write_is_one_message();
    a_device_gets_a_request_when_the_last_one_is_answered();
    a_device_that_refuses_a_request_takes_the_next();
    a_device_refuses_a_request_that_waited();
    arguments_are_checked();
    replies_may_be_split_anywhere();
    replies_come_in_any_order();
    errors_become_errno_values();
    what_is_not_xs_wire_ends_the_connection();
    a_reply_before_its_request_is_refused();
    the_end_answers_every_request();
    what_the_server_said_before_it_went_is_heard();
    a_failed_write_is_told_also_when_nothing_arrives();
    requests_given_up_are_not_answered();
    callbacks_may_ask_again();
    watches_come_between_replies();
    a_flood_of_watches_does_not_keep_the_caller();
    more_is_queued_than_the_socket_takes();
    waiting_has_an_end();
    return check_result();
}
