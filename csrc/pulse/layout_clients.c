/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layout check's part on what nothing in libpulsecore reads, but clients are told: a client is
 * connected to this very process, and asks.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pulse/context.h>
#include <pulse/introspect.h>
#include <pulse/mainloop.h>
#include <pulse/operation.h>
#include <pulse/proplist.h>
#include <pulsecore/core.h>
#include <pulsecore/card.h>
#include <pulsecore/hashmap.h>
#include <pulsecore/module.h>

#include "layout.h"

#define PROTOCOL_MODULE "module-native-protocol-unix"
#define CARD_NAME "xenaudio_layout_told"
/* Values unlike any default. */
#define SINKS 3
#define SOURCES 5

static char folder[] = "/tmp/xenaudio-layout-XXXXXX";

static void in_folder(char path[64], const char *name)
{
    snprintf(path, 64, "%s/%s", folder, name);
}

static void on_card(pa_context *context, const pa_card_info *info, int end, void *done)
{
    (void) context;
    if (info == NULL) {
        *(bool *) done = true;
        if (end < 0) {
            XA_MEANING("pa_card", false);
        }
        return;
    }
    XA_MEMBER(pa_card_profile, n_sinks, info->profiles2[0]->n_sinks == SINKS);
    XA_MEMBER(pa_card_profile, n_sources, info->profiles2[0]->n_sources == SOURCES);
}

static void ask(pa_mainloop *mainloop, const char *server)
{
    pa_context *context = pa_context_new(pa_mainloop_get_api(mainloop), "layout");
    pa_context_state_t state = PA_CONTEXT_UNCONNECTED;
    bool done = false;

    /* Whatever hangs is ended by main's alarm. */
    if (pa_context_connect(context, server, PA_CONTEXT_NOAUTOSPAWN, NULL) == 0) {
        do {
            pa_mainloop_iterate(mainloop, 1, NULL);
            state = pa_context_get_state(context);
        } while (PA_CONTEXT_IS_GOOD(state) && state != PA_CONTEXT_READY);
    }
    if (state != PA_CONTEXT_READY) {
        fprintf(stderr, "layout: no client can connect to %s\n", server);
        exit(2);
    }
    pa_operation_unref(pa_context_get_card_info_by_name(context, CARD_NAME, on_card, &done));
    while (!done) {
        pa_mainloop_iterate(mainloop, 1, NULL);
    }
    pa_context_disconnect(context);
    pa_context_unref(context);
    /* The server's end is closed too. */
    while (pa_mainloop_iterate(mainloop, 0, NULL) > 0) {
        continue;
    }
}

void xa_layout_check_clients(pa_core *core, pa_module *module, pa_mainloop *mainloop)
{
    pa_card_new_data *data = pa_card_new_data_init(xa_layout_room());
    pa_card_profile *profile = pa_card_profile_new("told", "Told", 0);
    char socket[64], cookie[64], argument[128];
    pa_module *protocol = NULL;
    pa_card *card;

    profile->n_sinks = SINKS;
    profile->n_sources = SOURCES;
    pa_card_new_data_set_name(data, CARD_NAME);
    data->driver = "xenaudio";
    data->module = module;
    pa_hashmap_put(data->profiles, profile->name, profile);
    card = pa_card_new(core, data);
    pa_card_new_data_done(data);
    pa_card_choose_initial_profile(card);
    pa_card_put(card);

    if (mkdtemp(folder) == NULL) {
        perror(folder);
        exit(2);
    }
    in_folder(socket, "native");
    in_folder(cookie, "cookie");
    /* Nothing of the user's is read or written. */
    setenv("HOME", folder, 1);
    setenv("PULSE_COOKIE", cookie, 1);
    setenv("PULSE_RUNTIME_PATH", folder, 1);
    snprintf(argument, sizeof argument, "auth-anonymous=1 auth-cookie-enabled=0 socket=%s", socket);
    if (pa_module_load(&protocol, core, PROTOCOL_MODULE, argument) < 0) {
        fprintf(stderr, "layout: cannot load PulseAudio's %s\n", PROTOCOL_MODULE);
        exit(2);
    }
    ask(mainloop, socket);
    pa_module_unload(protocol, true);
    pa_card_free(card);
    (void) unlink(cookie);
    (void) unlink(socket);
    (void) rmdir(folder);
}
