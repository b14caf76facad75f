/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Outputs and inputs that go by CLOCK_MONOTONIC: see clocked.h. */
#include "backend/clocked.h"

#include <stdlib.h>

static int32_t rate_error(void)
{
    const char *text = getenv(XA_CLOCK_PPM);
    long ppm = text ? strtol(text, NULL, 10) : 0;

    return ppm > -100000 && ppm < 100000 ? (int32_t) ppm : 0;
}

static void start(struct xa_clock *clock, uint64_t now)
{
    clock->ppm = rate_error();
    xa_clock_start(clock, now);
}

void xa_clocked_output_start(struct xa_output *output, uint64_t now)
{
    start(&((struct xa_clocked_output *) output)->clock, now);
}

void xa_clocked_output_stop(struct xa_output *output, uint64_t now, bool hold)
{
    (void) now;
    (void) hold;
    ((struct xa_clocked_output *) output)->clock.running = false;
}

uint64_t xa_clocked_output_wants(struct xa_output *output, uint64_t now)
{
    return xa_clock_due(&((struct xa_clocked_output *) output)->clock, now);
}

uint64_t xa_clocked_output_lacks(struct xa_output *output, uint64_t now)
{
    return xa_clocked_output_wants(output, now);
}

uint32_t xa_clocked_output_delay(struct xa_output *output, uint64_t now)
{
    (void) output;
    (void) now;
    return 0;
}

uint64_t xa_clocked_output_when(struct xa_output *output, uint64_t frames)
{
    return xa_clock_when(&((struct xa_clocked_output *) output)->clock, frames);
}

void xa_clocked_input_start(struct xa_input *input, uint64_t now)
{
    start(&((struct xa_clocked_input *) input)->clock, now);
}

void xa_clocked_input_stop(struct xa_input *input)
{
    ((struct xa_clocked_input *) input)->clock.running = false;
}

uint64_t xa_clocked_input_ready(struct xa_input *input, uint64_t now)
{
    return xa_clock_due(&((struct xa_clocked_input *) input)->clock, now);
}

uint64_t xa_clocked_input_when(struct xa_input *input, uint64_t frames)
{
    return xa_clock_when(&((struct xa_clocked_input *) input)->clock, frames);
}

const char *xa_clocked_output_trouble(struct xa_output *output)
{
    (void) output;
    return NULL;
}

const char *xa_clocked_input_trouble(struct xa_input *input)
{
    (void) input;
    return NULL;
}
