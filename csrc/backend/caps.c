/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a stream can do: see caps.h. */
#include "backend/caps.h"

/* Smallest and largest allowed rate within [min, max]; false when there is none. */
static bool rate_range(const struct xa_caps *caps, uint32_t min, uint32_t max, uint32_t *low,
                       uint32_t *high)
{
    *low = UINT32_MAX;
    *high = 0;
    for (uint32_t i = 0; i < caps->rate_count; i++) {
        uint32_t rate = caps->rates[i];

        if (rate < min || rate > max)
            continue;
        if (rate < *low)
            *low = rate;
        if (rate > *high)
            *high = rate;
    }
    return *high != 0;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t buffer_octets_most(const struct xa_caps *caps)
{
    return smaller(caps->buffer_octets_max, XA_BUFFER_MOST);
}

/* The smallest sample size, in octets, among sndif's PCM formats in a mask that is not 0. */
static uint32_t smallest_sample(uint64_t formats)
{
    uint32_t least = UINT32_MAX;

    for (unsigned code = 0; code < 64; code++)
        if (formats >> code & 1)
            least = smaller(least, xa_format_by_code(code)->sample_octets);
    return least;
}

static uint32_t period_frames_min(uint32_t rate)
{
    uint32_t frames = (uint32_t) (((uint64_t) rate * XA_PERIOD_MIN_US + 999999u) / 1000000u);

    return larger(frames, 1);
}

static uint32_t suited_frames(const struct xa_caps *caps, uint32_t rate)
{
    uint64_t frames = (uint64_t) rate * caps->buffer_us_suited / 1000000u;

    return frames < UINT32_MAX ? (uint32_t) frames : UINT32_MAX;
}

int xa_caps_narrow(const struct xa_caps *caps, struct xensnd_query_hw_param *ranges)
{
    struct xensnd_query_hw_param r = *ranges;
    uint32_t buffer_most;

    r.formats &= caps->formats & xa_format_all_mask();
    if (!r.formats)
        return -XEN_EINVAL;
    if (!rate_range(caps, r.rates.min, r.rates.max, &r.rates.min, &r.rates.max))
        return -XEN_EINVAL;
    r.channels.min = larger(larger(r.channels.min, caps->channels_min), 1);
    r.channels.max = smaller(r.channels.max, caps->channels_max);
    if (r.channels.min > r.channels.max)
        return -XEN_EINVAL;

    /* The widest buffer, in frames, is that of the smallest frame still possible. */
    buffer_most = buffer_octets_most(caps) / (smallest_sample(r.formats) * r.channels.min);
    r.period.min = larger(r.period.min, period_frames_min(r.rates.min));
    r.period.max = smaller(r.period.max, buffer_most / 2);
    r.buffer.min = larger(r.buffer.min, 2 * smaller(r.period.min, UINT32_MAX / 2));
    r.buffer.max = smaller(r.buffer.max, buffer_most);
    r.buffer.min = larger(r.buffer.min, smaller(suited_frames(caps, r.rates.min), r.buffer.max));
    /* Two periods are the least that a buffer holds. */
    r.period.max = smaller(r.period.max, r.buffer.max / 2);
    if (r.period.min > r.period.max || r.buffer.min > r.buffer.max)
        return -XEN_EINVAL;
    *ranges = r;
    return 0;
}

int xa_caps_check_open(const struct xa_caps *caps, const struct xensnd_open_req *open,
                       struct xa_pcm_params *params, const char **why, uint32_t *value)
{
    const struct xa_format *format = xa_format_by_code(open->pcm_format);
    uint32_t low, high, frame;

    *value = open->pcm_format;
    if (!format) {
        bool compressed = xa_format_is_compressed(open->pcm_format);

        *why = compressed ? "a compressed format, which is not PCM" : "an unknown sample format";
        return compressed ? -XEN_EOPNOTSUPP : -XEN_EINVAL;
    }
    if (!(caps->formats >> format->code & 1)) {
        *why = "a sample format that the card's configuration does not allow";
        return -XEN_EINVAL;
    }
    *value = open->pcm_rate;
    if (!rate_range(caps, open->pcm_rate, open->pcm_rate, &low, &high)) {
        *why = "a rate that the card's configuration does not allow";
        return -XEN_EINVAL;
    }
    *value = open->pcm_channels;
    if (open->pcm_channels == 0 || open->pcm_channels < caps->channels_min ||
        open->pcm_channels > caps->channels_max) {
        *why = "a number of channels that the card's configuration does not allow";
        return -XEN_EINVAL;
    }
    frame = xa_format_frame_octets(format, open->pcm_channels);
    *value = open->buffer_sz;
    if (open->buffer_sz > buffer_octets_most(caps)) {
        *why = "a larger buffer than allowed";
        return -XEN_EINVAL;
    }
    if (open->buffer_sz < frame || open->buffer_sz % frame) {
        *why = "a buffer that is not of whole frames";
        return -XEN_EINVAL;
    }
    *value = open->period_sz;
    if (open->period_sz) {
        if (open->period_sz % frame || open->period_sz > open->buffer_sz) {
            *why = "a period that is not of whole frames or exceeds the buffer";
            return -XEN_EINVAL;
        }
        if (open->period_sz / frame < period_frames_min(open->pcm_rate)) {
            *why = "a period shorter than 0.5 ms";
            return -XEN_EINVAL;
        }
    }
    *value = open->gref_directory;
    if (!open->gref_directory) {
        *why = "no page directory";
        return -XEN_EINVAL;
    }
    *params = (struct xa_pcm_params){
        .format = format,
        .rate = open->pcm_rate,
        .channels = open->pcm_channels,
        .frame_octets = frame,
        .buffer_octets = open->buffer_sz,
        .period_octets = open->period_sz,
    };
    return 0;
}
