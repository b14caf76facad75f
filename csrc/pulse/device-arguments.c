/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Arguments, and what they name; see device-arguments.h. */
#include "config.h"

#include "device-arguments.h"

#include <errno.h>
#include <string.h>

#include <pulse/timeval.h>
#include <pulsecore/core-util.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>

#include "card-formats.h"
#include "device-names.h"
#include "stream-open.h"

/* An argument's text, for a message: "(default)" if it is not there. */
static const char *said_of(pa_modargs *arguments, const char *name)
{
    return pa_modargs_get_value(arguments, name, "(default)");
}

static int read_address(pa_modargs *arguments, struct xa_pulse_device *device)
{
    static const char *const names[] = {"pcm", "stream"};
    int *const values[] = {&device->address.pcm, &device->address.stream};

    if (pa_modargs_get_value_u32(arguments, "device", &device->number) < 0 ||
        device->number > 65535) {
        pa_log_error("device= wants the number of a card: 0 to 65535, not %s",
                     said_of(arguments, "device"));
        return -1;
    }
    for (size_t i = 0; i < PA_ELEMENTSOF(names); i++) {
        uint32_t number = 0;

        *values[i] = -1;
        if (!pa_modargs_get_value(arguments, names[i], NULL))
            continue;
        if (pa_modargs_get_value_u32(arguments, names[i], &number) < 0 || number > 255) {
            pa_log_error("%s= wants a number: 0 to 255, not %s", names[i],
                         said_of(arguments, names[i]));
            return -1;
        }
        *values[i] = (int) number;
    }
    return 0;
}

/* Whether there may well be such a card, but there is nobody now to ask. */
static bool is_unknown(const struct xa_pulse_description *description)
{
    if (description->state == XA_CARD_STARTING)
        return true;
    if (description->state != XA_CARD_ABSENT)
        return false;
    switch (-description->error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EPROTO:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

/* Takes what is known of the card: whether there is such a stream. */
static int check_description(struct xa_pulse_device *device)
{
    const struct xa_pulse_description *description = &device->description;

    if (is_unknown(description)) {
        pa_log_info("card %u: it goes by the clock until the store answers: %s", device->number,
                    *description->reason ? description->reason : "it does not yet");
        return 0;
    }
    switch (description->state) {
    case XA_CARD_ABSENT:
    case XA_CARD_FAILED:
        pa_log_error("no card %u: %s. Cards are given to this guest with vsnd= in its xl"
                     " configuration, or with xl vsnd-attach",
                     device->number, description->reason);
        return -1;
    default:
        break;
    }
    if (!description->found) {
        pa_log_error("card %u has no stream to %s that fits pcm=%d stream=%d (-1: any)",
                     device->number, device->address.capture ? "record (type=c)" : "play (type=p)",
                     device->address.pcm, device->address.stream);
        return -1;
    }
    device->address.pcm = description->config.pcm;
    device->address.stream = description->config.index;
    return 0;
}

/* The sample_spec and channel map as they are asked for. */
static int read_spec(pa_modargs *arguments, pa_sample_spec *spec, pa_channel_map *map)
{
    const char *wanted = pa_modargs_get_value(arguments, "channel_map", NULL);

    if (pa_modargs_get_sample_spec(arguments, spec) < 0) {
        pa_log_error("format=%s rate=%s channels=%s: one of these is not one that PulseAudio knows",
                     said_of(arguments, "format"), said_of(arguments, "rate"),
                     said_of(arguments, "channels"));
        return -1;
    }
    if (!wanted)
        return 0;
    if (!pa_channel_map_parse(map, wanted)) {
        pa_log_error("channel_map=%s is not one that PulseAudio knows", wanted);
        return -1;
    }
    if (pa_modargs_get_value(arguments, "channels", NULL) && map->channels != spec->channels) {
        pa_log_error("channel_map= has %u channels, channels= says %u", map->channels,
                     spec->channels);
        return -1;
    }
    spec->channels = map->channels;
    return 0;
}

static int choose_spec(pa_modargs *arguments, struct xa_pulse_device *device)
{
    const struct xa_pulse_description *description = &device->description;
    bool mapped = pa_modargs_get_value(arguments, "channel_map", NULL) != NULL;
    struct xa_pulse_asked asked = {
        .format = pa_modargs_get_value(arguments, "format", NULL) != NULL,
        .rate = pa_modargs_get_value(arguments, "rate", NULL) != NULL,
        .channels = mapped || pa_modargs_get_value(arguments, "channels", NULL),
    };
    char why[256];

    if (read_spec(arguments, &device->spec, &device->map) < 0)
        return -1;
    if (!xa_pulse_choose_spec(description->found ? &description->config : NULL, &asked,
                              &device->spec, why, sizeof(why))) {
        pa_log_error("%s", why);
        return -1;
    }
    if (!mapped)
        xa_pulse_channel_map(&device->map, device->spec.channels);
    return 0;
}

static int read_latency(pa_modargs *arguments, struct xa_pulse_device *device)
{
    uint32_t msec = (uint32_t) (XA_PULSE_LATENCY_DEFAULT / PA_USEC_PER_MSEC);

    if (pa_modargs_get_value_u32(arguments, "latency_msec", &msec) < 0 ||
        msec < XA_PULSE_LATENCY_MIN / PA_USEC_PER_MSEC ||
        msec > XA_PULSE_LATENCY_MAX / PA_USEC_PER_MSEC) {
        pa_log_error("latency_msec= wants milliseconds: 2 to 2000, not %s",
                     said_of(arguments, "latency_msec"));
        return -1;
    }
    device->latency_us = msec * PA_USEC_PER_MSEC;
    if (device->description.found)
        device->latency_us =
            xa_pulse_latency_most(&device->description.config, &device->spec, device->latency_us);
    return 0;
}

static int read_card(pa_core *core, pa_modargs *arguments, struct xa_pulse_device *device)
{
    const char *name = pa_modargs_get_value(arguments, "card", NULL);

    if (!name)
        return 0;
    device->profiles = pa_namereg_get(core, name, PA_NAMEREG_CARD);
    if (!device->profiles) {
        pa_log_error(
            "card= wants the name of a card that there is (pactl list short cards), not %s", name);
        return -1;
    }
    return 0;
}

static int find(pa_core *core, pa_modargs *arguments, bool capture, struct xa_pulse_device *device)
{
    memset(device, 0, sizeof(*device));
    device->address.capture = capture;
    device->spec = core->default_sample_spec;
    if (read_address(arguments, device) < 0 || read_card(core, arguments, device) < 0)
        return -1;
    device->card = xa_pulse_card_get(core, pa_modargs_get_value(arguments, "hypervisor", NULL),
                                     device->number);
    if (!device->card)
        return -1;
    xa_pulse_card_describe(device->card, &device->address, &device->description);
    if (check_description(device) < 0 || choose_spec(arguments, device) < 0 ||
        read_latency(arguments, device) < 0) {
        xa_pulse_card_put(device->card);
        device->card = NULL;
        return -1;
    }
    if (!device->description.found) {
        device->description.config.pcm = (uint8_t) PA_MAX(device->address.pcm, 0);
        device->description.config.index = (uint8_t) PA_MAX(device->address.stream, 0);
    }
    xa_pulse_stream_name(core, device->number, device->description.short_name,
                         &device->description.config, capture, device->name);
    return 0;
}

pa_modargs *xa_pulse_arguments(pa_module *module, const char *const *valid)
{
    pa_modargs *arguments = pa_modargs_new(module->argument, valid);
    char all[512];
    size_t length = 0;

    if (arguments)
        return arguments;
    all[0] = 0;
    for (; *valid; valid++)
        length += pa_snprintf(all + length, sizeof(all) - length, " %s=", *valid);
    pa_log_error("an argument is not one of this module's: %s (it takes%s)", module->argument, all);
    return NULL;
}

pa_modargs *xa_pulse_device_find(pa_module *module, const char *const *valid, bool capture,
                                 struct xa_pulse_device *device)
{
    pa_modargs *arguments = xa_pulse_arguments(module, valid);

    if (!arguments)
        return NULL;
    if (find(module->core, arguments, capture, device) == 0)
        return arguments;
    pa_modargs_free(arguments);
    return NULL;
}

void xa_pulse_device_describe(const struct xa_pulse_device *device, pa_proplist *properties)
{
    const struct xa_pulse_description *description = &device->description;
    const struct xa_stream_config *config = &description->config;
    const char *card = xa_pulse_card_description(description->short_name, description->long_name);
    bool capture = device->address.capture;

    pa_proplist_sets(properties, PA_PROP_DEVICE_API, "xenpv");
    pa_proplist_sets(properties, PA_PROP_DEVICE_CLASS, "sound");
    pa_proplist_sets(properties, PA_PROP_DEVICE_BUS, "xen");
    pa_proplist_sets(properties, PA_PROP_DEVICE_ICON_NAME,
                     capture ? "audio-input-microphone" : "audio-card");
    pa_proplist_sets(properties, PA_PROP_DEVICE_FORM_FACTOR, capture ? "microphone" : "internal");
    pa_proplist_setf(properties, PA_PROP_DEVICE_STRING, "vsnd %u%s%s", device->number,
                     *config->unique_id ? " " : "", config->unique_id);
    xa_pulse_stream_description(properties, card, description->found ? config : NULL,
                                description->alone);
}
