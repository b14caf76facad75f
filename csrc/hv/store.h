/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small non-blocking XenStore client: the wire protocol of <xen/io/xs_wire.h> over one file
 * descriptor, be it xenstored's socket, /dev/xen/xenbus, the guest service's socket or the
 * stand-in's.
 *
 * A request is queued and its reply arrives through a function given with it, in order, from within
 * xa_store_process. Watches arrive through the function given to xa_store_new. Both may queue
 * further requests; neither may free the store. One thread at a time.
 *
 * A request is written when it is made, as far as the descriptor takes it without blocking; what is
 * left is written by xa_store_process. /dev/xen/xenbus, which is what a descriptor that is no
 * socket is taken for, gets each request when the one before it was answered.
 *
 * Errors are negative errno values. Paths are absolute, or relative to the domain's own
 * /local/domain/<domid>, as XenStore has it; at most XENSTORE_ABS_PATH_MAX octets.
 */
#ifndef XA_HV_STORE_H
#define XA_HV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
struct xa_store;

/*
 * A reply. `error` is 0 or a negative errno value (the server's, -EIO when it names one that
 * xs_wire does not have, or -EPIPE for every request still unanswered when the connection ends).
 * `data` is valid during the call only, `length` octets followed by one 0 that is not counted; a
 * directory's entries and a node's permissions each end in a 0.
 */
typedef void (*xa_store_reply_fn)(void *user, int error, const char *data, size_t length);

/* A watch fired: `path` as the server names it, `token` as given to xa_store_watch. */
typedef void (*xa_store_watch_fn)(void *user, const char *path, const char *token);

/* Takes over `fd` (makes it non-blocking; xa_store_free closes it). NULL with errno set when memory
 * is out or fd is not one; the fd is then still the caller's. */
struct xa_store *xa_store_new(int fd, xa_store_watch_fn watch_fn, void *user);

/* Closes the connection. Replies still owed are not given any more. NULL is allowed. */
void xa_store_free(struct xa_store *store);

int xa_store_fd(const struct xa_store *store);

/* Whether octets wait to be written: poll for writing as well as reading. */
bool xa_store_wants_write(const struct xa_store *store);

/*
 * Reads and writes what can be without blocking, and gives out replies and watches. 0, or: -EPIPE
 * the server closed the connection; -EPROTO it sent what is not xs_wire (an unknown request id, a
 * length over XENSTORE_PAYLOAD_MAX, a string without its end); another errno of read or write.
 * After an error the store is dead: every later request is refused with -EPIPE. Called from within
 * one of its own callbacks it does nothing: -EBUSY. It reads a bounded amount: while the descriptor
 * is still readable, call it again.
 */
int xa_store_process(struct xa_store *store);

/* As above, but waits up to `timeout_ms` (-1: for ever) for something to arrive. -ETIMEDOUT. For
 * clients without an event loop. */
int xa_store_process_wait(struct xa_store *store, int timeout_ms);

/*
 * The requests. `tx` is a transaction's id or 0. `fn` may be NULL when no reply is wanted. 0 when
 * queued; -EINVAL for a path that is empty or too long, or when path and value together are longer
 * than 4080 octets (what /dev/xen/xenbus takes with a header); -ENOMEM; -EPIPE, also when writing
 * failed just now: then xa_store_process gives what the server still sent, and the error; or what
 * /dev/xen/xenbus says against the request at once, as it does when a watch is refused: then there
 * is no reply, and the connection lives on.
 */
int xa_store_read(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                  void *user);
int xa_store_directory(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                       void *user);
int xa_store_write(struct xa_store *store, uint32_t tx, const char *path, const char *value,
                   xa_store_reply_fn fn, void *user);
int xa_store_mkdir(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                   void *user);
int xa_store_rm(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                void *user);
int xa_store_get_perms(struct xa_store *store, uint32_t tx, const char *path, xa_store_reply_fn fn,
                       void *user);
/* `perms`: `count` strings such as "n1", "r0" (docs/misc/xenstore.txt, SET_PERMS). */
int xa_store_set_perms(struct xa_store *store, uint32_t tx, const char *path,
                       const char *const *perms, unsigned count, xa_store_reply_fn fn, void *user);
int xa_store_get_domain_path(struct xa_store *store, unsigned domid, xa_store_reply_fn fn,
                             void *user);
int xa_store_watch(struct xa_store *store, const char *path, const char *token,
                   xa_store_reply_fn fn, void *user);
int xa_store_unwatch(struct xa_store *store, const char *path, const char *token,
                     xa_store_reply_fn fn, void *user);
/* The reply's data is the transaction's id in decimal. */
int xa_store_transaction_start(struct xa_store *store, xa_store_reply_fn fn, void *user);
/* -EAGAIN in the reply: someone else changed what was read; begin the transaction again. */
int xa_store_transaction_end(struct xa_store *store, uint32_t tx, bool commit, xa_store_reply_fn fn,
                             void *user);
/* cffi: end */

#endif
