/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where an output is in what it was given: see playhead.h. */
#include "backend/playhead.h"

#include "sndif/position.h"

/* Where it would be, had it been given enough. */
static uint64_t reckon(const struct xa_playhead *head, uint64_t now)
{
    if (!head->running || now <= head->at_ns)
        return head->at;
    return head->at + xa_frames_in(now - head->at_ns, head->rate);
}

void xa_playhead_start(struct xa_playhead *head, uint64_t now, uint64_t delay)
{
    head->running = true;
    head->at_ns = now + delay;
}

void xa_playhead_stop(struct xa_playhead *head, uint64_t now, bool hold)
{
    head->at = hold ? xa_playhead_heard(head, now) : head->given;
    head->running = false;
}

void xa_playhead_report(struct xa_playhead *head, uint64_t heard, uint64_t when)
{
    if (!head->running || heard > head->given)
        return;
    head->at = heard;
    head->at_ns = when;
}

uint64_t xa_playhead_heard(const struct xa_playhead *head, uint64_t now)
{
    uint64_t heard = reckon(head, now);

    return heard < head->given ? heard : head->given;
}

uint64_t xa_playhead_dry(const struct xa_playhead *head, uint64_t now)
{
    uint64_t heard = reckon(head, now);

    return heard > head->given ? heard - head->given : 0;
}

void xa_playhead_skip(struct xa_playhead *head, uint64_t frames)
{
    head->at_ns += xa_ns_until(frames, head->rate);
}

uint64_t xa_playhead_when(const struct xa_playhead *head, uint64_t heard)
{
    return heard <= head->at ? head->at_ns
                             : head->at_ns + xa_ns_until(heard - head->at, head->rate);
}
