/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A ring of octets between two threads: see spool.h. */
#include "backend/spool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/endpoint.h"

int xa_spool_init(struct xa_spool *spool, uint64_t octets)
{
    uint32_t size = 1u << 12;

    while (size < octets && size < XA_ENDPOINT_OCTETS)
        size *= 2;
    *spool = (struct xa_spool){.memory = malloc(size), .size = size};
    return spool->memory ? 0 : -ENOMEM;
}

void xa_spool_free(struct xa_spool *spool)
{
    free(spool->memory);
    spool->memory = NULL;
}

uint32_t xa_spool_room(const struct xa_spool *spool)
{
    uint32_t put = atomic_load_explicit(&spool->put, memory_order_relaxed);

    return spool->size - (put - atomic_load_explicit(&spool->got, memory_order_acquire));
}

uint32_t xa_spool_put(struct xa_spool *spool, const void *data, uint32_t octets)
{
    uint32_t put = atomic_load_explicit(&spool->put, memory_order_relaxed);
    uint32_t offset = put & (spool->size - 1);
    uint32_t first = octets < spool->size - offset ? octets : spool->size - offset;

    memcpy(spool->memory + offset, data, first);
    memcpy(spool->memory, (const uint8_t *) data + first, octets - first);
    /* Sequentially consistent, with the exchange in xa_spool_feeds: it comes before that one. */
    atomic_store(&spool->put, put + octets);
    return put + octets;
}

bool xa_spool_feeds(struct xa_spool *spool)
{
    return atomic_load(&spool->starved) && atomic_exchange(&spool->starved, false);
}

uint32_t xa_spool_fill(const struct xa_spool *spool)
{
    uint32_t got = atomic_load_explicit(&spool->got, memory_order_relaxed);

    return atomic_load_explicit(&spool->put, memory_order_acquire) - got;
}

uint32_t xa_spool_get(struct xa_spool *spool, void *data, uint32_t octets)
{
    uint32_t got = atomic_load_explicit(&spool->got, memory_order_relaxed);
    uint32_t offset = got & (spool->size - 1);
    uint32_t first = octets < spool->size - offset ? octets : spool->size - offset;

    memcpy(data, spool->memory + offset, first);
    memcpy((uint8_t *) data + first, spool->memory, octets - first);
    atomic_store_explicit(&spool->got, got + octets, memory_order_release);
    return got + octets;
}

void xa_spool_drop(struct xa_spool *spool, uint32_t octets)
{
    uint32_t got = atomic_load_explicit(&spool->got, memory_order_relaxed);

    atomic_store_explicit(&spool->got, got + octets, memory_order_release);
}

bool xa_spool_starve(struct xa_spool *spool, uint32_t fill)
{
    uint32_t got = atomic_load_explicit(&spool->got, memory_order_relaxed);

    /* Of this store and the producer's of `put`, each followed by a load of the other's, at least
     * one is seen. */
    atomic_store(&spool->starved, true);
    if (atomic_load(&spool->put) - got == fill)
        return true;
    atomic_store(&spool->starved, false);
    return false;
}
