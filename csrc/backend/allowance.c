/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one guest may have the engine do: see allowance.h. */
#include "backend/allowance.h"

#include <stdlib.h>

#define MS UINT64_C(1000000)

/*
 * A stream of 2 ms periods takes 1.5 tokens a millisecond (a request, a wake-up and an event for
 * each period), 8 channels of 32 bits at 192 kHz as many again. From a number of streams on there
 * is no more for more of them: an eighth of a core, about, is what one guest gets.
 */
#define TOKENS_PER_MS 8
#define STREAMS_MOST 8
#define TOKENS_AT_FIRST 1000
#define TOKENS_MOST 4000
#define REST_LEAST (5 * MS)

struct xa_allowance *xa_allowance_join(struct xa_allowance **list, uint16_t domid, uint64_t now)
{
    struct xa_allowance *a = *list;

    while (a && a->domid != domid)
        a = a->next;
    if (!a) {
        a = calloc(1, sizeof(*a));
        if (!a)
            return NULL;
        a->domid = domid;
        a->tokens = TOKENS_AT_FIRST;
        a->refilled_at = now;
        a->next = *list;
        *list = a;
    }
    a->streams++;
    return a;
}

void xa_allowance_leave(struct xa_allowance **list, struct xa_allowance *allowance)
{
    if (!allowance || --allowance->streams)
        return;
    while (*list != allowance)
        list = &(*list)->next;
    *list = allowance->next;
    free(allowance);
}

static uint32_t tokens_per_ms(const struct xa_allowance *a)
{
    return TOKENS_PER_MS * (a->streams < STREAMS_MOST ? a->streams : STREAMS_MOST);
}

static void refill(struct xa_allowance *a, uint64_t now)
{
    uint64_t ms = now > a->refilled_at ? (now - a->refilled_at) / MS : 0;

    a->refilled_at += ms * MS;
    if (ms >= (uint64_t) (TOKENS_MOST - a->tokens) / tokens_per_ms(a) + 1)
        a->tokens = TOKENS_MOST;
    else
        a->tokens += (int64_t) ms * tokens_per_ms(a);
}

/* Long enough for the debt to be paid. */
static void rest(struct xa_allowance *a, uint64_t now)
{
    uint64_t need = ((uint64_t) -a->tokens / tokens_per_ms(a) + 1) * MS;

    a->rest_until = now + (need > REST_LEAST ? need : REST_LEAST);
}

bool xa_allowance_spend(struct xa_allowance *a, uint64_t now, uint32_t tokens)
{
    refill(a, now);
    a->tokens -= tokens;
    if (a->tokens > 0 || a->rest_until)
        return false;
    rest(a, now);
    return true;
}

bool xa_allowance_awake(struct xa_allowance *a, uint64_t now)
{
    if (!a->rest_until)
        return true;
    if (now < a->rest_until)
        return false;
    refill(a, now);
    a->rest_until = 0;
    if (a->tokens <= 0)
        rest(a, now);
    return !a->rest_until;
}

bool xa_allowance_hold(struct xa_allowance *a, uint64_t *held, uint64_t octets)
{
    if (octets > *held && octets - *held > XA_MEMORY_MOST - a->memory)
        return false;
    a->memory = a->memory - *held + octets;
    *held = octets;
    return true;
}
