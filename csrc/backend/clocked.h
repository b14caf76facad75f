/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What outputs and inputs without a clock of their own (file, null) have in common: they go by
 * CLOCK_MONOTONIC (clock.h). Each is a structure that begins with one of these; the functions fit
 * into its xa_output_ops or xa_input_ops.
 */
#ifndef XA_BACKEND_CLOCKED_H
#define XA_BACKEND_CLOCKED_H

#include "backend/clock.h"
#include "backend/endpoint.h"

/* Environment variable, for tests: by how many millionths these clocks are fast, as sound cards'
 * are by a hundred or so. */
#define XA_CLOCK_PPM "XENAUDIO_CLOCK_PPM"

struct xa_clocked_output {
    struct xa_output base;
    struct xa_clock clock;
};

struct xa_clocked_input {
    struct xa_input base;
    struct xa_clock clock;
};

void xa_clocked_output_start(struct xa_output *output, uint64_t now);
void xa_clocked_output_stop(struct xa_output *output, uint64_t now, bool hold);
uint64_t xa_clocked_output_wants(struct xa_output *output, uint64_t now);
/* All that it wants: it stores nothing. */
uint64_t xa_clocked_output_lacks(struct xa_output *output, uint64_t now);
/* 0: what is written is heard at once. */
uint32_t xa_clocked_output_delay(struct xa_output *output, uint64_t now);
uint64_t xa_clocked_output_when(struct xa_output *output, uint64_t frames);
/* NULL. */
const char *xa_clocked_output_trouble(struct xa_output *output);

void xa_clocked_input_start(struct xa_input *input, uint64_t now);
void xa_clocked_input_stop(struct xa_input *input);
uint64_t xa_clocked_input_ready(struct xa_input *input, uint64_t now);
uint64_t xa_clocked_input_when(struct xa_input *input, uint64_t frames);
/* NULL. */
const char *xa_clocked_input_trouble(struct xa_input *input);

#endif
