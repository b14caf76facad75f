/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Peak levels: see level.h. */
#include "backend/level.h"

float xa_level_peak(const struct xa_format *format, const void *samples, uint32_t count)
{
    const uint8_t *octets = samples;
    float peak = 0.0f;

    /* memcpy, because frames need not be aligned where the fifo wraps. */
    for (uint32_t i = 0; i < count; i++, octets += format->sample_octets) {
        float value = 0.0f;
        int16_t narrow;
        int32_t wide;

        switch (format->code) {
        case XENSND_PCM_FORMAT_U8:
            value = ((float) *octets - 128.0f) / 128.0f;
            break;
        case XENSND_PCM_FORMAT_S16_LE:
            memcpy(&narrow, octets, sizeof(narrow));
            value = (float) narrow / 32768.0f;
            break;
        case XENSND_PCM_FORMAT_S24_LE:
            memcpy(&wide, octets, sizeof(wide));
            value = (float) (int32_t) ((uint32_t) wide << 8) / 2147483648.0f;
            break;
        case XENSND_PCM_FORMAT_S32_LE:
            memcpy(&wide, octets, sizeof(wide));
            value = (float) wide / 2147483648.0f;
            break;
        case XENSND_PCM_FORMAT_F32_LE:
            memcpy(&value, octets, sizeof(value));
            break;
        default:
            return 0.0f;
        }
        if (value < 0.0f)
            value = -value;
        if (value > peak)
            peak = value;
    }
    return peak < 1.0f ? peak : 1.0f;
}
