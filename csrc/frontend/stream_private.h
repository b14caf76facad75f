/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a card does to its streams, and nobody else: see stream.h for what they are. */
#ifndef XA_FRONTEND_STREAM_PRIVATE_H
#define XA_FRONTEND_STREAM_PRIVATE_H

#include "card.h"
#include "stream.h"

/* The nodes that a prepared stream publishes. */
struct xa_stream_transport {
    uint32_t ring_ref;
    uint32_t event_channel;
    uint32_t evt_ring_ref;
    uint32_t evt_event_channel;
};

/* A stream of no configuration yet. `callback` and `user` are the card owner's. NULL: no memory. */
struct xa_stream *xa_stream_new(struct xa_hv *hv,
                                void (*callback)(void *user, struct xa_stream *stream,
                                                 enum xa_stream_event event, int error),
                                void *user);
void xa_stream_free(struct xa_stream *stream);

/* NULL: the card has it no more. */
void xa_stream_configure(struct xa_stream *stream, const struct xa_stream_config *config);

/* Makes ring, event page and event channels for domain `backend`. hv.h's errors. */
int xa_stream_prepare(struct xa_stream *stream, uint16_t backend,
                      struct xa_stream_transport *transport);
/* The card is connected: from XA_STREAM_OFFLINE to XA_STREAM_CLOSED. */
void xa_stream_online(struct xa_stream *stream, unsigned version);
/* The connection is over: to XA_STREAM_OFFLINE; the owner is told if the stream was open. */
void xa_stream_offline(struct xa_stream *stream);
/* Gives back all that xa_stream_prepare and xa_stream_open made. After xa_stream_offline. `ours`:
 * false when the event channels may not be this domain's any more (xa_evtchn_abandon). */
void xa_stream_release(struct xa_stream *stream, bool ours);

/* The event channels' file descriptor, or -1. */
int xa_stream_fd(const struct xa_stream *stream);
uint64_t xa_stream_deadline(const struct xa_stream *stream);
/* `ready`: the file descriptor is readable. 0, or -EPROTO when the backend broke the protocol; the
 * card then drops the connection. */
int xa_stream_process(struct xa_stream *stream, bool ready, uint64_t now_us);
/* What the backend did when xa_stream_process said -EPROTO. */
const char *xa_stream_fault(const struct xa_stream *stream);

#endif
