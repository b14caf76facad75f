/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Measures the request ring: see ring_bench.h. */
#include "bench/ring_bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sndif/ring.h"

enum { BLOCK = 500, BUFFER = 65536, LIMIT_MS = 5000 };

struct pair {
    int to_back, to_front; /* eventfds */
    void *page;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* Waits for an event as both halves of the driver do: poll, then read. */
static int wait_for(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    eventfd_t value;
    int ready = poll(&wait, 1, LIMIT_MS);

    if (ready <= 0)
        return ready < 0 ? -errno : -ETIMEDOUT;
    return eventfd_read(fd, &value) < 0 ? -errno : 0;
}

/* The other process: echoes a block of bare events, then answers a block of requests, and so on. */
static int echo(const struct pair *pair, uint32_t count)
{
    struct xa_back_ring ring;

    xa_back_ring_attach(&ring, pair->page);
    for (uint32_t done = 0; done < count; done += BLOCK) {
        struct xensnd_req request;

        for (uint32_t i = 0; i < BLOCK; i++) {
            int error = wait_for(pair->to_back);

            if (error)
                return error;
            eventfd_write(pair->to_front, 1);
        }
        for (uint32_t i = 0; i < BLOCK;) {
            int got = xa_back_ring_get(&ring, &request);

            if (got == 0)
                got = xa_back_ring_arm(&ring) == 1 ? 0 : wait_for(pair->to_back);
            else if (got == 1) {
                struct xensnd_resp response = {.id = request.id, .operation = request.operation};

                xa_back_ring_put(&ring, &response);
                if (xa_back_ring_push(&ring))
                    eventfd_write(pair->to_front, 1);
                i++;
                got = 0;
            }
            if (got < 0)
                return got;
        }
        /* As before the first block: the ring is not listened to while bare events are echoed. */
        xa_back_ring_arm(&ring);
    }
    return 0;
}

static int measure_event(const struct pair *pair, uint32_t *ns)
{
    uint64_t begin = now_ns();
    int error;

    eventfd_write(pair->to_back, 1);
    error = wait_for(pair->to_front);
    *ns = (uint32_t) (now_ns() - begin);
    return error;
}

static int measure_request(const struct pair *pair, struct xa_front_ring *ring, uint16_t id,
                           uint32_t *ns)
{
    struct xensnd_req request = {.id = id, .operation = XENSND_OP_WRITE};
    struct xensnd_resp response;
    uint64_t begin = now_ns();
    int got;

    xa_front_ring_put(ring, &request);
    if (xa_front_ring_push(ring))
        eventfd_write(pair->to_back, 1);
    while ((got = xa_front_ring_get(ring, &response)) == 0) {
        got = xa_front_ring_arm(ring);
        if (got == 0)
            got = wait_for(pair->to_front);
        if (got < 0)
            return got;
    }
    *ns = (uint32_t) (now_ns() - begin);
    return got < 0 ? got : response.id == id ? 0 : -EPROTO;
}

static int measure(const struct pair *pair, uint32_t count, uint32_t *ring_ns,
                   uint32_t *baseline_ns, struct xa_front_ring *ring)
{
    for (uint32_t done = 0; done < count; done += BLOCK) {
        for (uint32_t i = 0; i < BLOCK; i++) {
            int error = measure_event(pair, baseline_ns + done + i);

            if (error)
                return error;
        }
        for (uint32_t i = 0; i < BLOCK; i++) {
            int error = measure_request(pair, ring, (uint16_t) i, ring_ns + done + i);

            if (error)
                return error;
        }
    }
    return 0;
}

/* Measures against another process, which ends with the measurement. */
static int measure_across(const struct pair *pair, uint32_t count, uint32_t *ring_ns,
                          uint32_t *baseline_ns)
{
    struct xa_front_ring ring;
    pid_t child;
    int error;

    xa_front_ring_init(&ring, pair->page);
    child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(echo(pair, count) ? 1 : 0);
    }
    error = measure(pair, count, ring_ns, baseline_ns, &ring);
    if (error)
        kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return error;
}

int xa_bench_round_trips(uint32_t count, uint32_t *ring_ns, uint32_t *baseline_ns)
{
    struct pair pair = {.to_back = -1, .to_front = -1, .page = MAP_FAILED};
    int error = 0;

    if (count == 0 || count % BLOCK)
        return -EINVAL;
    pair.to_back = eventfd(0, EFD_CLOEXEC);
    if (pair.to_back < 0)
        return -errno;
    pair.to_front = eventfd(0, EFD_CLOEXEC);
    if (pair.to_front < 0)
        error = -errno;
    if (!error) {
        pair.page =
            mmap(NULL, XA_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (pair.page == MAP_FAILED)
            error = -errno;
    }
    if (!error)
        error = measure_across(&pair, count, ring_ns, baseline_ns);
    if (pair.page != MAP_FAILED)
        munmap(pair.page, XA_PAGE_SIZE);
    if (pair.to_front >= 0)
        close(pair.to_front);
    close(pair.to_back);
    return error;
}

/* Keeps the compiler from leaving out copies whose result nobody reads. */
static void use(const void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

static double copy_alone(uint8_t *shared, const uint8_t *from, uint8_t *to, uint32_t octets,
                         uint32_t chunks)
{
    uint64_t begin = now_ns();
    uint32_t offset = 0;

    for (uint32_t i = 0; i < chunks; i++) {
        memcpy(shared + offset, from, octets);
        use(shared);
        memcpy(to, shared + offset, octets);
        use(to);
        offset = offset + 2 * octets <= BUFFER ? offset + octets : 0;
    }
    return (double) (now_ns() - begin) / 1e9;
}

static double copy_with_ring(uint8_t *shared, const uint8_t *from, uint8_t *to, uint32_t octets,
                             uint32_t chunks, void *page)
{
    struct xa_front_ring front;
    struct xa_back_ring back;
    uint64_t begin;
    uint32_t offset = 0;

    xa_front_ring_init(&front, page);
    xa_back_ring_attach(&back, page);
    begin = now_ns();
    for (uint32_t i = 0; i < chunks; i++) {
        struct xensnd_req request = {.id = (uint16_t) i, .operation = XENSND_OP_WRITE};
        struct xensnd_resp response = {0};

        memcpy(shared + offset, from, octets);
        request.op.rw.offset = offset;
        request.op.rw.length = octets;
        xa_front_ring_put(&front, &request);
        xa_front_ring_push(&front);
        if (xa_back_ring_get(&back, &request) != 1)
            return -1.0;
        memcpy(to, shared + request.op.rw.offset, request.op.rw.length);
        use(to);
        response.id = request.id;
        xa_back_ring_put(&back, &response);
        xa_back_ring_push(&back);
        if (xa_front_ring_get(&front, &response) != 1)
            return -1.0;
        offset = offset + 2 * octets <= BUFFER ? offset + octets : 0;
    }
    return (double) (now_ns() - begin) / 1e9;
}

int xa_bench_copy(uint32_t chunk_octets, uint32_t chunks, double *ring_s, double *memcpy_s)
{
    uint8_t *memory;

    if (chunk_octets == 0 || chunk_octets > BUFFER)
        return -EINVAL;
    memory = aligned_alloc(XA_PAGE_SIZE, 3 * BUFFER + XA_PAGE_SIZE);
    if (!memory)
        return -ENOMEM;
    memset(memory, 0x55, 3 * BUFFER);
    *memcpy_s = copy_alone(memory, memory + BUFFER, memory + 2 * BUFFER, chunk_octets, chunks);
    *ring_s = copy_with_ring(memory, memory + BUFFER, memory + 2 * BUFFER, chunk_octets, chunks,
                             memory + 3 * BUFFER);
    free(memory);
    return *ring_s < 0 ? -EPROTO : 0;
}
