/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Measures the request ring (csrc/sndif/ring.h) beside what it is made of: event notifications and
 * memcpy. Behind `xenaudio bench ring`.
 */
#ifndef XA_BENCH_RING_BENCH_H
#define XA_BENCH_RING_BENCH_H

#include <stdint.h>

/* cffi: begin */
/*
 * Measures `count` round trips of each kind between two processes, alternating in blocks:
 * ring_ns[i], a request put, pushed and notified until its response is taken; baseline_ns[i], an
 * eventfd written until the other process has written one back. Nanoseconds. Both wait in poll. 0
 * or a negative errno value.
 */
int xa_bench_round_trips(uint32_t count, uint32_t *ring_ns, uint32_t *baseline_ns);

/*
 * Moves `chunks` chunks of `chunk_octets` (1 to 65536) through a shared buffer of 64 KiB, in one
 * thread: *ring_s seconds with a WRITE request and its response for each, *memcpy_s seconds with
 * the two copies alone. 0 or a negative errno value.
 */
int xa_bench_copy(uint32_t chunk_octets, uint32_t chunks, double *ring_s, double *memcpy_s);
/* cffi: end */

#endif
