/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sound card within PulseAudio: one frontend (frontend/card.h) and one thread for each card,
 * which all its sinks and sources share.
 *
 * XenBus has one state for a card, and a frontend is for one thread at a time. So the thread that
 * owns the frontend is also the IO thread of each sink and source of the card, with one pa_rtpoll
 * and one message queue for all of them: a position event wakes one thread, which renders and
 * writes there and then. With a thread for each sink, every period would be a second wake-up.
 *
 * Functions are for PulseAudio's main thread where nothing else is said.
 */
#ifndef XA_PULSE_CARD_THREAD_H
#define XA_PULSE_CARD_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include <pulsecore/core.h>
#include <pulsecore/asyncmsgq.h>
#include <pulsecore/llist.h>
#include <pulsecore/rtpoll.h>

#include "frontend/card.h"

struct xa_pulse_card;

/* For a client that wants no stream, but to be told of the card. */
#define XA_PULSE_NO_STREAM (-2)

/* Which stream is meant; -1: the first that there is. */
struct xa_pulse_address {
    int pcm; /* or XA_PULSE_NO_STREAM */
    int stream;
    bool capture;
};

/* A sink or source, for the card's thread: each function is called there. */
struct xa_pulse_client {
    /* Does what can be done at `now_us`. Returns when it must be called again at the latest,
     * UINT64_MAX: when something happens. */
    uint64_t (*run)(struct xa_pulse_client *client, uint64_t now_us);
    /* Something happened to a stream of the card, perhaps another client's. */
    void (*stream)(struct xa_pulse_client *client, struct xa_stream *stream,
                   enum xa_stream_event event, int error);
    /* The card's state is another one. */
    void (*card)(struct xa_pulse_client *client);
    struct xa_pulse_address address;
    void *user;
    PA_LLIST_FIELDS(struct xa_pulse_client);
};

/* What is known of a card, and of one stream of it. */
struct xa_pulse_description {
    enum xa_card_state state;
    int error; /* as xa_card_error */
    char reason[256];
    char short_name[128];
    char long_name[128];
    bool found; /* `config` is the stream's */
    bool alone; /* no other stream of its PCM device has its direction */
    struct xa_stream_config config;
};

/*
 * Whether Linux's own driver, snd_xen_front, has the card `device` of a guest on Xen. Then nobody
 * else can have it, and xa_pulse_card_get refuses it with a text that says what to do.
 */
bool xa_pulse_card_held_by_the_kernel(unsigned device);

/*
 * The card `device` of the hypervisor `hypervisor` (as for xa_hv_open, NULL: the default), shared
 * with whoever has it already. NULL: it cannot be; the reason was logged.
 */
struct xa_pulse_card *xa_pulse_card_get(pa_core *core, const char *hypervisor, unsigned device);

/* Gives it back. The last one has the card closed, in order; that takes as long as the backend
 * takes for it. What lasts longer than a tenth of a second goes on by itself, until the card is
 * wanted again. */
void xa_pulse_card_put(struct xa_pulse_card *card);

/* Describes the card and a stream of it. Waits for its configuration, a fifth of a second at most:
 * the daemon's start is not delayed by a store that does not answer. */
void xa_pulse_card_describe(struct xa_pulse_card *card, const struct xa_pulse_address *address,
                            struct xa_pulse_description *description);

/* What pa_sink_set_asyncmsgq and pa_sink_set_rtpoll want. */
pa_asyncmsgq *xa_pulse_card_queue(struct xa_pulse_card *card);
pa_rtpoll *xa_pulse_card_rtpoll(struct xa_pulse_card *card);

/* From now on the thread calls the client; until xa_pulse_card_remove returns. False: another
 * client has its stream; it is in the log. */
bool xa_pulse_card_add(struct xa_pulse_card *card, struct xa_pulse_client *client);
void xa_pulse_card_remove(struct xa_pulse_card *card, struct xa_pulse_client *client);

/* The frontend, and a stream of it or NULL. On the card's thread only. */
struct xa_card *xa_pulse_card_frontend(struct xa_pulse_card *card);
struct xa_stream *xa_pulse_card_stream(struct xa_pulse_card *card,
                                       const struct xa_pulse_address *address);

#endif
