/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The thread of a card; see card-thread.h. */
#include "config.h"

#include "card-thread.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
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

#define CLOSE_LIMIT_US UINT64_C(500000)
#define DESCRIBE_LIMIT_US UINT64_C(200000)
#define DESCRIBE_STEP_MS 2

struct xa_pulse_card {
    pa_msgobject parent;
    unsigned users;
    char *key;
    pa_core *core;

    struct xa_hv *hv;
    unsigned device;
    pa_thread *thread;
    pa_thread_mq queues;
    bool has_queues;
    pa_rtpoll *rtpoll;

    /* The thread's alone, while it runs. */
    struct xa_card *frontend;
    pa_rtpoll_item *item;
    unsigned item_serial;
    unsigned item_fds;
    PA_LLIST_HEAD(struct xa_pulse_client, clients);
};

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

/* Whether no other client has the stream. */
static bool is_free(const struct xa_pulse_card *card, const struct xa_pulse_address *address)
{
    const struct xa_pulse_client *client;

    PA_LLIST_FOREACH(client, card->clients)
    {
        if (client->address.capture == address->capture && client->address.pcm == address->pcm &&
            client->address.stream == address->stream)
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

    xa_card_close(card->frontend);
    while (xa_card_state(card->frontend) != XA_CARD_CLOSED && now < limit) {
        struct pollfd polls[XA_CARD_FDS];
        int fds[XA_CARD_FDS];
        short events[XA_CARD_FDS];
        unsigned count = xa_card_fds(card->frontend, fds, events);
        uint64_t until = PA_MIN(limit, xa_card_deadline(card->frontend));

        for (unsigned i = 0; i < count; i++)
            polls[i] = (struct pollfd){.fd = fds[i], .events = events[i]};
        (void) poll(polls, count, until > now ? (int) ((until - now + 999) / 1000) : 0);
        now = pa_rtclock_now();
        xa_card_process(card->frontend, now);
    }
    if (xa_card_state(card->frontend) != XA_CARD_CLOSED)
        pa_log_info("vsnd %u: the backend does not answer; left as it is", card->device);
}

static void card_thread(void *user)
{
    struct xa_pulse_card *card = user;
    int running;

    pa_thread_mq_install(&card->queues);
    if (card->core->realtime_scheduling)
        pa_thread_make_realtime(card->core->realtime_priority);
    do {
        uint64_t now = pa_rtclock_now();
        struct pollfd *polls;
        unsigned ready = found_ready(card, &polls);
        uint64_t deadline;

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
    close_frontend(card);
    if (card->item)
        pa_rtpoll_item_free(card->item);
    card->item = NULL;
}

/* ---- On PulseAudio's main thread ---- */

static void card_free(struct xa_pulse_card *card)
{
    if (card->thread) {
        pa_asyncmsgq_send(card->queues.inq, NULL, PA_MESSAGE_SHUTDOWN, NULL, 0, NULL);
        pa_thread_free(card->thread);
    }
    if (card->has_queues)
        pa_thread_mq_done(&card->queues);
    xa_card_free(card->frontend);
    if (card->rtpoll)
        pa_rtpoll_free(card->rtpoll);
    if (card->hv)
        xa_hv_close(card->hv);
    pa_xfree(card->key);
    pa_object_unref(PA_OBJECT(card));
}

/* Linux's own driver has no sign in XenStore; while it is bound, the card's state is its own. */
bool xa_pulse_card_held_by_the_kernel(unsigned device)
{
    char path[64];

    snprintf(path, sizeof(path), "/sys/bus/xen/devices/vsnd-%u/driver", device);
    return access(path, F_OK) == 0;
}

static struct xa_pulse_card *card_new(pa_core *core, struct xa_hv *hv, unsigned device, char *key)
{
    static const struct xa_card_callbacks callbacks = {.card = on_card, .stream = on_stream};
    struct xa_pulse_card *card =
        (struct xa_pulse_card *) pa_msgobject_new_internal(sizeof(*card), type_id, check_type);
    int error;

    card->parent.process_msg = process_message;
    card->users = 1;
    card->key = key;
    card->core = core;
    card->hv = hv;
    card->device = device;
    PA_LLIST_HEAD_INIT(struct xa_pulse_client, card->clients);
    error = xa_card_new(hv, device, &callbacks, card, &card->frontend);
    if (error < 0) {
        pa_log_error("vsnd %u: %s", device, pa_cstrerror(-error));
        card_free(card);
        return NULL;
    }
    card->rtpoll = pa_rtpoll_new();
    if (pa_thread_mq_init(&card->queues, core->mainloop, card->rtpoll) < 0) {
        pa_log_error("vsnd %u: no message queue can be made", device);
        card_free(card);
        return NULL;
    }
    card->has_queues = true;
    card->thread = pa_thread_new("xenpv", card_thread, card);
    if (!card->thread) {
        pa_log_error("vsnd %u: no thread can be made", device);
        card_free(card);
        return NULL;
    }
    return card;
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
    card_free(card);
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
