/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sound card that module-xenpv-detect found: in PulseAudio a card with profiles (output, input,
 * duplex, off, as far as it has streams for them), and for each stream of the active profile a
 * module-xenpv-sink or module-xenpv-source.
 *
 * What the card is comes from its thread (card-thread.h), as soon as that knows and whenever the
 * configuration is another one: nothing here waits for it. A new card has its sinks and sources
 * when it is connected, or when it is known that it cannot be soon. A card whose backend is not
 * there, or whose store went away, keeps them, and they go on by the clock. On PulseAudio's main
 * thread.
 */
#ifndef XA_PULSE_DETECTED_CARD_H
#define XA_PULSE_DETECTED_CARD_H

#include <stdint.h>

#include <pulsecore/module.h>

struct xa_detected_card;

/* What all cards of a module-xenpv-detect have in common; outlives them. */
struct xa_detected_common {
    pa_module *module;      /* module-xenpv-detect */
    const char *hypervisor; /* NULL: the default */
    const char *latency;    /* latency_msec= of the sinks and sources; NULL: theirs */
    int wake;               /* eventfd, written to when xa_detected_card_update has something */
};

/* Takes the card `device`. NULL: it cannot be had; the reason was logged. */
struct xa_detected_card *xa_detected_card_new(const struct xa_detected_common *common,
                                              unsigned device);

/* Unloads its sinks and sources, and gives it back. NULL is allowed. */
void xa_detected_card_free(struct xa_detected_card *card);

/* Does what follows from what the card's thread told since the last call. */
void xa_detected_card_update(struct xa_detected_card *card);

#endif
