/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The layout check's part on what the daemon has of its own: core, modules and cards. */
#include "config.h"

#include <string.h>

#include <pulse/xmalloc.h>
#include <pulsecore/core.h>
#include <pulsecore/card.h>
#include <pulsecore/hashmap.h>
#include <pulsecore/idxset.h>
#include <pulsecore/modargs.h>
#include <pulsecore/module.h>
#include <pulsecore/msgobject.h>
#include <pulsecore/namereg.h>

#include "layout.h"

static pa_object *freed;

static void free_object(pa_object *object)
{
    freed = object;
    pa_xfree(object);
}

static void check_object(void)
{
    /* One octet more, as of a type of our own. */
    pa_object *object = (pa_object *) pa_msgobject_new_internal(sizeof(pa_msgobject) + 1,
                                                                pa_msgobject_type_id, NULL);

    object->free = free_object;
    pa_object_unref(object);
    XA_MEMBER(pa_object, free, freed == object);
}

void xa_layout_check_core(pa_core *core, pa_mainloop_api *mainloop)
{
    pa_sink *sink = pa_namereg_get(core, NULL, PA_NAMEREG_SINK);
    pa_source *source = pa_namereg_get(core, NULL, PA_NAMEREG_SOURCE);

    check_object();
    XA_MEMBER(pa_core, mainloop, core->mainloop == mainloop);
    XA_MEMBER(pa_core, modules, xa_layout_allocated(core->modules) != 0);
    XA_MEMBER(pa_core, sinks, xa_layout_allocated(core->sinks) != 0);
    XA_MEMBER(pa_core, sources, xa_layout_allocated(core->sources) != 0);
    XA_MEMBER(pa_core, clients, xa_layout_allocated(core->clients) != 0);
    XA_MEMBER(pa_core, cards, xa_layout_allocated(core->cards) != 0);
    XA_MEMBER(pa_core, mempool, xa_layout_allocated(core->mempool) != 0);
    XA_MEMBER(pa_core, shared, xa_layout_allocated(core->shared) != 0);
    XA_MEMBER(pa_core, default_sink, core->default_sink == sink);
    XA_MEMBER(pa_core, default_source, core->default_source == source);
    XA_MEMBER(pa_core, default_sample_spec, pa_sample_spec_valid(&core->default_sample_spec));
    XA_MEMBER(pa_core, default_channel_map,
              pa_channel_map_compatible(&core->default_channel_map, &core->default_sample_spec));
    XA_MEMBER(pa_core, realtime_priority,
              core->realtime_priority > 0 && core->realtime_priority < 100);
    XA_MEANING("pa_core.realtime_scheduling", !core->realtime_scheduling);
    for (int i = 0; i < PA_CORE_HOOK_MAX; i++) {
        XA_MEMBER(pa_core, hooks, core->hooks[i].data == core);
    }
}

void xa_layout_check_module(pa_core *core, pa_module *module, const char *name,
                            const char *argument)
{
    XA_MEMBER(pa_module, core, module->core == core);
    XA_MEMBER(pa_module, name, strcmp(module->name, name) == 0);
    XA_MEMBER(pa_module, argument, strcmp(module->argument, argument) == 0);
    XA_MEMBER(pa_module, index, pa_idxset_get_by_index(core->modules, module->index) == module);
    XA_MEMBER(pa_module, userdata, xa_layout_allocated(module->userdata) != 0);
    XA_MEMBER(pa_module, proplist,
              pa_proplist_contains(module->proplist, PA_PROP_MODULE_VERSION) == 1);
}

static pa_card *asked_card;
static pa_card_profile *asked_profile;

static int set_profile(pa_card *card, pa_card_profile *profile)
{
    asked_card = card;
    asked_profile = profile;
    return 0;
}

static pa_hook_result_t on_put(void *core, void *object, void *slot_data)
{
    (void) core;
    *(void **) slot_data = object;
    return PA_HOOK_OK;
}

void xa_layout_check_card(pa_core *core, pa_module *module)
{
    pa_card_new_data *data = pa_card_new_data_init(xa_layout_room());
    pa_card_profile *preferred = pa_card_profile_new("preferred", "Preferred", sizeof(int));
    pa_card_profile *other = pa_card_profile_new("other", "Other", sizeof(int));
    pa_card *card, *put = NULL;
    pa_hook_slot *slot;

    XA_MEMBER(pa_card_profile, name, strcmp(preferred->name, "preferred") == 0);
    XA_MEMBER(pa_card_profile, description, strcmp(preferred->description, "Preferred") == 0);
    preferred->priority = 2;
    other->priority = 1;
    preferred->available = other->available = PA_AVAILABLE_YES;

    pa_card_new_data_set_name(data, "xenaudio_layout_card");
    XA_MEMBER(pa_card_new_data, name, strcmp(data->name, "xenaudio_layout_card") == 0);
    XA_MEMBER(pa_card_new_data, proplist, xa_layout_allocated(data->proplist) != 0);
    XA_MEMBER(pa_card_new_data, profiles, xa_layout_allocated(data->profiles) != 0);
    data->driver = "xenaudio";
    data->module = module;
    pa_proplist_sets(data->proplist, "xenaudio.layout", "card");
    pa_hashmap_put(data->profiles, preferred->name, preferred);
    pa_hashmap_put(data->profiles, other->name, other);
    card = pa_card_new(core, data);
    pa_card_new_data_done(data);

    XA_MEMBER(pa_card, core, card->core == core);
    XA_MEMBER(pa_card, name, strcmp(card->name, "xenaudio_layout_card") == 0);
    XA_MEMBER(pa_card, module, card->module == module);
    XA_MEMBER(pa_card, driver, strcmp(card->driver, "xenaudio") == 0);
    XA_MEMBER(pa_card, proplist,
              strcmp(pa_proplist_gets(card->proplist, "xenaudio.layout"), "card") == 0);
    XA_MEMBER(pa_card, profiles, pa_hashmap_get(card->profiles, "other") == other);
    XA_MEMBER(pa_card, sinks, pa_idxset_isempty(card->sinks));
    XA_MEMBER(pa_card, sources, pa_idxset_isempty(card->sources));
    XA_MEMBER(pa_card, suspend_cause, card->suspend_cause == 0);
    XA_MEMBER(pa_card_profile, card, preferred->card == card && other->card == card);

    card->userdata = &asked_card;
    card->set_profile = set_profile;
    pa_card_choose_initial_profile(card);
    XA_MEMBER(pa_card, active_profile, card->active_profile == preferred);
    XA_MEMBER(pa_card_profile, priority, card->active_profile == preferred);

    slot = pa_hook_connect(&core->hooks[PA_CORE_HOOK_CARD_PUT], PA_HOOK_NORMAL, on_put, &put);
    pa_card_put(card);
    XA_MEANING("PA_CORE_HOOK_CARD_PUT", put == card);
    XA_MEMBER(pa_card, linked, card->linked);
    XA_MEMBER(pa_card, index, pa_idxset_get_by_index(core->cards, card->index) == card);
    pa_hook_slot_free(slot);

    pa_card_set_profile(card, other, false);
    XA_MEMBER(pa_card, set_profile, asked_card == card && asked_profile == other);
    XA_MEMBER(pa_card, userdata, card->userdata == &asked_card);
    XA_MEANING("pa_card.save_profile", !card->save_profile);
    pa_card_set_profile(card, preferred, true);
    XA_MEANING("pa_card.save_profile", card->save_profile);
    pa_card_profile_set_available(other, PA_AVAILABLE_NO);
    XA_MEMBER(pa_card_profile, available, other->available == PA_AVAILABLE_NO);
    pa_card_free(card);
}
