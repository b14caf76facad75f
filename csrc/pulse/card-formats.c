/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Formats, rates and channel maps; see card-formats.h. */
#include "config.h"

#include "card-formats.h"

#include <stdio.h>

#include <pulsecore/macro.h>

#include "sndif/format.h"

/* In the order in which they are taken instead of a default that is not allowed. */
static const struct {
    pa_sample_format_t format;
    uint8_t wire;
} formats[] = {
    {PA_SAMPLE_S16LE, XENSND_PCM_FORMAT_S16_LE},    {PA_SAMPLE_S32LE, XENSND_PCM_FORMAT_S32_LE},
    {PA_SAMPLE_S24_32LE, XENSND_PCM_FORMAT_S24_LE}, {PA_SAMPLE_FLOAT32LE, XENSND_PCM_FORMAT_F32_LE},
    {PA_SAMPLE_S16BE, XENSND_PCM_FORMAT_S16_BE},    {PA_SAMPLE_S32BE, XENSND_PCM_FORMAT_S32_BE},
    {PA_SAMPLE_S24_32BE, XENSND_PCM_FORMAT_S24_BE}, {PA_SAMPLE_FLOAT32BE, XENSND_PCM_FORMAT_F32_BE},
    {PA_SAMPLE_U8, XENSND_PCM_FORMAT_U8},           {PA_SAMPLE_ULAW, XENSND_PCM_FORMAT_MU_LAW},
    {PA_SAMPLE_ALAW, XENSND_PCM_FORMAT_A_LAW},
};

int xa_pulse_wire_format(pa_sample_format_t format)
{
    for (size_t i = 0; i < PA_ELEMENTSOF(formats); i++) {
        if (formats[i].format == format)
            return formats[i].wire;
    }
    return -1;
}

static bool format_allowed(const struct xa_pcm_config *pcm, pa_sample_format_t format)
{
    int wire = xa_pulse_wire_format(format);

    return wire >= 0 && (!pcm || (pcm->formats >> wire & 1));
}

static bool choose_format(const struct xa_pcm_config *pcm, bool asked, pa_sample_spec *spec,
                          char *why, size_t size)
{
    size_t used;

    if (format_allowed(pcm, spec->format))
        return true;
    for (size_t i = 0; !asked && i < PA_ELEMENTSOF(formats); i++) {
        if (format_allowed(pcm, formats[i].format)) {
            spec->format = formats[i].format;
            return true;
        }
    }
    used = (size_t) snprintf(why, size, "format %s is not one of this stream's:",
                             pa_sample_format_to_string(spec->format));
    for (size_t i = 0; i < PA_ELEMENTSOF(formats) && used < size; i++) {
        if (format_allowed(pcm, formats[i].format))
            used += (size_t) snprintf(why + used, size - used, " %s",
                                      pa_sample_format_to_string(formats[i].format));
    }
    return false;
}

static bool choose_rate(const struct xa_pcm_config *pcm, bool asked, pa_sample_spec *spec,
                        char *why, size_t size)
{
    uint32_t above = 0, below = 0;
    size_t used;

    if (!pcm)
        return true;
    for (uint32_t i = 0; i < pcm->rate_count; i++) {
        uint32_t rate = pcm->rates[i];

        if (rate == spec->rate)
            return true;
        if (rate > spec->rate && rate <= PA_RATE_MAX && (above == 0 || rate < above))
            above = rate;
        if (rate < spec->rate && rate > below)
            below = rate;
    }
    if (!asked && (above || below)) {
        spec->rate = above ? above : below;
        return true;
    }
    used = (size_t) snprintf(why, size, "rate %u is not one of this stream's:", spec->rate);
    for (uint32_t i = 0; i < pcm->rate_count && used < size; i++)
        used += (size_t) snprintf(why + used, size - used, " %u", pcm->rates[i]);
    return false;
}

static bool choose_channels(const struct xa_pcm_config *pcm, bool asked, pa_sample_spec *spec,
                            char *why, size_t size)
{
    unsigned most = pcm ? PA_MIN(pcm->channels_max, (unsigned) PA_CHANNELS_MAX) : PA_CHANNELS_MAX;
    unsigned least = pcm ? pcm->channels_min : 1;

    if (spec->channels >= least && spec->channels <= most)
        return true;
    if (!asked && least <= most) {
        spec->channels = (uint8_t) PA_CLAMP(spec->channels, least, most);
        return true;
    }
    if (least > most)
        snprintf(why, size, "this stream has at least %u channels, PulseAudio at most %u", least,
                 (unsigned) PA_CHANNELS_MAX);
    else
        snprintf(why, size, "channels %u: this stream has %u to %u", spec->channels, least, most);
    return false;
}

bool xa_pulse_choose_spec(const struct xa_stream_config *config, const struct xa_pulse_asked *asked,
                          pa_sample_spec *spec, char *why, size_t size)
{
    const struct xa_pcm_config *pcm = config ? &config->pcm_config : NULL;

    return choose_format(pcm, asked->format, spec, why, size) &&
           choose_rate(pcm, asked->rate, spec, why, size) &&
           choose_channels(pcm, asked->channels, spec, why, size);
}

void xa_pulse_channel_map(pa_channel_map *map, unsigned channels)
{
    if (pa_channel_map_init_auto(map, channels, PA_CHANNEL_MAP_ALSA))
        return;
    pa_channel_map_init_extend(map, channels, PA_CHANNEL_MAP_ALSA);
    /* PulseAudio knows ALSA's maps but for these two: 2.1 and 6.1. */
    if (channels == 3) {
        map->map[2] = PA_CHANNEL_POSITION_LFE;
    } else if (channels == 7) {
        pa_channel_map_init_auto(map, 6, PA_CHANNEL_MAP_ALSA);
        map->channels = 7;
        map->map[6] = PA_CHANNEL_POSITION_REAR_CENTER;
    }
}
