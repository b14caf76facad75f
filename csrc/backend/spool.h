/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A ring of octets between the engine's thread and a thread of an output's or input's own, which
 * may have to wait for a disk or a sound server: one producer, one consumer, and neither ever
 * blocks the other.
 *
 * The octets that were put and got are counted in 32 bits, freely running. The producer stores
 * `put` with release after the octets, the consumer loads it with acquire before them; the consumer
 * stores `got` with release when it has done with the octets, the producer loads it with acquire
 * before it overwrites them.
 */
#ifndef XA_BACKEND_SPOOL_H
#define XA_BACKEND_SPOOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct xa_spool {
    uint8_t *memory;
    uint32_t size; /* octets, a power of two */
    _Atomic uint32_t put;
    _Atomic uint32_t got;
    _Atomic bool starved; /* the consumer found too little and sleeps */
};

/* With room for `octets`, but at most XA_ENDPOINT_OCTETS. 0 or -ENOMEM. */
int xa_spool_init(struct xa_spool *spool, uint64_t octets);
void xa_spool_free(struct xa_spool *spool);

/* Producer: octets that can be put. */
uint32_t xa_spool_room(const struct xa_spool *spool);

/* Producer: puts `octets` <= xa_spool_room. Their number since the beginning, modulo 2^32. */
uint32_t xa_spool_put(struct xa_spool *spool, const void *data, uint32_t octets);

/* Producer, after xa_spool_put: whether the consumer is to be woken. True once for each time that
 * the consumer said so with xa_spool_starve. */
bool xa_spool_feeds(struct xa_spool *spool);

/* Consumer: octets that can be got. */
uint32_t xa_spool_fill(const struct xa_spool *spool);

/* Consumer: gets `octets` <= xa_spool_fill. Their number since the beginning, modulo 2^32. */
uint32_t xa_spool_get(struct xa_spool *spool, void *data, uint32_t octets);

/* Consumer: forgets the oldest `octets` <= xa_spool_fill. */
void xa_spool_drop(struct xa_spool *spool, uint32_t octets);

/* Consumer: `fill` octets were there and are too few: says that it is to be woken when more are
 * put. False when more are there already: then it should not sleep. */
bool xa_spool_starve(struct xa_spool *spool, uint32_t fill);

#endif
