/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread of a card; see card-thread.h.
 *
 * Nothing of it waits for the store or the backend while clients have samples to move: it connects
 * elsewhere (store-connector.h). And PulseAudio's main thread waits for it only as long as it takes
 * to answer a message. When the card is given back, the thread leaves the queues and the rtpoll,
 * and closes the frontend at the backend's pace; where that takes long it does so on its own. Who
 * takes the same card again has it stop: a card has one frontend, and a new one closes what it
 * finds.
 */
#include "config.h"

#include "card-thread.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <pulse/rtclock.h>
#include <pulse/util.h>
#include <pulse/xmalloc.h>
#include <pulsecore/core-error.h>
#include <pulsecore/core-util.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>
#include <pulsecore/msgobject.h>
#include <pulsecore/shared.h>
#include <pulsecore/thread-mq.h>
#include <pulsecore/thread.h>

#include "hv/hv.h"
#include "plain-thread.h"
#include "store-connector.h"

/* What the card's thread waits for a card to be closed. */
#define CLOSE_LIMIT_US UINT64_C(5000000)
#define DESCRIBE_LIMIT_US UINT64_C(200000)
#define DESCRIBE_STEP_MS 2

/* What is left of the card's thread. */
enum stage {
    STAGE_RUNNING,
    STAGE_CLOSING, /* it uses neither queues nor rtpoll any more */
    STAGE_ENDED,
};

struct xa_pulse_card {
    pa_msgobject parent; /* referred to by its users together, and by its thread */
    unsigned users;
    char *key;
    pa_core *core;

    unsigned device;
    pa_thread_mq queues;
    bool has_queues;
    pa_rtpoll *rtpoll;

    enum stage stage;                      /* under ending_lock */
    PA_LLIST_FIELDS(struct xa_pulse_card); /* of `left`, likewise */
    bool is_left;                          /* likewise */
    int stop;                              /* eventfd: the thread is to close it no longer */

    /* The thread's alone, while it runs. */
    struct xa_store_connector *connector;
    pa_rtpoll_item *connector_item;
    struct xa_card *frontend;
    pa_rtpoll_item *item;
    unsigned item_serial;
    unsigned item_fds;
    PA_LLIST_HEAD(struct xa_pulse_client, clients);
};

static pthread_mutex_t ending_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ending_goes_on = PTHREAD_COND_INITIALIZER;
/* Cards that are being closed while nobody waits for it. */
static PA_LLIST_HEAD(struct xa_pulse_card, left);

static const char type_id[] = "xa_pulse_card";

static bool check_type(const char *type)
{
    return type == type_id || pa_msgobject_check_type(type);
}

enum { MESSAGE_ADD, MESSAGE_REMOVE, MESSAGE_DESCRIBE };

struct describe {
    const struct xa_pulse_address *address;
    struct xa_pulse_description *description;
};

/* ---- On the card's thread ---- */

static void on_card(void *user, enum xa_card_state state, int reason, const char *text)
{
    struct xa_pulse_card *card = user;
    struct xa_pulse_client *client, *next;

    (void) reason;
    switch (state) {
    case XA_CARD_CONNECTED:
        pa_log_info("vsnd %u: connected to its backend", card->device);
        break;
    case XA_CARD_FAILED:
        pa_log_error("vsnd %u: %s", card->device, text);
        break;
    default:
        if (*text)
            pa_log_info("vsnd %u: %s", card->device, text);
        break;
    }
    PA_LLIST_FOREACH_SAFE(client, next, card->clients)
    client->card(client);
}

static void on_stream(void *user, struct xa_stream *stream, enum xa_stream_event event, int error)
{
    struct xa_pulse_card *card = user;
    struct xa_pulse_client *client, *next;

    PA_LLIST_FOREACH_SAFE(client, next, card->clients)
    client->stream(client, stream, event, error);
}

static void on_connect(void *user)
{
    struct xa_pulse_card *card = user;

    xa_store_connector_begin(card->connector);
}

/* Hands over a connection to the store that was made meanwhile. */
static void take_store(struct xa_pulse_card *card)
{
    int fd;

    if (pa_rtpoll_item_get_pollfd(card->connector_item, NULL)->revents &&
        xa_store_connector_take(card->connector, &fd))
        xa_card_take_store(card->frontend, fd);
}

struct xa_card *xa_pulse_card_frontend(struct xa_pulse_card *card)
{
    return card->frontend;
}

struct xa_stream *xa_pulse_card_stream(struct xa_pulse_card *card,
                                       const struct xa_pulse_address *address)
{
    for (unsigned i = 0; i < xa_card_stream_count(card->frontend); i++) {
        struct xa_stream *stream = xa_card_stream(card->frontend, i);
        const struct xa_stream_config *config = xa_stream_config(stream);

        if (config->capture == address->capture &&
            (address->pcm < 0 || config->pcm == address->pcm) &&
            (address->stream < 0 || config->index == address->stream))
            return stream;
    }
    return NULL;
}

static bool may_be_same(int one, int other)
{
    return one == other || one == -1 || other == -1;
}

/* Whether two clients would have the same stream, as far as the streams are known. */
static bool is_same(struct xa_pulse_card *card, const struct xa_pulse_address *one,
                    const struct xa_pulse_address *other)
{
    const struct xa_stream *stream = xa_pulse_card_stream(card, one);

    if (stream)
        return stream == xa_pulse_card_stream(card, other);
    return one->capture == other->capture && may_be_same(one->pcm, other->pcm) &&
           may_be_same(one->stream, other->stream);
}

/* Whether no other client has the stream. */
static bool is_free(struct xa_pulse_card *card, const struct xa_pulse_address *address)
{
    const struct xa_pulse_client *client;

    if (address->pcm == XA_PULSE_NO_STREAM)
        return true;
    PA_LLIST_FOREACH(client, card->clients)
    {
        if (client->address.pcm != XA_PULSE_NO_STREAM && is_same(card, &client->address, address))
            return false;
    }
    return true;
}

static bool is_alone(const struct xa_pulse_card *card, const struct xa_stream_config *config)
{
    unsigned like_it = 0;

    for (unsigned i = 0; i < xa_card_stream_count(card->frontend); i++) {
        const struct xa_stream *stream = xa_card_stream(card->frontend, i);
        const struct xa_stream_config *other = xa_stream_config(stream);

        if (xa_stream_is_configured(stream) && other->pcm == config->pcm &&
            other->capture == config->capture)
            like_it++;
    }
    return like_it <= 1;
}

static void describe(struct xa_pulse_card *card, const struct describe *wanted)
{
    struct xa_pulse_description *description = wanted->description;
    struct xa_stream *stream = xa_pulse_card_stream(card, wanted->address);

    memset(description, 0, sizeof(*description));
    description->state = xa_card_state(card->frontend);
    description->error = xa_card_error(card->frontend);
    pa_strlcpy(description->reason, xa_card_reason(card->frontend), sizeof(description->reason));
    pa_strlcpy(description->short_name, xa_card_short_name(card->frontend),
               sizeof(description->short_name));
    pa_strlcpy(description->long_name, xa_card_long_name(card->frontend),
               sizeof(description->long_name));
    if (stream) {
        description->found = true;
        description->config = *xa_stream_config(stream);
        description->alone = is_alone(card, &description->config);
    }
}

static int process_message(pa_msgobject *object, int code, void *data, int64_t offset,
                           pa_memchunk *chunk)
{
    struct xa_pulse_card *card = (struct xa_pulse_card *) object;
    struct xa_pulse_client *client = data;

    (void) offset;
    (void) chunk;
    switch (code) {
    case MESSAGE_ADD:
        if (!is_free(card, &client->address))
            return -1;
        PA_LLIST_PREPEND(struct xa_pulse_client, card->clients, client);
        break;
    case MESSAGE_REMOVE:
        PA_LLIST_REMOVE(struct xa_pulse_client, card->clients, client);
        break;
    case MESSAGE_DESCRIBE:
        describe(card, data);
        break;
    default:
        return -1;
    }
    return 0;
}

/* Has the rtpoll wait for what the frontend waits for. */
static void follow_fds(struct xa_pulse_card *card)
{
    int fds[XA_CARD_FDS];
    short events[XA_CARD_FDS];
    unsigned count = xa_card_fds(card->frontend, fds, events);
    struct pollfd *polls;

    if (card->item &&
        (card->item_serial != xa_card_fds_serial(card->frontend) || card->item_fds != count)) {
        pa_rtpoll_item_free(card->item);
        card->item = NULL;
    }
    if (count == 0)
        return;
    if (!card->item) {
        card->item = pa_rtpoll_item_new(card->rtpoll, PA_RTPOLL_NEVER, count);
        card->item_serial = xa_card_fds_serial(card->frontend);
        card->item_fds = count;
    }
    polls = pa_rtpoll_item_get_pollfd(card->item, NULL);
    for (unsigned i = 0; i < count; i++)
        polls[i] = (struct pollfd){.fd = fds[i], .events = events[i]};
}

/* What the rtpoll found: how many, *polls none when nothing of the frontend's is ready. */
static unsigned found_ready(const struct xa_pulse_card *card, struct pollfd **polls)
{
    unsigned count = 0;

    *polls = card->item ? pa_rtpoll_item_get_pollfd(card->item, &count) : NULL;
    for (unsigned i = 0; i < count; i++) {
        if ((*polls)[i].revents)
            return count;
    }
    return 0;
}

static uint64_t run_clients(struct xa_pulse_card *card, uint64_t now)
{
    struct xa_pulse_client *client, *next;
    uint64_t deadline = UINT64_MAX;

    PA_LLIST_FOREACH_SAFE(client, next, card->clients)
    deadline = PA_MIN(deadline, client->run(client, now));
    return PA_MIN(deadline, xa_card_deadline(card->frontend));
}

/* Closes the card in order, as far as the backend plays along in time. */
static void close_frontend(struct xa_pulse_card *card)
{
    uint64_t now = pa_rtclock_now();
    uint64_t limit = now + CLOSE_LIMIT_US;
    eventfd_t stopped;

    xa_card_close(card->frontend);
    while (xa_card_state(card->frontend) != XA_CARD_CLOSED && now < limit &&
           eventfd_read(card->stop, &stopped) < 0) {
        struct pollfd polls[XA_CARD_FDS + 1];
        int fds[XA_CARD_FDS];
        short events[XA_CARD_FDS];
        unsigned count = xa_card_fds(card->frontend, fds, events);
        uint64_t until = PA_MIN(limit, xa_card_deadline(card->frontend));

        for (unsigned i = 0; i < count; i++)
            polls[i] = (struct pollfd){.fd = fds[i], .events = events[i]};
        polls[count++] = (struct pollfd){.fd = card->stop, .events = POLLIN};
        (void) poll(polls, count, until > now ? (int) ((until - now + 999) / 1000) : 0);
        now = pa_rtclock_now();
        xa_card_process(card->frontend, now);
    }
    if (xa_card_state(card->frontend) != XA_CARD_CLOSED)
        pa_log_info("vsnd %u: the backend does not answer; left as it is", card->device);
}

static void enter(struct xa_pulse_card *card, enum stage stage)
{
    pthread_mutex_lock(&ending_lock);
    card->stage = stage;
    if (stage == STAGE_ENDED && card->is_left)
        PA_LLIST_REMOVE(struct xa_pulse_card, left, card);
    pthread_cond_broadcast(&ending_goes_on);
    pthread_mutex_unlock(&ending_lock);
}

static void add_connector_item(struct xa_pulse_card *card)
{
    struct pollfd *polls;

    card->connector_item = pa_rtpoll_item_new(card->rtpoll, PA_RTPOLL_NEVER, 1);
    polls = pa_rtpoll_item_get_pollfd(card->connector_item, NULL);
    *polls = (struct pollfd){.fd = xa_store_connector_fd(card->connector), .events = POLLIN};
}

static void *card_thread(void *user)
{
    struct xa_pulse_card *card = user;
    int running;

    pa_thread_mq_install(&card->queues);
    if (card->core->realtime_scheduling)
        pa_thread_make_realtime(card->core->realtime_priority);
    add_connector_item(card);
    do {
        uint64_t now = pa_rtclock_now();
        struct pollfd *polls;
        unsigned ready = found_ready(card, &polls);
        uint64_t deadline;

        take_store(card);
        /* Most wake-ups but those of a period are messages to sinks and sources. */
        if (ready > 0 || now >= xa_card_deadline(card->frontend))
            xa_card_process_polled(card->frontend, polls, ready, now);
        deadline = run_clients(card, now);
        follow_fds(card);
        if (deadline == UINT64_MAX)
            pa_rtpoll_set_timer_disabled(card->rtpoll);
        else
            pa_rtpoll_set_timer_absolute(card->rtpoll, PA_MAX(deadline, 1u));
        running = pa_rtpoll_run(card->rtpoll);
    } while (running > 0);
    if (running < 0) {
        pa_log_error("vsnd %u: poll failed: %s", card->device, pa_cstrerror(errno));
        pa_asyncmsgq_wait_for(card->queues.inq, PA_MESSAGE_SHUTDOWN);
    }
    pa_rtpoll_item_free(card->connector_item);
    if (card->item)
        pa_rtpoll_item_free(card->item);
    enter(card, STAGE_CLOSING);
    close_frontend(card);
    xa_card_free(card->frontend);
    xa_store_connector_free(card->connector);
    enter(card, STAGE_ENDED);
    pa_object_unref(PA_OBJECT(card));
    return NULL;
}

/* ---- On PulseAudio's main thread ---- */

/* Has the thread leave, and waits a little for it to close the card. */
static void end_thread(struct xa_pulse_card *card)
{
    struct timespec limit;

    pa_asyncmsgq_send(card->queues.inq, NULL, PA_MESSAGE_SHUTDOWN, NULL, 0, NULL);
    pthread_mutex_lock(&ending_lock);
    while (card->stage == STAGE_RUNNING)
        pthread_cond_wait(&ending_goes_on, &ending_lock);
    limit = xa_pulse_thread_patience();
    while (card->stage != STAGE_ENDED &&
           pthread_cond_clockwait(&ending_goes_on, &ending_lock, CLOCK_MONOTONIC, &limit) == 0)
        ;
    card->is_left = card->stage != STAGE_ENDED;
    if (card->is_left)
        PA_LLIST_PREPEND(struct xa_pulse_card, left, card);
    pthread_mutex_unlock(&ending_lock);
}

static struct xa_pulse_card *find_left(const char *key)
{
    struct xa_pulse_card *card;

    PA_LLIST_FOREACH(card, left)
    {
        if (pa_streq(card->key, key))
            return card;
    }
    return NULL;
}

/* A card that is still being closed is left as it is. */
static void stop_closing(const char *key)
{
    struct timespec limit = xa_pulse_thread_patience();
    struct xa_pulse_card *card;

    pthread_mutex_lock(&ending_lock);
    while ((card = find_left(key)) != NULL) {
        (void) eventfd_write(card->stop, 1);
        if (pthread_cond_clockwait(&ending_goes_on, &ending_lock, CLOCK_MONOTONIC, &limit) != 0)
            break;
    }
    pthread_mutex_unlock(&ending_lock);
}

/* Nobody refers to it any more. */
static void destroy(pa_object *object)
{
    struct xa_pulse_card *card = (struct xa_pulse_card *) object;

    if (card->stop >= 0)
        close(card->stop);
    pa_xfree(card->key);
    pa_xfree(card);
}

/* `has_thread` false: what the thread would have ended is still there. */
static void card_free(struct xa_pulse_card *card, bool has_thread)
{
    if (has_thread) {
        end_thread(card);
    } else {
        xa_card_free(card->frontend);
        xa_store_connector_free(card->connector);
    }
    if (card->has_queues)
        pa_thread_mq_done(&card->queues);
    if (card->rtpoll)
        pa_rtpoll_free(card->rtpoll);
    pa_object_unref(PA_OBJECT(card));
}

/* Linux's own driver has no sign in XenStore; while it is bound, the card's state is its own. */
bool xa_pulse_card_held_by_the_kernel(unsigned device)
{
    char path[64];

    snprintf(path, sizeof(path), "/sys/bus/xen/devices/vsnd-%u/driver", device);
    return access(path, F_OK) == 0;
}

/* What the thread will have to do with. 0 or a negative errno value. */
static int prepare(struct xa_pulse_card *card, struct xa_hv *hv)
{
    static const struct xa_card_callbacks callbacks = {
        .card = on_card, .stream = on_stream, .connect = on_connect};

    card->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    card->connector = card->stop < 0 ? NULL : xa_store_connector_new(hv);
    if (!card->connector) {
        int error = -errno;

        xa_hv_close(hv);
        return error;
    }
    card->rtpoll = pa_rtpoll_new();
    if (pa_thread_mq_init(&card->queues, card->core->mainloop, card->rtpoll) < 0)
        return -EMFILE;
    card->has_queues = true;
    return xa_card_new(hv, card->device, &callbacks, card, &card->frontend);
}

/* Takes over `hv` and `key`. */
static struct xa_pulse_card *card_new(pa_core *core, struct xa_hv *hv, unsigned device, char *key)
{
    struct xa_pulse_card *card =
        (struct xa_pulse_card *) pa_msgobject_new_internal(sizeof(*card), type_id, check_type);
    pthread_t thread;
    int error;

    card->parent.parent.free = destroy;
    card->parent.process_msg = process_message;
    card->users = 1;
    card->key = key;
    card->core = core;
    card->device = device;
    PA_LLIST_HEAD_INIT(struct xa_pulse_client, card->clients);
    PA_LLIST_INIT(struct xa_pulse_card, card);
    error = prepare(card, hv);
    if (error == 0) {
        pa_object_ref(PA_OBJECT(card));
        error = xa_pulse_thread_begin(&thread, "xenpv", card_thread, card);
        if (error == 0) {
            pthread_detach(thread);
            return card;
        }
        pa_object_unref(PA_OBJECT(card));
    }
    pa_log_error("vsnd %u: it cannot be used: %s", device, pa_cstrerror(-error));
    card_free(card, false);
    return NULL;
}

struct xa_pulse_card *xa_pulse_card_get(pa_core *core, const char *hypervisor, unsigned device)
{
    struct xa_hv *hv = xa_hv_open(hypervisor);
    struct xa_pulse_card *card;
    char *key;

    if (!hv) {
        pa_log_error("hypervisor %s: %s", hypervisor ? hypervisor : "xen",
                     errno == ENOTSUP ? "these modules were built without Xen's libraries"
                                      : pa_cstrerror(errno));
        return NULL;
    }
    /* Behind a socket that is named may be the stand-in, whose cards no kernel has. */
    if (!strchr(xa_hv_address(hv), '/') && xa_pulse_card_held_by_the_kernel(device)) {
        pa_log_error("snd_xen_front holds this card: unload it (modprobe -r snd_xen_front, and a"
                     " line 'blacklist snd_xen_front' in /etc/modprobe.d keeps it away)");
        xa_hv_close(hv);
        return NULL;
    }
    key = pa_sprintf_malloc("xenpv-card-%u@%s", device, xa_hv_address(hv));
    card = pa_shared_get(core, key);
    if (card) {
        pa_xfree(key);
        xa_hv_close(hv);
        card->users++;
        return card;
    }
    stop_closing(key);
    card = card_new(core, hv, device, key);
    if (card)
        pa_shared_set(core, card->key, card);
    return card;
}

void xa_pulse_card_put(struct xa_pulse_card *card)
{
    if (--card->users > 0)
        return;
    pa_shared_remove(card->core, card->key);
    card_free(card, true);
}

void xa_pulse_card_describe(struct xa_pulse_card *card, const struct xa_pulse_address *address,
                            struct xa_pulse_description *description)
{
    struct describe wanted = {.address = address, .description = description};
    uint64_t limit = pa_rtclock_now() + DESCRIBE_LIMIT_US;

    for (;;) {
        pa_asyncmsgq_send(card->queues.inq, PA_MSGOBJECT(card), MESSAGE_DESCRIBE, &wanted, 0, NULL);
        if (description->state != XA_CARD_STARTING || pa_rtclock_now() >= limit)
            return;
        pa_msleep(DESCRIBE_STEP_MS);
    }
}

pa_asyncmsgq *xa_pulse_card_queue(struct xa_pulse_card *card)
{
    return card->queues.inq;
}

pa_rtpoll *xa_pulse_card_rtpoll(struct xa_pulse_card *card)
{
    return card->rtpoll;
}

bool xa_pulse_card_add(struct xa_pulse_card *card, struct xa_pulse_client *client)
{
    if (pa_asyncmsgq_send(card->queues.inq, PA_MSGOBJECT(card), MESSAGE_ADD, client, 0, NULL) == 0)
        return true;
    pa_log_error("card %u: PCM device %d, stream %d is in use by another %s: unload that one, or"
                 " name another stream with pcm= and stream=",
                 card->device, client->address.pcm, client->address.stream,
                 client->address.capture ? "source" : "sink");
    return false;
}

void xa_pulse_card_remove(struct xa_pulse_card *card, struct xa_pulse_client *client)
{
    pa_asyncmsgq_send(card->queues.inq, PA_MSGOBJECT(card), MESSAGE_REMOVE, client, 0, NULL);
}
