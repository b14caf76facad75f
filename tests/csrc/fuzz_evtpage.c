/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzes the event page: the backend sends, flushes and discards, the frontend consumes, as the
 * input says. Unless the input allows scribbling on the page, the frontend must see ids without a
 * gap, positions in the order in which they were sent, and the newest one in the end.
 *
 * Input: octet 0, bit 0: scribbling is allowed; octets 1 to 4: where the indices begin; then steps,
 * an octet each (its low 3 bits say what, the others how often), some with data after them.
 */
#include <errno.h>
#include <stdbool.h>

#include "fuzz_input.h"
#include "sndif/evtpage.h"

#define ENTRIES XA_EVTPAGE_ENTRIES

struct state {
    struct xensnd_event_page *page;
    struct xa_evtpage_back back;
    struct xa_evtpage_front front;
    bool honest;
    uint32_t start;
    uint64_t position;       /* the last one given to the backend */
    uint64_t queue[ENTRIES]; /* positions sent and not received yet, by number sent */
    uint32_t sent, received;
};

static void was_sent(struct state *s, int result, bool room)
{
    if (result == 1) {
        INVARIANT(!s->honest || room);
        s->queue[s->sent % ENTRIES] = s->position;
        s->sent++;
        INVARIANT(!s->back.held);
    } else {
        INVARIANT(result == 0 || (result == -EPROTO && !s->honest));
    }
    INVARIANT(s->back.prod == s->start + s->sent);
    INVARIANT(s->back.next_id == (uint16_t) s->sent);
    if (s->honest) {
        INVARIANT(s->sent - s->received <= ENTRIES);
        INVARIANT(s->page->in_prod == s->back.prod);
    }
}

/* Whether a slot is free: the next one must not be that of an unread event. */
static bool has_room(const struct state *s)
{
    for (uint32_t unread = s->received; unread != s->sent; unread++) {
        if ((s->start + unread) % ENTRIES == (s->start + s->sent) % ENTRIES)
            return false;
    }
    return true;
}

static void back_sends(struct state *s, uint32_t step)
{
    bool room = has_room(s);
    int result;

    s->position += 1 + step;
    result = xa_evtpage_back_cur_pos(&s->back, s->position);
    was_sent(s, result, room);
    INVARIANT(result == 1 || (s->back.held && s->back.held_position == s->position));
    /* Only at the wrap may the backend hold an event back although its slot is free. */
    if (s->honest && room && s->back.prod >= 4)
        INVARIANT(result == 1);
}

static void back_flushes(struct state *s)
{
    bool held = s->back.held, room = has_room(s);
    int result = xa_evtpage_back_flush(&s->back);

    INVARIANT(held || result == 0);
    was_sent(s, result, room);
}

static void back_discards(struct state *s)
{
    xa_evtpage_back_discard(&s->back);
    INVARIANT(!s->back.held);
}

static void back_asks(struct state *s)
{
    int result = xa_evtpage_back_drained(&s->back);

    INVARIANT(result == 0 || result == 1 || (result == -EPROTO && !s->honest));
    INVARIANT(!s->honest || result == (s->sent == s->received));
}

static void front_gets(struct state *s)
{
    struct xensnd_evt evt;
    int result = xa_evtpage_front_get(&s->front, &evt);

    if (result == 1) {
        INVARIANT(evt.id == (uint16_t) s->received);
        if (s->honest) {
            INVARIANT(s->received != s->sent);
            INVARIANT(evt.type == XENSND_EVT_CUR_POS);
            INVARIANT(evt.op.cur_pos.position == s->queue[s->received % ENTRIES]);
        }
        s->received++;
    } else {
        INVARIANT(result == 0 || (result == -EPROTO && !s->honest));
        INVARIANT(!s->honest || s->received == s->sent);
    }
    INVARIANT(s->front.cons == s->start + s->received);
    INVARIANT(s->front.next_id == (uint16_t) s->received);
}

/* Sets a word of the page, or moves it by a little. */
static void scribble(struct state *s, struct fuzz_input *input, bool relative)
{
    uint32_t *words = (uint32_t *) s->page;
    uint8_t where = fuzz_u8(input);
    uint32_t *word = where < 128 ? &words[where % 2] : &words[(where * 37u) % 1024];

    if (relative)
        *word += (uint32_t) (int8_t) fuzz_u8(input);
    else
        *word = fuzz_u32(input);
}

static void take_step(struct state *s, struct fuzz_input *input, unsigned what)
{
    switch (what) {
    case 0:
        back_sends(s, fuzz_u8(input));
        break;
    case 1:
        back_sends(s, 0);
        break;
    case 2:
        back_flushes(s);
        break;
    case 3:
        back_discards(s);
        break;
    case 4:
        back_asks(s);
        break;
    case 5:
        front_gets(s);
        break;
    default:
        if (!s->honest)
            scribble(s, input, what == 7);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) uint32_t page[XA_PAGE_SIZE / sizeof(uint32_t)];
    struct fuzz_input input = {data, size};
    struct state s = {0};

    s.honest = (fuzz_u8(&input) & 1) == 0;
    s.start = fuzz_u32(&input);
    xa_evtpage_front_init(&s.front, page);
    xa_evtpage_back_attach(&s.back, page);
    s.page = s.front.page;
    s.page->in_prod = s.page->in_cons = s.start;
    s.front.cons = s.back.prod = s.start;

    while (input.left > 0) {
        uint8_t step = fuzz_u8(&input);

        for (unsigned i = 0; i <= step >> 3; i++)
            take_step(&s, &input, step & 7);
    }
    if (s.honest) { /* the newest position arrives once the frontend has consumed the rest */
        bool held = s.back.held;

        while (s.received != s.sent)
            front_gets(&s);
        back_flushes(&s);
        INVARIANT(!s.back.held);
        if (held) {
            INVARIANT(s.received + 1 == s.sent);
            front_gets(&s);
            INVARIANT(s.queue[(s.received - 1) % ENTRIES] == s.position);
        }
    }
    return 0;
}
