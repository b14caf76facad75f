/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A virtual sound card seen from the guest: one XenBus device (device/vsnd/<n>) with all its PCM
 * devices and streams. Reads the configuration, publishes every stream's transport, goes through
 * the states of XenBus with the backend, and goes through them again whenever the backend or the
 * device comes anew.
 *
 * For event loops. The owner polls xa_card_fds() and calls xa_card_process() when one of them is
 * ready or xa_card_deadline() has passed; everything else happens in there. No threads, no signals,
 * nothing global. A call may take as long as a hypervisor call that sets something up, never as
 * long as an answer from the backend or the store; but to connect to a store that is stuck may take
 * seconds, so an owner with samples to move does that elsewhere (xa_card_callbacks.connect). One
 * thread at a time for a card and all its streams.
 *
 * Callbacks come from within xa_card_process, and from nowhere else.
 * They may call everything of card.h and stream.h but xa_card_process and xa_card_free.
 */
#ifndef XA_FRONTEND_CARD_H
#define XA_FRONTEND_CARD_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv/hv.h"
#include "stream.h"

/*
 * A node beside the card's `state`, "1": this frontend takes state 2 at any time for a reason to
 * negotiate anew, also while it plays. A backend that is restarted leaves others their rings: Linux
 * 6.1 crashes when its card is taken away while it is in use.
 */
#define XA_CARD_FEATURE_RENEGOTIATE "feature-renegotiate"

/*
 * Another one, "1": this frontend notifies the backend of every request but WRITE, whatever the
 * request ring's req_event says. So a backend need not ask to be notified while it has all that is
 * due before it looks at the ring in any case, and a steady stream costs it one wake-up a period;
 * a STOP is heeded at once nevertheless. (Linux notifies when it is asked to only.)
 */
#define XA_CARD_FEATURE_HOLD_OFF "feature-hold-off"

/* cffi: begin */
struct xa_card;

enum xa_card_state {
    XA_CARD_STARTING,    /* the store is being read */
    XA_CARD_ABSENT,      /* the guest has no such device, or the store cannot be reached */
    XA_CARD_WAITING,     /* XenbusStateInitialising: no backend is ready */
    XA_CARD_NEGOTIATING, /* published, the backend has not answered */
    XA_CARD_CONNECTED,
    XA_CARD_CLOSING, /* an old connection is being taken down; a new one may follow */
    XA_CARD_FAILED,  /* the configuration cannot be served, or a resource is short */
    XA_CARD_CLOSED,  /* closed with xa_card_close */
};

struct xa_card_callbacks {
    /*
     * The card's state changed. `reason`: 0 or a negative errno value, `text`: for people; both say
     * why, the text is good during the call only. Streams that were open have been told before
     * (XA_EVENT_CLOSED, -ENOTCONN). At XA_CARD_CONNECTED the owner opens again what it wants open.
     */
    void (*card)(void *user, enum xa_card_state state, int reason, const char *text);
    /* Something happened to a stream; `error` is 0 or a negative errno value. */
    void (*stream)(void *user, struct xa_stream *stream, enum xa_stream_event event, int error);
    /* A connection to the store is wanted: the owner calls xa_hv_connect_store where nothing waits
     * for it, and hands over what comes of it with xa_card_take_store. Until then it is not called
     * again. NULL: xa_card_process calls xa_hv_connect_store itself. */
    void (*connect)(void *user);
};

/*
 * Begins to serve device `device` of the own domain; the rest happens in xa_card_process. `hv` must
 * outlive the card; `callbacks` is copied. A store that cannot be reached is tried again every
 * second. One that owes an answer for 10 s is connected to anew, unless the card is connected: what
 * plays needs no store. -ENOMEM.
 */
int xa_card_new(struct xa_hv *hv, unsigned device, const struct xa_card_callbacks *callbacks,
                void *user, struct xa_card **card);

/* Hands over what xa_card_callbacks.connect asked for: a file descriptor as xa_hv_connect_store
 * gives it, which is the card's from now on, or a negative errno value. xa_card_deadline is then in
 * the past: the next xa_card_process uses it. */
void xa_card_take_store(struct xa_card *card, int fd);

/* Takes the connection down in order; XA_CARD_CLOSED follows, within 4 s at most even if the
 * backend does not answer, if the store does. */
void xa_card_close(struct xa_card *card);

/* Takes the connection down and negotiates anew (the owner's way out when a stream is dead). */
void xa_card_reconnect(struct xa_card *card);

/* Ends everything at once: no callback, no state written. The next frontend of the device finds an
 * old state there and closes it first. NULL is allowed. */
void xa_card_free(struct xa_card *card);

enum xa_card_state xa_card_state(const struct xa_card *card);
/* Why the card is in its state, for people: a sentence without a full stop, or "". */
const char *xa_card_reason(const struct xa_card *card);
/* The same as 0 or a negative errno value. With XA_CARD_ABSENT: -ENODEV where there is no such
 * device, or no hypervisor; -ECONNREFUSED, -EPIPE, -EPROTO, -ETIMEDOUT where a store is, and cannot
 * be asked now; or what else xa_hv_connect_store gave. */
int xa_card_error(const struct xa_card *card);

/* "short-name" and "long-name", or "". */
const char *xa_card_short_name(const struct xa_card *card);
const char *xa_card_long_name(const struct xa_card *card);

/* The streams, ordered by PCM device and index; known from XA_CARD_WAITING on. Those that a new
 * configuration lacks stay in the list, -ENODEV to open. */
unsigned xa_card_stream_count(const struct xa_card *card);
struct xa_stream *xa_card_stream(const struct xa_card *card, unsigned index);

/* sndif's protocol version in use, 1 or 2; 0 while not connected. */
unsigned xa_card_version(const struct xa_card *card);

/* Room for as many is always enough in xa_card_fds. */
#define XA_CARD_FDS 65

/* What to wait for: fills fds[i] and events[i] (POLLIN, or POLLIN|POLLOUT), at most XA_CARD_FDS,
 * and returns how many. Changes only within xa_card_process. */
unsigned xa_card_fds(const struct xa_card *card, int *fds, short *events);

/* Changes whenever the file descriptors (not their events) do: one may have been closed and another
 * opened under the same number. */
unsigned xa_card_fds_serial(const struct xa_card *card);

/* When xa_card_process must be called at the latest, UINT64_MAX: no limit. */
uint64_t xa_card_deadline(const struct xa_card *card);

/* Does what can be done now, at `now_us`. Does not block. */
void xa_card_process(struct xa_card *card, uint64_t now_us);
/* cffi: end */

/* The same where the owner has just polled, which saves a system call: `polls` has what xa_card_fds
 * gave, in its order, with revents; none, when nothing was ready. */
void xa_card_process_polled(struct xa_card *card, const struct pollfd *polls, unsigned count,
                            uint64_t now_us);

#endif
