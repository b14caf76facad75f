/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One request and its reply over a Unix stream socket, in xs_wire's framing, with file descriptors:
 * what the stand-in's socket (local_wire.h) and the guest service's (guestd_wire.h) have in common.
 */
#ifndef XA_HV_RPC_H
#define XA_HV_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XA_FDS_MAX 128u

/* Descriptors that came with a reply and are still ours to close. */
struct xa_fds {
    unsigned count;
    int fd[XA_FDS_MAX];
};

void xa_fds_close(struct xa_fds *fds);

/*
 * One request and its reply, of exactly `reply_octets` octets and, with `fds`, any number of
 * descriptors. Waits for at most 2 s. `*broken` is set when the connection can no longer be used,
 * and left alone when the server merely refused. On failure no descriptor is kept. 0, the error
 * that the server names, or: -ETIMEDOUT, -EPIPE, -EPROTO, another errno of send and recvmsg. One
 * thread at a time for each connection.
 */
int xa_rpc_call(int connection, uint32_t type, const void *request, size_t request_octets,
                void *reply, size_t reply_octets, struct xa_fds *fds, bool *broken);

#endif
