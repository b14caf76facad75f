/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A first-in first-out store of octets in memory that its user gives. One thread; no allocation.
 */
#ifndef XA_BACKEND_FIFO_H
#define XA_BACKEND_FIFO_H

#include <stdint.h>
#include <string.h>

struct xa_fifo {
    uint8_t *memory;
    uint32_t size; /* octets */
    uint32_t head; /* where the oldest octet is */
    uint32_t fill; /* octets stored */
};

static inline uint32_t xa_fifo_room(const struct xa_fifo *fifo)
{
    return fifo->size - fifo->fill;
}

/* Stores `octets` <= xa_fifo_room. */
static inline void xa_fifo_put(struct xa_fifo *fifo, const void *data, uint32_t octets)
{
    uint32_t tail = (uint32_t) (((uint64_t) fifo->head + fifo->fill) % fifo->size);
    uint32_t first = octets < fifo->size - tail ? octets : fifo->size - tail;

    memcpy(fifo->memory + tail, data, first);
    memcpy(fifo->memory, (const uint8_t *) data + first, octets - first);
    fifo->fill += octets;
}

/* The oldest octets that lie in one piece: their number, and where. */
static inline uint32_t xa_fifo_peek(const struct xa_fifo *fifo, const uint8_t **data)
{
    uint32_t piece = fifo->size - fifo->head;

    *data = fifo->memory + fifo->head;
    return fifo->fill < piece ? fifo->fill : piece;
}

/* Forgets the oldest `octets` <= fill. */
static inline void xa_fifo_drop(struct xa_fifo *fifo, uint32_t octets)
{
    fifo->head = (uint32_t) (((uint64_t) fifo->head + octets) % fifo->size);
    fifo->fill -= octets;
}

/* Takes the oldest `octets` <= fill. */
static inline void xa_fifo_get(struct xa_fifo *fifo, void *data, uint32_t octets)
{
    uint32_t piece = fifo->size - fifo->head;
    uint32_t first = octets < piece ? octets : piece;

    memcpy(data, fifo->memory + fifo->head, first);
    memcpy((uint8_t *) data + first, fifo->memory, octets - first);
    xa_fifo_drop(fifo, octets);
}

#endif
