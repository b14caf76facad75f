/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the layout check, csrc/pulse/layout.c: each compares what the compiler made of
 * PulseAudio's headers with what the installed library does.
 */
#ifndef XA_PULSE_LAYOUT_H
#define XA_PULSE_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include <pulse/mainloop.h>
#include <pulsecore/core.h>
#include <pulsecore/card.h>
#include <pulsecore/module.h>

/* Reports a member that is not where the library has it, unless `held`. Any thread. */
void xa_layout_member(const char *type, const char *member, size_t offset, bool held);

/* The library and the headers agree on `member` of `type` if `...` holds. */
#define XA_MEMBER(type, member, ...)                                                               \
    xa_layout_member(#type, #member, offsetof(type, member), (__VA_ARGS__))

/* The same for what has no offset of its own: a bit, or the meaning of a number. */
#define XA_MEANING(what, ...) xa_layout_member(what, NULL, 0, (__VA_ARGS__))

/* Compares a structure's size in the headers with the library's. */
void xa_layout_size(const char *type, size_t header, size_t library);

/* How many octets the library asked for at `memory`; 0: it did not. Any thread. */
size_t xa_layout_allocated(const void *memory);

/* `data` is a structure in a larger room that xa_layout_room gave, and the library has initialised
 * it by now: how many octets it took for its own. */
size_t xa_layout_written(const void *data);

/* A room for any structure that a module hands to the library to be initialised; each call
 * ends the use of the room that the last one gave. */
void *xa_layout_room(void);

void xa_layout_check_core(pa_core *core, pa_mainloop_api *mainloop);
void xa_layout_check_module(pa_core *core, pa_module *module, const char *name,
                            const char *argument);
/* Makes a card with two profiles, checks it, and frees it. */
void xa_layout_check_card(pa_core *core, pa_module *module);
/* Makes a sink and a source with an I/O thread each, as a driver does, and frees them. */
void xa_layout_check_sink(pa_core *core, pa_module *module);
void xa_layout_check_source(pa_core *core, pa_module *module);
/* Makes a card, asks as a client what it is, and frees it. */
void xa_layout_check_clients(pa_core *core, pa_module *module, pa_mainloop *mainloop);

#endif
