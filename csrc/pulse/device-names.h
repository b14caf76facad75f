/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What PulseAudio and people call a card, its sinks and its sources. PulseAudio remembers volumes,
 * profiles and defaults by name, so a name is made of what the card's configuration says (short
 * name, name of the PCM device, unique-id) and not of the device's number, which is another one
 * when the card is attached again. What the configuration leaves out is a number. On PulseAudio's
 * main thread.
 */
#ifndef XA_PULSE_DEVICE_NAMES_H
#define XA_PULSE_DEVICE_NAMES_H

#include <stdbool.h>

#include <pulse/proplist.h>
#include <pulsecore/core.h>
#include <pulsecore/namereg.h>

#include "frontend/config.h"

/* A name for the card `device`: "xenpv_card.<card>", with the device's number behind when another
 * one is called so already. */
void xa_pulse_card_name(pa_core *core, unsigned device, const char *short_name,
                        char name[PA_NAME_MAX + 1]);

/* The same for a sink, "xenpv_output.<card>.<PCM device>.<stream>", or source, "xenpv_input...". */
void xa_pulse_stream_name(pa_core *core, unsigned device, const char *short_name,
                          const struct xa_stream_config *config, bool capture,
                          char name[PA_NAME_MAX + 1]);

/* What people read: of the card one of its names, or what it is. */
const char *xa_pulse_card_description(const char *short_name, const char *long_name);

/* Sets the description of a sink or source: the card's, its PCM device's name, and, unless it is
 * `alone` in its PCM device, which one it is. `config` NULL: not known yet. */
void xa_pulse_stream_description(pa_proplist *properties, const char *card,
                                 const struct xa_stream_config *config, bool alone);

#endif
