/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The null output and input: nowhere and silence, at the pace of a clock. */
#include <errno.h>
#include <stdlib.h>

#include "backend/clocked.h"

struct null_input {
    struct xa_clocked_input clocked;
    const struct xa_format *format;
    uint32_t frame_octets;
};

static void output_write(struct xa_output *output, const void *frames, uint32_t count)
{
    (void) frames;
    ((struct xa_clocked_output *) output)->clock.passed += count;
}

static void output_silence(struct xa_output *output, uint32_t count)
{
    output_write(output, NULL, count);
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
    .start = xa_clocked_output_start,
    .stop = xa_clocked_output_stop,
    .wants = xa_clocked_output_wants,
    .lacks = xa_clocked_output_lacks,
    .write = output_write,
    .silence = output_silence,
    .delay = xa_clocked_output_delay,
    .when = xa_clocked_output_when,
    .lost = output_lost,
    .trouble = xa_clocked_output_trouble,
    .close = output_close,
};

int xa_output_null_open(const struct xa_pcm_params *params, struct xa_output **output)
{
    struct xa_clocked_output *null = calloc(1, sizeof(*null));

    if (!null)
        return -ENOMEM;
    null->base.ops = &output_ops;
    null->clock.rate = params->rate;
    *output = &null->base;
    return 0;
}

static void input_read(struct xa_input *input, void *frames, uint32_t count)
{
    struct null_input *null = (struct null_input *) input;

    xa_format_silence(null->format, frames, (size_t) count * null->frame_octets);
    null->clocked.clock.passed += count;
}

static void input_close(struct xa_input *input)
{
    free(input);
}

static const struct xa_input_ops input_ops = {
    .start = xa_clocked_input_start,
    .stop = xa_clocked_input_stop,
    .ready = xa_clocked_input_ready,
    .read = input_read,
    .when = xa_clocked_input_when,
    .trouble = xa_clocked_input_trouble,
    .close = input_close,
};

int xa_input_null_open(const struct xa_pcm_params *params, struct xa_input **input)
{
    struct null_input *null = calloc(1, sizeof(*null));

    if (!null)
        return -ENOMEM;
    null->clocked.base.ops = &input_ops;
    null->clocked.clock.rate = params->rate;
    null->format = params->format;
    null->frame_octets = params->frame_octets;
    *input = &null->clocked.base;
    return 0;
}
