/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A frontend's and a backend's thread on one request ring and one event page. Each sleeps only when
 * arming says that it may, and rings the other's doorbell (an eventfd) only when pushing says that
 * it must: a lost wake-up hangs the test, until an alarm ends it. Under TSan it shows that all
 * shared words are ordered.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "sndif/evtpage.h"
#include "sndif/ring.h"

#define REQUESTS 200000u
#define ALONE 20000u    /* the first so many with one request in flight, which sleeps the most */
#define EVENT_EVERY 16u /* requests */
#define EVENT_PAUSE (EVENT_EVERY * (XA_EVTPAGE_ENTRIES + 30)) /* so the event page gets full */
#define LAST_POSITION (UINT64_C(3) * REQUESTS)
#define HANG_SECONDS 240u

static _Alignas(64) union {
    struct xen_sndif_sring sring;
    uint8_t octets[XA_PAGE_SIZE];
} ring_page;

static _Alignas(64) union {
    struct xensnd_event_page head;
    uint8_t octets[XA_PAGE_SIZE];
} event_page;

/* One thread's side: what it waits on and what it counted. Each field has one writer. */
struct end {
    int bell; /* its peer writes it, after a push */
    unsigned pushes;
    unsigned notified; /* its peer, so often */
    unsigned armed;    /* at most so often did it ask for a doorbell */
    unsigned slept;
    const char *error;
};

static struct end front_end, back_end;
static int event_bell;
static struct xa_evtpage_front front_events;
static unsigned events_sent, events_held;

static void ring_bell(int bell)
{
    uint64_t one = 1;

    if (write(bell, &one, sizeof(one)) != sizeof(one))
        abort();
}

/* Sleeps until one of the bells was rung, and silences them. */
static void sleep_on(struct end *end, const int *bells, nfds_t count)
{
    struct pollfd fds[2];
    uint64_t rung;

    for (nfds_t i = 0; i < count; i++)
        fds[i] = (struct pollfd){.fd = bells[i], .events = POLLIN};
    end->slept++;
    while (poll(fds, count, -1) < 0 && errno == EINTR)
        continue;
    for (nfds_t i = 0; i < count; i++) {
        if (fds[i].revents != 0 && read(bells[i], &rung, sizeof(rung)) < 0 && errno != EAGAIN)
            abort();
    }
}

/* What the words of request `number` and of its response must be. */
static uint32_t word_of(uint32_t number)
{
    return number * 2654435761u;
}

static unsigned burst_of(uint32_t number)
{
    return number < ALONE ? 1 : 1 + word_of(number) % XA_RING_ENTRIES;
}

static const char *front_puts(struct xa_front_ring *ring, uint32_t *put, uint32_t got)
{
    unsigned burst = burst_of(*put);

    if (*put < ALONE && *put != got)
        return NULL;
    for (; burst > 0 && *put < REQUESTS && xa_front_ring_free(ring) > 0; burst--, ++*put) {
        struct xensnd_req req = {.id = (uint16_t) *put, .operation = XENSND_OP_WRITE};

        req.op.rw.offset = *put;
        req.op.rw.length = word_of(*put);
        memset(req.op.reserved + 8, (int) (*put & 0xff), sizeof(req.op.reserved) - 8);
        if (xa_front_ring_put(ring, &req) != 0)
            return "no room for a request that there was room for";
    }
    front_end.pushes++;
    if (xa_front_ring_push(ring)) {
        front_end.notified++;
        ring_bell(back_end.bell);
    }
    return NULL;
}

static const char *front_takes(struct xa_front_ring *ring, uint32_t *got)
{
    struct xensnd_resp resp;
    int result;

    while ((result = xa_front_ring_get(ring, &resp)) == 1) {
        if (resp.id != (uint16_t) *got || resp.status != (int32_t) word_of(*got) ||
            resp.resp.reserved1[55] != (*got & 0xff))
            return "a response is out of order or torn";
        ++*got;
    }
    return result < 0 ? "the frontend says that the ring is broken" : NULL;
}

static const char *front_takes_events(struct xa_evtpage_front *events, uint64_t *position)
{
    struct xensnd_evt evt;
    int result;

    while ((result = xa_evtpage_front_get(events, &evt)) == 1) {
        if (evt.op.cur_pos.position <= *position || evt.op.cur_pos.position > LAST_POSITION)
            return "a position goes back or was never sent";
        *position = evt.op.cur_pos.position;
    }
    return result < 0 ? "an event id is out of step" : NULL;
}

static const char *front_runs(struct xa_front_ring *ring, struct xa_evtpage_front *events)
{
    const int bells[] = {front_end.bell, event_bell};
    const char *error = NULL;
    uint32_t put = 0, got = 0;
    uint32_t look = 0; /* at the events, once so many responses are there */
    uint64_t position = 0;

    while (got < REQUESTS || position < LAST_POSITION) {
        if ((error = front_puts(ring, &put, got)) != NULL ||
            (error = front_takes(ring, &got)) != NULL)
            return error;
        if (got >= look || got == REQUESTS) {
            look = got + EVENT_PAUSE;
            if ((error = front_takes_events(events, &position)) != NULL)
                return error;
        }
        if (put < REQUESTS && (put >= ALONE ? xa_front_ring_free(ring) > 0 : put == got))
            continue;
        if (got == REQUESTS && position == LAST_POSITION)
            break;
        front_end.armed++;
        switch (xa_front_ring_arm(ring)) {
        case 0:
            sleep_on(&front_end, bells, 2);
            break;
        case 1:
            break;
        default:
            return "the frontend says that the ring is broken";
        }
    }
    return NULL;
}

static void *front_thread(void *arg)
{
    front_end.error = front_runs(arg, &front_events);
    if (front_end.error != NULL) {
        fprintf(stderr, "%s\n", front_end.error);
        _exit(1); /* the other thread would wait for ever */
    }
    return NULL;
}

static const char *back_sends(struct xa_evtpage_back *events, int result)
{
    if (result < 0)
        return "the backend says that the event page is broken";
    if (result == 1) {
        events_sent++;
        ring_bell(event_bell);
    } else if (events->held) {
        events_held++;
    }
    return NULL;
}

static const char *back_answers(struct xa_back_ring *ring, struct xa_evtpage_back *events,
                                uint32_t *answered)
{
    struct xensnd_req req;
    int result;

    while ((result = xa_back_ring_get(ring, &req)) == 1) {
        struct xensnd_resp resp = {.id = req.id, .operation = req.operation};
        const char *error = NULL;

        if (req.id != (uint16_t) *answered || req.op.rw.offset != *answered ||
            req.op.rw.length != word_of(*answered) || req.op.reserved[55] != (*answered & 0xff))
            return "a request is out of order or torn";
        resp.status = (int32_t) req.op.rw.length;
        resp.resp.reserved1[55] = req.op.reserved[55];
        if (xa_back_ring_put(ring, &resp) != 0)
            return "no room for a response";
        ++*answered;
        if (*answered % EVENT_EVERY == 0)
            error = back_sends(events, xa_evtpage_back_cur_pos(events, UINT64_C(3) * *answered));
        if (error != NULL)
            return error;
        if (word_of(*answered) % 4 != 0)
            continue; /* some pushes carry several responses */
        back_end.pushes++;
        if (xa_back_ring_push(ring)) {
            back_end.notified++;
            ring_bell(front_end.bell);
        }
    }
    if (result < 0)
        return "the backend says that the ring is broken";
    back_end.pushes++;
    if (xa_back_ring_push(ring)) {
        back_end.notified++;
        ring_bell(front_end.bell);
    }
    return NULL;
}

static const char *back_runs(struct xa_back_ring *ring, struct xa_evtpage_back *events)
{
    uint32_t answered = 0;

    while (answered < REQUESTS) {
        const char *error = back_answers(ring, events, &answered);

        if (error != NULL)
            return error;
        if (answered == REQUESTS)
            break;
        back_end.armed++;
        switch (xa_back_ring_arm(ring)) {
        case 0:
            sleep_on(&back_end, &back_end.bell, 1);
            break;
        case 1:
            break;
        default:
            return "the backend says that the ring is broken";
        }
    }
    /* The frontend tells nobody that it consumed events, so what is held is tried again. */
    while (events->held) {
        const char *error = back_sends(events, xa_evtpage_back_flush(events));

        if (error != NULL)
            return error;
        sched_yield();
    }
    return NULL;
}

static void *back_thread(void *arg)
{
    struct xa_evtpage_back events;

    xa_evtpage_back_attach(&events, &event_page);
    back_end.error = back_runs(arg, &events);
    if (back_end.error != NULL) {
        fprintf(stderr, "%s\n", back_end.error);
        _exit(1);
    }
    return NULL;
}

static int new_bell(void)
{
    int bell = eventfd(0, EFD_NONBLOCK);

    if (bell < 0)
        abort();
    return bell;
}

int main(void)
{
    struct xa_front_ring front_ring;
    struct xa_back_ring back_ring;
    pthread_t front, back;

    alarm(HANG_SECONDS);
    front_end.bell = new_bell();
    back_end.bell = new_bell();
    event_bell = new_bell();
    xa_front_ring_init(&front_ring, &ring_page);
    xa_back_ring_attach(&back_ring, &ring_page);
    xa_evtpage_front_init(&front_events, &event_page);
    if (pthread_create(&back, NULL, back_thread, &back_ring) != 0 ||
        pthread_create(&front, NULL, front_thread, &front_ring) != 0)
        abort();
    pthread_join(front, NULL);
    pthread_join(back, NULL);

    printf("frontend: %u pushes, %u doorbells, slept %u times\n"
           "backend: %u pushes, %u doorbells, slept %u times; %u events, held %u times\n",
           front_end.pushes, front_end.notified, front_end.slept, back_end.pushes,
           back_end.notified, back_end.slept, events_sent, events_held);
    /* An end is notified at most once for each time that it asked: at first, and when it armed. */
    CHECK(front_end.notified <= 1 + back_end.armed);
    CHECK(back_end.notified <= 1 + front_end.armed);
    CHECK(events_sent <= REQUESTS / EVENT_EVERY);
    CHECK(events_sent > 0);
    CHECK(events_held > 0);
    CHECK_EQ(front_ring.rsp_cons, REQUESTS);
    CHECK_EQ(back_ring.rsp_prod_pvt, REQUESTS);
    return check_result();
}
