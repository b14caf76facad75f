/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sndif's PCM sample formats: tables and silence (format.h).
 */
#include "format.h"

/* One row, at the index of its code. */
#define FORMAT(CODE, libxl, kind, octets, bits, big)                                               \
    [XENSND_PCM_FORMAT_##CODE] = {.code = XENSND_PCM_FORMAT_##CODE,                                \
                                  .name = XENSND_PCM_FORMAT_##CODE##_STR,                          \
                                  .libxl_name = libxl,                                             \
                                  .type = XA_SAMPLE_##kind,                                        \
                                  .sample_octets = octets,                                         \
                                  .sample_bits = bits,                                             \
                                  .big_endian = big}

static const struct xa_format formats[] = {
    FORMAT(S8, NULL, SIGNED, 1, 8, false),
    FORMAT(U8, NULL, UNSIGNED, 1, 8, false),
    FORMAT(S16_LE, NULL, SIGNED, 2, 16, false),
    FORMAT(S16_BE, NULL, SIGNED, 2, 16, true),
    FORMAT(U16_LE, NULL, UNSIGNED, 2, 16, false),
    FORMAT(U16_BE, NULL, UNSIGNED, 2, 16, true),
    FORMAT(S24_LE, NULL, SIGNED, 4, 24, false),
    FORMAT(S24_BE, NULL, SIGNED, 4, 24, true),
    FORMAT(U24_LE, NULL, UNSIGNED, 4, 24, false),
    FORMAT(U24_BE, NULL, UNSIGNED, 4, 24, true),
    FORMAT(S32_LE, NULL, SIGNED, 4, 32, false),
    FORMAT(S32_BE, NULL, SIGNED, 4, 32, true),
    FORMAT(U32_LE, NULL, UNSIGNED, 4, 32, false),
    FORMAT(U32_BE, NULL, UNSIGNED, 4, 32, true),
    FORMAT(F32_LE, "f32_le", FLOAT, 4, 32, false),
    FORMAT(F32_BE, "f32_be", FLOAT, 4, 32, true),
    FORMAT(F64_LE, "f64_le", FLOAT, 8, 64, false),
    FORMAT(F64_BE, "f64_be", FLOAT, 8, 64, true),
    FORMAT(IEC958_SUBFRAME_LE, NULL, IEC958, 4, 32, false),
    FORMAT(IEC958_SUBFRAME_BE, NULL, IEC958, 4, 32, true),
    FORMAT(MU_LAW, NULL, MU_LAW, 1, 8, false),
    FORMAT(A_LAW, NULL, A_LAW, 1, 8, false),
};

#define FORMATS (sizeof(formats) / sizeof(formats[0]))

_Static_assert(FORMATS == XENSND_PCM_FORMAT_A_LAW + 1, "the PCM formats are codes 0 to A_LAW");

const struct xa_format *xa_format_by_code(unsigned code)
{
    return code < FORMATS ? &formats[code] : NULL;
}

static bool is_called(const char *name, const char *given, size_t length)
{
    return name != NULL && strlen(name) == length && memcmp(name, given, length) == 0;
}

const struct xa_format *xa_format_by_name(const char *name, size_t length)
{
    for (size_t i = 0; i < FORMATS; i++) {
        if (is_called(formats[i].name, name, length) ||
            is_called(formats[i].libxl_name, name, length))
            return &formats[i];
    }
    return NULL;
}

bool xa_format_is_compressed(unsigned code)
{
    return code == XENSND_PCM_FORMAT_IMA_ADPCM || code == XENSND_PCM_FORMAT_MPEG ||
           code == XENSND_PCM_FORMAT_GSM;
}

uint32_t xa_format_frame_octets(const struct xa_format *format, unsigned channels)
{
    return format->sample_octets * channels;
}

void xa_format_silence(const struct xa_format *format, void *samples, size_t octets)
{
    uint8_t *out = samples;
    unsigned mid_octet; /* which octet of a sample holds the value's topmost bit */

    switch (format->type) {
    case XA_SAMPLE_MU_LAW:
        memset(samples, 0xff, octets);
        return;
    case XA_SAMPLE_A_LAW:
        memset(samples, 0xd5, octets); /* +0 is 0x80; G.711 sends it with the even bits inverted */
        return;
    case XA_SAMPLE_UNSIGNED:
        mid_octet = format->sample_bits / 8u - 1u;
        if (format->big_endian)
            mid_octet = format->sample_octets - 1u - mid_octet;
        memset(samples, 0, octets);
        for (size_t i = mid_octet; i < octets; i += format->sample_octets)
            out[i] = 0x80;
        return;
    case XA_SAMPLE_SIGNED:
    case XA_SAMPLE_FLOAT:
    case XA_SAMPLE_IEC958:
        break;
    }
    memset(samples, 0, octets); /* all bits 0 is 0.0 too */
}

uint64_t xa_format_all_mask(void)
{
    return (UINT64_C(1) << FORMATS) - 1;
}
