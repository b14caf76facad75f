/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connects to XenStore on a thread of its own (xa_hv_connect_store): a store that is stuck, or a
 * guest service that systemd is still starting, takes seconds to connect to, and a card's thread
 * has samples to move. One thread at a time, except where another is said.
 */
#ifndef XA_PULSE_STORE_CONNECTOR_H
#define XA_PULSE_STORE_CONNECTOR_H

#include <stdbool.h>

#include "hv/hv.h"

struct xa_store_connector;

/* Takes `hv` over on success: it is closed when nothing uses it any more. NULL with errno set. */
struct xa_store_connector *xa_store_connector_new(struct xa_hv *hv);

/* Lets go of it. An attempt that is under way is left to itself. NULL is allowed. */
void xa_store_connector_free(struct xa_store_connector *connector);

/* Readable when xa_store_connector_take has something. */
int xa_store_connector_fd(const struct xa_store_connector *connector);

/* Begins to connect; not again before the outcome was taken. */
void xa_store_connector_begin(struct xa_store_connector *connector);

/* Takes the outcome of an attempt, once: *fd is what xa_hv_connect_store gave. False: none yet. */
bool xa_store_connector_take(struct xa_store_connector *connector, int *fd);

#endif
