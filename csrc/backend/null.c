/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The null output and input: nowhere and silence, at the pace of a clock. */
#include <errno.h>
#include <stdlib.h>

#include "backend/clock.h"
#include "backend/endpoint.h"

struct null_output {
    struct xa_output base;
    struct xa_clock clock;
};

struct null_input {
    struct xa_input base;
    struct xa_clock clock;
    const struct xa_format *format;
    uint32_t frame_octets;
};

static void output_start(struct xa_output *output, uint64_t now)
{
    xa_clock_start(&((struct null_output *) output)->clock, now);
}

static void output_stop(struct xa_output *output)
{
    ((struct null_output *) output)->clock.running = false;
}

static uint64_t output_wants(struct xa_output *output, uint64_t now)
{
    return xa_clock_due(&((struct null_output *) output)->clock, now);
}

static void output_write(struct xa_output *output, const void *frames, uint32_t count)
{
    (void) frames;
    ((struct null_output *) output)->clock.passed += count;
}

static void output_silence(struct xa_output *output, uint32_t count)
{
    ((struct null_output *) output)->clock.passed += count;
}

static uint32_t output_delay(struct xa_output *output, uint64_t now)
{
    (void) output;
    (void) now;
    return 0;
}

static uint64_t output_when(struct xa_output *output, uint64_t frames)
{
    return xa_clock_when(&((struct null_output *) output)->clock, frames);
}

static uint64_t output_lost(struct xa_output *output)
{
    (void) output;
    return 0;
}

static void output_close(struct xa_output *output)
{
    free(output);
}

static const struct xa_output_ops output_ops = {
    .start = output_start,
    .stop = output_stop,
    .wants = output_wants,
    .write = output_write,
    .silence = output_silence,
    .delay = output_delay,
    .when = output_when,
    .lost = output_lost,
    .close = output_close,
};

int xa_output_null_open(const struct xa_pcm_params *params, struct xa_output **output)
{
    struct null_output *null = calloc(1, sizeof(*null));

    if (!null)
        return -ENOMEM;
    null->base.ops = &output_ops;
    null->clock.rate = params->rate;
    *output = &null->base;
    return 0;
}

static void input_start(struct xa_input *input, uint64_t now)
{
    xa_clock_start(&((struct null_input *) input)->clock, now);
}

static void input_stop(struct xa_input *input)
{
    ((struct null_input *) input)->clock.running = false;
}

static uint64_t input_ready(struct xa_input *input, uint64_t now)
{
    return xa_clock_due(&((struct null_input *) input)->clock, now);
}

static void input_read(struct xa_input *input, void *frames, uint32_t count)
{
    struct null_input *null = (struct null_input *) input;

    xa_format_silence(null->format, frames, (size_t) count * null->frame_octets);
    null->clock.passed += count;
}

static uint64_t input_when(struct xa_input *input, uint64_t frames)
{
    return xa_clock_when(&((struct null_input *) input)->clock, frames);
}

static void input_close(struct xa_input *input)
{
    free(input);
}

static const struct xa_input_ops input_ops = {
    .start = input_start,
    .stop = input_stop,
    .ready = input_ready,
    .read = input_read,
    .when = input_when,
    .close = input_close,
};

int xa_input_null_open(const struct xa_pcm_params *params, struct xa_input **input)
{
    struct null_input *null = calloc(1, sizeof(*null));

    if (!null)
        return -ENOMEM;
    null->base.ops = &input_ops;
    null->clock.rate = params->rate;
    null->format = params->format;
    null->frame_octets = params->frame_octets;
    *input = &null->base;
    return 0;
}
