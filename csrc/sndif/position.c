/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arithmetic of stream positions and of time (position.h). Products are kept small by dividing
 * first and scaling the quotient and the remainder separately, which is exact.
 */
#include "position.h"

#define NS_PER_S 1000000000u

uint64_t xa_frames_in(uint64_t ns, uint32_t rate)
{
    return ns / NS_PER_S * rate + ns % NS_PER_S * rate / NS_PER_S;
}

uint64_t xa_ns_until(uint64_t frames, uint32_t rate)
{
    uint64_t part = frames % rate * NS_PER_S;

    return frames / rate * NS_PER_S + part / rate + (part % rate != 0);
}

uint64_t xa_position_next_event(uint64_t position, uint32_t period, uint32_t frame)
{
    uint64_t periods = position < frame ? 0 : (position - frame) / period;

    return (periods + 1) * period + frame;
}

uint64_t xa_position_heard(uint64_t consumed, uint64_t delay, uint32_t buffer, uint32_t period,
                           bool *clamped)
{
    uint64_t two_periods = 2 * (uint64_t) period;
    uint64_t limit = buffer > two_periods ? buffer - two_periods : 0;
    uint64_t lag = delay < consumed ? delay : consumed;

    *clamped = lag > limit;
    return consumed - (*clamped ? limit : lag);
}

uint32_t xa_position_room(uint64_t written, uint64_t position, uint32_t buffer)
{
    uint64_t unheard = written > position ? written - position : 0;

    return unheard < buffer ? (uint32_t) (buffer - unheard) : 0;
}

bool xa_position_plausible(uint64_t position, uint64_t previous, uint64_t written, uint32_t beyond)
{
    return position >= previous && (position <= written || position - written <= beyond);
}
