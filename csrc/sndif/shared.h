/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Access to words that another domain can change at any moment.
 *
 * All ordering of the ring core is in this header. A shared word is only ever touched through these
 * functions, so that it is read exactly once, into a local, which is then checked.
 *
 * The pairs:
 *  - xa_store_release(producer index) publishes the entries written before it;
 *    xa_load_acquire(producer index) at the other end sees them.
 *  - xa_store_release(consumer index) frees the entries read before it;
 *    xa_load_acquire(consumer index) at the other end may then overwrite them.
 *  - xa_store_seq(event index), xa_load_seq(producer index) at the consumer against
 *    xa_store_seq(producer index), xa_load_seq(event index) at the producer: each side stores, then
 *    loads what the other stores. The single order of sequentially consistent operations makes at
 *    least one of them see the other's store, so no wake-up is lost. (Xen's ring.h puts a full
 *    barrier, xen_mb(), between the same two accesses.)
 */
#ifndef XA_SNDIF_SHARED_H
#define XA_SNDIF_SHARED_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t xa_load_relaxed(const uint32_t *word)
{
    return atomic_load_explicit((const _Atomic uint32_t *) word, memory_order_relaxed);
}

static inline uint32_t xa_load_acquire(const uint32_t *word)
{
    return atomic_load_explicit((const _Atomic uint32_t *) word, memory_order_acquire);
}

static inline uint32_t xa_load_seq(const uint32_t *word)
{
    return atomic_load_explicit((const _Atomic uint32_t *) word, memory_order_seq_cst);
}

static inline void xa_store_relaxed(uint32_t *word, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *) word, value, memory_order_relaxed);
}

static inline void xa_store_release(uint32_t *word, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *) word, value, memory_order_release);
}

static inline void xa_store_seq(uint32_t *word, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *) word, value, memory_order_seq_cst);
}

/*
 * Copies `octets` (a multiple of 4) out of shared memory, reading each word once. `shared` is
 * aligned to 4. Unordered: an acquire load of the producer index comes before it. (memcpy on the
 * local side, because the local object is a structure, which a uint32_t may not alias.)
 */
static inline void xa_copy_from_shared(void *local, const void *shared, size_t octets)
{
    uint8_t *to = local;
    const uint32_t *from = shared;

    for (size_t i = 0; i < octets / sizeof(uint32_t); i++) {
        uint32_t word = xa_load_relaxed(from + i);

        memcpy(to + i * sizeof(word), &word, sizeof(word));
    }
}

/* The other way round: a release store of the producer index comes after it. */
static inline void xa_copy_to_shared(void *shared, const void *local, size_t octets)
{
    uint32_t *to = shared;
    const uint8_t *from = local;

    for (size_t i = 0; i < octets / sizeof(uint32_t); i++) {
        uint32_t word;

        memcpy(&word, from + i * sizeof(word), sizeof(word));
        xa_store_relaxed(to + i, word);
    }
}

#endif
