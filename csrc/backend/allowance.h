/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one guest may have the engine do: a bucket of tokens that all of its streams share, however
 * many cards and streams it has. Work costs tokens, which come back with time; who has spent them
 * all is at rest for a moment, with all that is its own, so that nobody else waits for it. And a
 * limit on the memory that its samples take.
 *
 * A token is about 2 microseconds of the engine's time. Used with the engine's mutex held. Times
 * are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef XA_BACKEND_ALLOWANCE_H
#define XA_BACKEND_ALLOWANCE_H

#include <stdbool.h>
#include <stdint.h>

struct xa_allowance {
    struct xa_allowance *next;
    uint16_t domid;
    uint32_t streams; /* that share it */
    int64_t tokens;   /* may be overdrawn */
    uint64_t refilled_at;
    uint64_t rest_until; /* 0: the guest is served */
    uint64_t memory;     /* octets that its open PCMs hold */
};

/* Octets that are moved for one token. */
#define XA_OCTETS_PER_TOKEN 4096u

/* Octets of private memory for one guest's samples: 64 streams of stereo at 48 kHz, of 32 bits. */
#define XA_MEMORY_MOST (UINT64_C(128) << 20)

/* The guest's allowance in the list, made when it has none yet; NULL when memory is out. */
struct xa_allowance *xa_allowance_join(struct xa_allowance **list, uint16_t domid, uint64_t now);

/* One stream less; the last one frees it. NULL is allowed. */
void xa_allowance_leave(struct xa_allowance **list, struct xa_allowance *allowance);

/* Pays for work that was, or is about to be, done. True when this was more than there was: the
 * guest is at rest from now on. */
bool xa_allowance_spend(struct xa_allowance *allowance, uint64_t now, uint32_t tokens);

/* Sets what a stream holds to `octets` of memory (*held is its present share). False, and nothing
 * is changed, when the guest would then hold more than XA_MEMORY_MOST. */
bool xa_allowance_hold(struct xa_allowance *allowance, uint64_t *held, uint64_t octets);

/* Whether the guest may be served; its rest ends here when its time has come. */
bool xa_allowance_awake(struct xa_allowance *allowance, uint64_t now);

#endif
