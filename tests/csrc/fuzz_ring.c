/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzes the request ring: both ends take steps as the input says. An input also says who may
 * scribble on the page: nobody, then both ends must behave as a queue does, to the last
 * notification; or somebody, then each end must keep its own bounds.
 *
 * Input: octet 0, bit 0: scribbling is allowed; octets 1 to 4: where the indices begin; then steps,
 * an octet each (its low 4 bits say what, its high 4 bits how often), some with data after them.
 */
#include <errno.h>
#include <stdbool.h>

#include "fuzz_input.h"
#include "sndif/ring.h"

#define ENTRIES XA_RING_ENTRIES

struct state {
    struct xen_sndif_sring *sring;
    struct xa_front_ring front;
    struct xa_back_ring back;
    bool honest;
    uint32_t start;
    /* Counted since the start: */
    uint32_t put, pushed, taken, answered, answers_pushed, received;
    /* Whether an end asked for an event and got none since. */
    bool front_armed, back_armed;
};

static uint32_t word_of(uint32_t number)
{
    return number * 2654435761u;
}

static void front_puts(struct state *s)
{
    struct xensnd_req req = {.id = (uint16_t) s->put, .operation = (uint8_t) s->put};
    uint32_t free = xa_front_ring_free(&s->front);

    INVARIANT(free == ENTRIES - (s->put - s->received));
    memset(&req.op, (int) (s->put & 0xff), sizeof(req.op));
    req.op.rw.offset = word_of(s->put);
    if (xa_front_ring_put(&s->front, &req) == 0) {
        INVARIANT(free > 0);
        s->put++;
    } else {
        INVARIANT(free == 0);
    }
    INVARIANT(s->put - s->received <= ENTRIES);
}

static void front_pushes(struct state *s)
{
    bool notify = xa_front_ring_push(&s->front);

    INVARIANT(s->sring->req_prod == s->start + s->put);
    if (s->honest) {
        INVARIANT(notify == (s->back_armed && s->put != s->pushed));
    }
    if (s->put != s->pushed)
        s->back_armed = false;
    s->pushed = s->put;
}

static void front_gets(struct state *s)
{
    struct xensnd_resp resp;
    int result = xa_front_ring_get(&s->front, &resp);

    if (result == 1) {
        INVARIANT(s->received != s->pushed); /* never more responses than requests */
        if (s->honest) {
            INVARIANT(s->received != s->answers_pushed);
            INVARIANT(resp.id == (uint16_t) s->received);
            INVARIANT(resp.status == (int32_t) word_of(s->received));
            INVARIANT(resp.resp.reserved1[55] == (s->received & 0xff));
        }
        s->received++;
    } else {
        INVARIANT(result == 0 || (result == -EPROTO && !s->honest));
        INVARIANT(!s->honest || s->received == s->answers_pushed);
    }
    INVARIANT(s->front.rsp_cons == s->start + s->received);
}

static void front_arms(struct state *s)
{
    int result = xa_front_ring_arm(&s->front);

    INVARIANT(result == 0 || result == 1 || result == -EPROTO);
    if (s->honest)
        INVARIANT(result == (s->received != s->answers_pushed));
    if (result == 0)
        s->front_armed = true;
}

static void back_gets(struct state *s)
{
    struct xensnd_req req;
    int result = xa_back_ring_get(&s->back, &req);

    if (result == 1) {
        if (s->honest) {
            INVARIANT(s->taken != s->pushed);
            INVARIANT(req.id == (uint16_t) s->taken);
            INVARIANT(req.operation == (uint8_t) s->taken);
            INVARIANT(req.op.rw.offset == word_of(s->taken));
            INVARIANT(req.op.reserved[55] == (s->taken & 0xff));
        }
        s->taken++;
    } else {
        INVARIANT(result == 0 || (result == -EPROTO && !s->honest));
        INVARIANT(!s->honest || s->taken == s->pushed);
    }
    INVARIANT(s->taken - s->answered <= ENTRIES); /* never more without an answer */
    INVARIANT(s->back.req_cons == s->start + s->taken);
}

static void back_puts(struct state *s)
{
    struct xensnd_resp resp = {.id = (uint16_t) s->answered};

    resp.status = (int32_t) word_of(s->answered);
    resp.resp.reserved1[55] = (uint8_t) s->answered;
    if (xa_back_ring_put(&s->back, &resp) == 0) {
        INVARIANT(s->answered != s->taken);
        s->answered++;
    } else {
        INVARIANT(s->answered == s->taken);
    }
}

static void back_pushes(struct state *s)
{
    bool notify = xa_back_ring_push(&s->back);

    INVARIANT(s->sring->rsp_prod == s->start + s->answered);
    if (s->honest) {
        INVARIANT(notify == (s->front_armed && s->answered != s->answers_pushed));
    }
    if (s->answered != s->answers_pushed)
        s->front_armed = false;
    s->answers_pushed = s->answered;
}

static void back_arms(struct state *s)
{
    int result = xa_back_ring_arm(&s->back);

    INVARIANT(result == 0 || result == 1 || result == -EPROTO);
    if (s->honest)
        INVARIANT(result == (s->taken != s->pushed));
    if (result == 0)
        s->back_armed = true;
}

/* Sets a word of the page, or moves it by a little. */
static void scribble(struct state *s, struct fuzz_input *input, bool relative)
{
    uint32_t *words = (uint32_t *) s->sring;
    uint8_t where = fuzz_u8(input);
    uint32_t *word = where < 128 ? &words[where % 4] : &words[(where * 37u) % 1024];

    if (relative)
        *word += (uint32_t) (int8_t) fuzz_u8(input);
    else
        *word = fuzz_u32(input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) uint32_t page[XA_PAGE_SIZE / sizeof(uint32_t)];
    struct fuzz_input input = {data, size};
    struct state s = {.front_armed = true, .back_armed = true};

    s.honest = (fuzz_u8(&input) & 1) == 0;
    s.start = fuzz_u32(&input);
    xa_front_ring_init(&s.front, page);
    xa_back_ring_attach(&s.back, page);
    s.sring = s.front.sring;
    s.sring->req_prod = s.sring->rsp_prod = s.start;
    s.sring->req_event = s.sring->rsp_event = s.start + 1;
    s.front.req_prod_pvt = s.front.req_pushed = s.front.rsp_cons = s.start;
    s.back.req_cons = s.back.rsp_prod_pvt = s.back.rsp_pushed = s.start;

    while (input.left > 0) {
        static void (*const steps[])(struct state *) = {
            front_puts, front_pushes, front_gets,  front_arms,
            back_gets,  back_puts,    back_pushes, back_arms,
        };
        uint8_t step = fuzz_u8(&input);

        for (unsigned i = 0; i <= step >> 4; i++) {
            if ((step & 15) < 8)
                steps[step & 15](&s);
            else if (!s.honest)
                scribble(&s, &input, (step & 1) != 0);
        }
    }
    return 0;
}
