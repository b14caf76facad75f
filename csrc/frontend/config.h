/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A card's configuration as XenStore has it ("Frontend XenBus Nodes" of xen/io/sndif.h): the value
 * of each node, and what a stream inherits from its PCM device and its card. Pure functions: the
 * reading itself is card.c's.
 */
#ifndef XA_FRONTEND_CONFIG_H
#define XA_FRONTEND_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
/* Bounds of a card that this frontend serves; one beyond them is refused. (Linux's own takes 8
 * streams of a direction for each PCM device; xl sets no bound.) Indices are 0 to 31. */
#define XA_CARD_PCMS 32
#define XA_CARD_STREAMS 64
#define XA_CARD_RATES 32
#define XA_CARD_RATE_MAX 768000

/* What card, PCM device and stream may each set; the innermost that does counts. */
struct xa_pcm_config {
    uint8_t channels_min;
    uint8_t channels_max;
    uint32_t rate_count; /* at least one */
    uint32_t rates[32];  /* Hz, in the store's order */
    uint64_t formats;    /* bit XENSND_PCM_FORMAT_* of each PCM format allowed */
    uint32_t buffer_max; /* octets */
};

struct xa_stream_config {
    uint8_t pcm;   /* index of the PCM device in the card */
    uint8_t index; /* of the stream in the PCM device */
    bool capture;
    char unique_id[128];
    char pcm_name[128]; /* "" when not set */
    struct xa_pcm_config pcm_config;
};
/* cffi: end */

/* What counts where nothing is set: 1 to 2 channels, the usual rates (as our backend takes them),
 * each PCM format, 64 KiB. */
void xa_pcm_config_default(struct xa_pcm_config *config);

/*
 * Takes the value of one inheritable node: "channels-min", "channels-max", "sample-rates",
 * "sample-formats", "buffer-size". 0; -EINVAL when the value is not what sndif.h asks for (formats
 * unknown or not PCM are passed over, but one must remain); -E2BIG for too long a list; -ENOENT for
 * another node's name.
 */
int xa_pcm_config_set(struct xa_pcm_config *config, const char *node, const char *value);

/* Whether the whole makes sense: 1 <= channels_min <= channels_max. */
bool xa_pcm_config_valid(const struct xa_pcm_config *config);

/* Whether a stream may be opened so. */
bool xa_pcm_config_allows(const struct xa_pcm_config *config, uint32_t rate, uint8_t format,
                          uint8_t channels);

/* Reads a whole decimal number of 0 to `max`: 0 or -EINVAL. */
int xa_config_number(const char *value, uint64_t max, uint64_t *number);

#endif
