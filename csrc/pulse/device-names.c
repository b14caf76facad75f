/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of cards, sinks and sources; see device-names.h. */
#include "config.h"

#include "device-names.h"

#include <stdio.h>
#include <string.h>

#include <pulse/xmalloc.h>
#include <pulsecore/core-util.h>
#include <pulsecore/macro.h>

/*
 * Octets of each part of a name. All of them fit into PA_NAME_MAX, with what makes a name one of
 * its own and what PulseAudio appends for a sink's monitor. A unique-id may be a UUID.
 */
#define PART_OCTETS 30
#define ID_OCTETS 36

/* A part of a name, or the number where it is not set. */
static void set_part(char *text, size_t size, const char *given, unsigned number)
{
    if (*given)
        pa_strlcpy(text, given, size);
    else
        snprintf(text, size, "%u", number);
}

static void register_as(pa_core *core, pa_namereg_type_t type, const char *wanted, unsigned device,
                        char name[PA_NAME_MAX + 1])
{
    char *valid = pa_namereg_make_valid_name(wanted);

    pa_strlcpy(name, valid, PA_NAME_MAX + 1);
    pa_xfree(valid);
    if (pa_namereg_get(core, name, type)) {
        size_t used = strlen(name);

        snprintf(name + used, PA_NAME_MAX + 1 - used, ".%u", device);
    }
}

void xa_pulse_card_name(pa_core *core, unsigned device, const char *short_name,
                        char name[PA_NAME_MAX + 1])
{
    char card[PART_OCTETS + 1], wanted[PA_NAME_MAX + 1];

    set_part(card, sizeof(card), short_name, device);
    snprintf(wanted, sizeof(wanted), "xenpv_card.%s", card);
    register_as(core, PA_NAMEREG_CARD, wanted, device, name);
}

void xa_pulse_stream_name(pa_core *core, unsigned device, const char *short_name,
                          const struct xa_stream_config *config, bool capture,
                          char name[PA_NAME_MAX + 1])
{
    char card[PART_OCTETS + 1], pcm[PART_OCTETS + 1], stream[ID_OCTETS + 1];
    char wanted[PA_NAME_MAX + 1];

    set_part(card, sizeof(card), short_name, device);
    set_part(pcm, sizeof(pcm), config->pcm_name, config->pcm);
    set_part(stream, sizeof(stream), config->unique_id, config->index);
    snprintf(wanted, sizeof(wanted), "xenpv_%s.%s.%s.%s", capture ? "input" : "output", card, pcm,
             stream);
    register_as(core, capture ? PA_NAMEREG_SOURCE : PA_NAMEREG_SINK, wanted, device, name);
}

const char *xa_pulse_card_description(const char *short_name, const char *long_name)
{
    if (*long_name)
        return long_name;
    return *short_name ? short_name : "Xen sound card";
}

void xa_pulse_stream_description(pa_proplist *properties, const char *card,
                                 const struct xa_stream_config *config, bool alone)
{
    char text[512];
    int used = snprintf(text, sizeof(text), "%s", card);

    if (config && *config->pcm_name && !pa_streq(config->pcm_name, card))
        used += snprintf(text + used, sizeof(text) - (size_t) used, " %s", config->pcm_name);
    if (config && !alone && *config->unique_id)
        snprintf(text + used, sizeof(text) - (size_t) used, " (%s)", config->unique_id);
    else if (config && !alone)
        snprintf(text + used, sizeof(text) - (size_t) used, " (%u)", config->index);
    pa_proplist_sets(properties, PA_PROP_DEVICE_DESCRIPTION, text);
}
