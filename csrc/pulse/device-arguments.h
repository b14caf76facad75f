/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The arguments that module-xenpv-sink and module-xenpv-source have in common, and the stream of a
 * card that they name. On PulseAudio's main thread.
 */
#ifndef XA_PULSE_DEVICE_ARGUMENTS_H
#define XA_PULSE_DEVICE_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include <pulse/channelmap.h>
#include <pulse/proplist.h>
#include <pulse/sample.h>
#include <pulsecore/core.h>
#include <pulsecore/card.h>
#include <pulsecore/modargs.h>
#include <pulsecore/module.h>
#include <pulsecore/namereg.h>

#include "card-thread.h"

/* For valid_modargs, and for PA_MODULE_USAGE. */
#define XA_PULSE_MODARGS                                                                           \
    "device", "pcm", "stream", "format", "rate", "channels", "channel_map", "latency_msec",        \
        "hypervisor", "card"
#define XA_PULSE_USAGE                                                                             \
    "device=<number of the card, 0 is the first> "                                                 \
    "pcm=<PCM device of the card> "                                                                \
    "stream=<stream of the PCM device> "                                                           \
    "format=<sample format> "                                                                      \
    "rate=<sample rate> "                                                                          \
    "channels=<number of channels> "                                                               \
    "channel_map=<channel map> "                                                                   \
    "latency_msec=<the longest latency> "                                                          \
    "hypervisor=<xen, or the socket of a domain of the stand-in> "                                 \
    "card=<PulseAudio's card that it belongs to, as module-xenpv-detect made it>"

struct xa_pulse_device {
    struct xa_pulse_card *card;
    uint32_t number;
    struct xa_pulse_address address;
    struct xa_pulse_description description;
    pa_sample_spec spec;
    pa_channel_map map;
    uint64_t latency_us;        /* the longest */
    char name[PA_NAME_MAX + 1]; /* if none is given */
    pa_card *profiles;          /* the card whose profiles it belongs to, or NULL */
};

/*
 * Reads a module's arguments: only those of `valid` (NULL-terminated), for pa_modargs_free. NULL,
 * with those that there are in the log, if there is another, or they cannot be read.
 */
pa_modargs *xa_pulse_arguments(pa_module *module, const char *const *valid);

/*
 * Reads a module's arguments (only those of `valid`, for pa_modargs_free), finds what they mean,
 * and takes its card (xa_pulse_card_put gives it back). NULL, with the reason and what helps in the
 * log.
 */
pa_modargs *xa_pulse_device_find(pa_module *module, const char *const *valid, bool capture,
                                 struct xa_pulse_device *device);

/* What the device is, for people and for policies. */
void xa_pulse_device_describe(const struct xa_pulse_device *device, pa_proplist *properties);

#endif
