/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PulseAudio's sample formats, rates and channel maps beside those of the wire: which a stream can
 * have, and which it gets. Pure functions.
 */
#ifndef XA_PULSE_CARD_FORMATS_H
#define XA_PULSE_CARD_FORMATS_H

#include <stdbool.h>
#include <stddef.h>

#include <pulse/channelmap.h>
#include <pulse/sample.h>

#include "frontend/config.h"

/* The wire's code of a format (XENSND_PCM_FORMAT_*), or -1. PulseAudio's s24-32 is the wire's s24;
 * packed 24-bit samples are not on the wire. */
int xa_pulse_wire_format(pa_sample_format_t format);

/* Which of a sample_spec's values were asked for, and which are only a default. */
struct xa_pulse_asked {
    bool format;
    bool rate;
    bool channels;
};

/*
 * Takes a sample_spec to one that the stream can have: what was only a default becomes the nearest
 * that is allowed. `config` NULL: the configuration is not known yet, and only the wire's limits
 * count. False when what was asked for is not allowed; `why` then says what is, for people.
 */
bool xa_pulse_choose_spec(const struct xa_stream_config *config, const struct xa_pulse_asked *asked,
                          pa_sample_spec *spec, char *why, size_t size);

/* ALSA's channel map for 1 to 8 channels; more are numbered. */
void xa_pulse_channel_map(pa_channel_map *map, unsigned channels);

#endif
