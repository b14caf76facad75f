/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A card that was found; see detected-card.h. */
#include "config.h"

#include "detected-card.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

#include <pulse/proplist.h>
#include <pulse/xmalloc.h>
#include <pulsecore/core.h>
#include <pulsecore/card.h>
#include <pulsecore/core-util.h>
#include <pulsecore/hashmap.h>
#include <pulsecore/idxset.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>
#include <pulsecore/sink.h>
#include <pulsecore/source.h>
#include <pulsecore/strbuf.h>

#include "card-thread.h"
#include "device-names.h"

/* What a profile has: bits. */
#define OUTPUT 1u
#define INPUT 2u

static const struct {
    const char *name;
    const char *description;
    unsigned directions;
    unsigned priority; /* the highest that there is, is taken at first */
} profiles[] = {
    {"duplex", "Output and Input", OUTPUT | INPUT, 300},
    {"output", "Output", OUTPUT, 200},
    {"input", "Input", INPUT, 100},
    {"off", "Off", 0, 0},
};

/* A card's configuration, as its thread saw it. */
struct configuration {
    char short_name[128];
    char long_name[128];
    unsigned count;
    struct xa_stream_config streams[];
};

struct xa_detected_card {
    const struct xa_detected_common *common;
    unsigned device;
    struct xa_pulse_card *thread;
    struct xa_pulse_client client;
    _Atomic(struct configuration *) newest;
    bool looked; /* the card's thread's, as the next: at the state that it found at first */
    bool tried;  /* to connect */

    pa_card *card; /* NULL: the configuration is not known yet */
    struct configuration *configuration;
    uint32_t modules[XA_CARD_STREAMS]; /* of each of its streams; PA_INVALID_INDEX: none */
};

/* ---- On the card's thread ---- */

static void tell(struct xa_detected_card *card)
{
    struct xa_card *front = xa_pulse_card_frontend(card->thread);
    unsigned most = xa_card_stream_count(front);
    struct configuration *found;

    switch (xa_card_state(front)) {
    case XA_CARD_WAITING:
    case XA_CARD_CONNECTED:
        break;
    case XA_CARD_NEGOTIATING:
        /* Soon it can play: nothing is lost that is played at once. And the main thread does not
         * wait for this one while that makes rings and event channels. */
        card->tried = true;
        return;
    case XA_CARD_CLOSING:
    case XA_CARD_FAILED:
        if (!card->tried) /* of an earlier owner, or the configuration is not good */
            return;
        break;
    default: /* what was known before is not known to be otherwise */
        return;
    }
    found = pa_xmalloc0(sizeof(*found) + most * sizeof(found->streams[0]));
    pa_strlcpy(found->short_name, xa_card_short_name(front), sizeof(found->short_name));
    pa_strlcpy(found->long_name, xa_card_long_name(front), sizeof(found->long_name));
    for (unsigned i = 0; i < most; i++) {
        const struct xa_stream *stream = xa_card_stream(front, i);

        if (xa_stream_is_configured(stream))
            found->streams[found->count++] = *xa_stream_config(stream);
    }
    /* Release: xa_detected_card_update sees what is in it. Acquire: of one that it did not take. */
    found = atomic_exchange_explicit(&card->newest, found, memory_order_acq_rel);
    pa_xfree(found);
    (void) eventfd_write(card->common->wake, 1);
}

static void on_card(struct xa_pulse_client *client)
{
    tell(client->user);
}

static void on_stream(struct xa_pulse_client *client, struct xa_stream *stream,
                      enum xa_stream_event event, int error)
{
    (void) client;
    (void) stream;
    (void) event;
    (void) error;
}

static uint64_t run(struct xa_pulse_client *client, uint64_t now)
{
    struct xa_detected_card *card = client->user;

    (void) now;
    /* A card that others use already has no news. */
    if (!card->looked)
        tell(card);
    card->looked = true;
    return UINT64_MAX;
}

/* ---- On the main thread ---- */

static bool same_pcm_config(const struct xa_pcm_config *a, const struct xa_pcm_config *b)
{
    return a->channels_min == b->channels_min && a->channels_max == b->channels_max &&
           a->rate_count == b->rate_count &&
           memcmp(a->rates, b->rates, a->rate_count * sizeof(a->rates[0])) == 0 &&
           a->formats == b->formats && a->buffer_max == b->buffer_max;
}

static bool same_stream(const struct xa_stream_config *a, const struct xa_stream_config *b)
{
    return a->pcm == b->pcm && a->index == b->index && a->capture == b->capture &&
           pa_streq(a->unique_id, b->unique_id) && pa_streq(a->pcm_name, b->pcm_name) &&
           same_pcm_config(&a->pcm_config, &b->pcm_config);
}

static bool same(const struct configuration *a, const struct configuration *b)
{
    if (a->count != b->count || !pa_streq(a->short_name, b->short_name) ||
        !pa_streq(a->long_name, b->long_name))
        return false;
    for (unsigned i = 0; i < a->count; i++) {
        if (!same_stream(&a->streams[i], &b->streams[i]))
            return false;
    }
    return true;
}

static unsigned count_direction(const struct configuration *configuration, bool capture)
{
    unsigned count = 0;

    for (unsigned i = 0; i < configuration->count; i++)
        count += configuration->streams[i].capture == capture;
    return count;
}

static void put_argument(pa_strbuf *arguments, const char *name, const char *value)
{
    char *escaped;

    if (!value)
        return;
    escaped = pa_escape(value, "\"\\");
    pa_strbuf_printf(arguments, " %s=\"%s\"", name, escaped);
    pa_xfree(escaped);
}

static void load(struct xa_detected_card *card, unsigned index)
{
    const struct xa_stream_config *stream = &card->configuration->streams[index];
    const char *name = stream->capture ? "module-xenpv-source" : "module-xenpv-sink";
    pa_strbuf *text = pa_strbuf_new();
    pa_module *loaded = NULL;
    char *arguments;

    pa_strbuf_printf(text, "device=%u pcm=%u stream=%u", card->device, stream->pcm, stream->index);
    put_argument(text, "card", card->card->name);
    put_argument(text, "latency_msec", card->common->latency);
    put_argument(text, "hypervisor", card->common->hypervisor);
    arguments = pa_strbuf_to_string_free(text);
    if (pa_module_load(&loaded, card->card->core, name, arguments) < 0)
        pa_log_warn("%s: PCM device %u, stream %u is left out: %s could not be loaded, see above",
                    card->card->name, stream->pcm, stream->index, name);
    else
        card->modules[index] = loaded->index;
    pa_xfree(arguments);
}

static bool is_loaded(const struct xa_detected_card *card, unsigned index)
{
    /* Somebody may have unloaded it. */
    return card->modules[index] != PA_INVALID_INDEX &&
           pa_idxset_get_by_index(card->card->core->modules, card->modules[index]);
}

/* Loads and unloads what a profile with these directions asks for. */
static void apply(struct xa_detected_card *card, unsigned directions)
{
    for (unsigned i = 0; i < card->configuration->count; i++) {
        unsigned direction = card->configuration->streams[i].capture ? INPUT : OUTPUT;

        if ((directions & direction) && !is_loaded(card, i))
            load(card, i);
    }
    for (unsigned i = 0; i < card->configuration->count; i++) {
        unsigned direction = card->configuration->streams[i].capture ? INPUT : OUTPUT;

        if (!(directions & direction) && card->modules[i] != PA_INVALID_INDEX) {
            pa_module_unload_by_index(card->card->core, card->modules[i], true);
            card->modules[i] = PA_INVALID_INDEX;
        }
    }
}

static unsigned directions_of(pa_card_profile *profile)
{
    return *(unsigned *) PA_CARD_PROFILE_DATA(profile);
}

static int set_profile(pa_card *card, pa_card_profile *profile)
{
    apply(card->userdata, directions_of(profile));
    return 0;
}

static void add_profiles(pa_hashmap *to, const struct configuration *configuration)
{
    unsigned sinks = count_direction(configuration, false);
    unsigned sources = count_direction(configuration, true);
    unsigned there = (sinks ? OUTPUT : 0) | (sources ? INPUT : 0);

    for (size_t i = 0; i < PA_ELEMENTSOF(profiles); i++) {
        pa_card_profile *profile;

        if (profiles[i].directions & ~there)
            continue;
        profile = pa_card_profile_new(profiles[i].name, profiles[i].description, sizeof(unsigned));
        profile->priority = profiles[i].priority;
        profile->n_sinks = profiles[i].directions & OUTPUT ? sinks : 0;
        profile->n_sources = profiles[i].directions & INPUT ? sources : 0;
        *(unsigned *) PA_CARD_PROFILE_DATA(profile) = profiles[i].directions;
        pa_hashmap_put(to, profile->name, profile);
    }
}

static void describe(pa_proplist *properties, const struct xa_detected_card *card)
{
    const struct configuration *configuration = card->configuration;

    pa_proplist_sets(
        properties, PA_PROP_DEVICE_DESCRIPTION,
        xa_pulse_card_description(configuration->short_name, configuration->long_name));
    pa_proplist_sets(properties, PA_PROP_DEVICE_API, "xenpv");
    pa_proplist_sets(properties, PA_PROP_DEVICE_CLASS, "sound");
    pa_proplist_sets(properties, PA_PROP_DEVICE_BUS, "xen");
    pa_proplist_sets(properties, PA_PROP_DEVICE_ICON_NAME, "audio-card");
    pa_proplist_sets(properties, PA_PROP_DEVICE_FORM_FACTOR, "internal");
    pa_proplist_setf(properties, PA_PROP_DEVICE_STRING, "vsnd %u", card->device);
}

/* Makes PulseAudio's card of the configuration, and what its profile has. */
static void put(struct xa_detected_card *card)
{
    pa_core *core = card->common->module->core;
    char name[PA_NAME_MAX + 1];
    pa_card_new_data data;

    pa_card_new_data_init(&data);
    data.driver = __FILE__;
    data.module = card->common->module;
    xa_pulse_card_name(core, card->device, card->configuration->short_name, name);
    pa_card_new_data_set_name(&data, name);
    describe(data.proplist, card);
    add_profiles(data.profiles, card->configuration);
    card->card = pa_card_new(core, &data);
    pa_card_new_data_done(&data);
    if (!card->card) {
        pa_log_error("vsnd %u: no card called %s can be made", card->device, name);
        return;
    }
    card->card->userdata = card;
    card->card->set_profile = set_profile;
    pa_card_choose_initial_profile(card->card);
    pa_card_put(card->card);
    apply(card, directions_of(card->card->active_profile));
}

/* PulseAudio ends if a card that is freed has sinks or sources: there may be some that somebody
 * loaded for it by hand. */
static void unload_others(pa_card *card)
{
    pa_sink *sink;
    pa_source *source;

    while ((sink = pa_idxset_first(card->sinks, NULL)))
        pa_module_unload(sink->module, true);
    while ((source = pa_idxset_first(card->sources, NULL)))
        pa_module_unload(source->module, true);
}

static void take_away(struct xa_detected_card *card)
{
    if (!card->configuration)
        return;
    if (card->card) {
        apply(card, 0);
        unload_others(card->card);
        pa_card_free(card->card);
        card->card = NULL;
    }
    pa_xfree(card->configuration);
    card->configuration = NULL;
}

struct xa_detected_card *xa_detected_card_new(const struct xa_detected_common *common,
                                              unsigned device)
{
    struct xa_detected_card *card = pa_xnew0(struct xa_detected_card, 1);

    card->common = common;
    card->device = device;
    for (size_t i = 0; i < PA_ELEMENTSOF(card->modules); i++)
        card->modules[i] = PA_INVALID_INDEX;
    card->thread = xa_pulse_card_get(common->module->core, common->hypervisor, device);
    if (!card->thread) {
        pa_xfree(card);
        return NULL;
    }
    card->client.run = run;
    card->client.stream = on_stream;
    card->client.card = on_card;
    card->client.address.pcm = XA_PULSE_NO_STREAM;
    card->client.user = card;
    if (!xa_pulse_card_add(card->thread, &card->client)) {
        xa_pulse_card_put(card->thread);
        pa_xfree(card);
        return NULL;
    }
    return card;
}

void xa_detected_card_free(struct xa_detected_card *card)
{
    if (!card)
        return;
    take_away(card);
    xa_pulse_card_remove(card->thread, &card->client);
    xa_pulse_card_put(card->thread);
    pa_xfree(atomic_load_explicit(&card->newest, memory_order_relaxed));
    pa_xfree(card);
}

void xa_detected_card_update(struct xa_detected_card *card)
{
    /* Acquire: pairs with the exchange in tell. */
    struct configuration *found =
        atomic_exchange_explicit(&card->newest, NULL, memory_order_acquire);

    if (!found)
        return;
    if (card->configuration && same(card->configuration, found)) {
        pa_xfree(found);
        return;
    }
    take_away(card);
    card->configuration = found;
    put(card);
}
