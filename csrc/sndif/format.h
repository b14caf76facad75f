/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sndif's PCM sample formats: codes (XENSND_PCM_FORMAT_*), the names used in XenStore
 * (XENSND_PCM_FORMAT_*_STR), sizes and silence. Tables only, no state.
 */
#ifndef XA_SNDIF_FORMAT_H
#define XA_SNDIF_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xen.h"

/* cffi: begin */
enum xa_sample_type {
    XA_SAMPLE_SIGNED,   /* integer, two's complement */
    XA_SAMPLE_UNSIGNED, /* integer, offset binary */
    XA_SAMPLE_FLOAT,    /* IEEE 754, nominal range -1.0 to 1.0 */
    XA_SAMPLE_MU_LAW,   /* ITU-T G.711, one octet */
    XA_SAMPLE_A_LAW,
    XA_SAMPLE_IEC958, /* IEC 60958 subframe, four octets */
};

struct xa_format {
    uint8_t code;           /* XENSND_PCM_FORMAT_* */
    const char *name;       /* the spelling of sndif.h */
    const char *libxl_name; /* xl's, where it writes another one; else NULL */
    enum xa_sample_type type;
    uint8_t sample_octets; /* on the wire: 1, 2, 4 or 8 (24-bit samples take four) */
    uint8_t sample_bits;   /* that carry the value, right-aligned: 8, 16, 24, 32 or 64 */
    bool big_endian;
};

/* The format of an OPEN's pcm_format, or NULL: unknown, or compressed, which is not PCM. */
const struct xa_format *xa_format_by_code(unsigned code);

/* The format called name[0..length-1], in either spelling, or NULL. */
const struct xa_format *xa_format_by_name(const char *name, size_t length);
/* cffi: end */

/* Whether the code is one of sndif's compressed formats: IMA ADPCM, MPEG, GSM. */
bool xa_format_is_compressed(unsigned code);

/* Octets of one frame; `channels` is 1 to 255, so at most 2040. */
uint32_t xa_format_frame_octets(const struct xa_format *format, unsigned channels);

/* Fills `octets` (a multiple of format->sample_octets) with silence. */
void xa_format_silence(const struct xa_format *format, void *samples, size_t octets);

/* sndif's formats as HW_PARAM_QUERY's mask: bit `code` of each PCM format. */
uint64_t xa_format_all_mask(void);

#endif
