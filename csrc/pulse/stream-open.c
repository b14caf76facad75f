/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stream brought to where it is wanted; see stream-open.h. */
#include "config.h"

#include "stream-open.h"

#include <errno.h>
#include <string.h>

#include <pulse/rtclock.h>
#include <pulsecore/core-error.h>
#include <pulsecore/core-util.h>
#include <pulsecore/log.h>
#include <pulsecore/macro.h>

#include "card-formats.h"
#include "sndif/xen.h"

#define RETRY_US UINT64_C(1000000)
#define BUSY_US UINT64_C(10000)
/* Of the latency, percent, where the output has a delay of its own. */
#define PERIOD_SHARE 36u

void xa_pulse_stream_init(struct xa_pulse_stream *stream, struct xa_pulse_card *card,
                          const struct xa_pulse_address *address, const pa_sample_spec *spec)
{
    memset(stream, 0, sizeof(*stream));
    stream->card = card;
    stream->address = *address;
    stream->spec = *spec;
    stream->wire_format = (uint8_t) xa_pulse_wire_format(spec->format);
    stream->frame = (uint32_t) pa_frame_size(spec);
}

struct xa_stream *xa_pulse_stream_front(const struct xa_pulse_stream *stream)
{
    return xa_pulse_card_stream(stream->card, &stream->address);
}

uint64_t xa_pulse_frames(const struct xa_pulse_stream *stream, uint64_t us)
{
    return us * stream->spec.rate / 1000000;
}

uint64_t xa_pulse_us(const struct xa_pulse_stream *stream, uint64_t frames)
{
    return frames * 1000000 / stream->spec.rate;
}

uint64_t xa_pulse_latency_most(const struct xa_stream_config *config, const pa_sample_spec *spec,
                               uint64_t wanted_us)
{
    uint64_t held = pa_bytes_to_usec(config->pcm_config.buffer_max, spec);

    return PA_CLAMP(wanted_us, XA_PULSE_LATENCY_MIN, PA_MAX(held, XA_PULSE_LATENCY_MIN));
}

static void schedule(uint64_t *deadline, uint64_t when)
{
    *deadline = PA_MIN(*deadline, when);
}

/* Says once why the stream is not open, and tries again later. */
static void put_off(struct xa_pulse_stream *stream, uint64_t now, const char *what, int error)
{
    stream->retry_us = now + RETRY_US;
    if (!stream->told)
        pa_log_error("PCM device %d, stream %d: %s (%s, %u Hz, %u channels): %s",
                     stream->address.pcm, stream->address.stream, what,
                     pa_sample_format_to_string(stream->spec.format), stream->spec.rate,
                     stream->spec.channels, pa_cstrerror(-error));
    stream->told = true;
}

/* The whole of what the card's configuration allows, for the backend to narrow. */
static int query(struct xa_pulse_stream *stream, struct xa_stream *front)
{
    uint32_t most = xa_stream_config(front)->pcm_config.buffer_max / stream->frame;
    struct xa_stream_ranges ranges = {
        .formats = UINT64_C(1) << stream->wire_format,
        .rate_min = stream->spec.rate,
        .rate_max = stream->spec.rate,
        .channels_min = stream->spec.channels,
        .channels_max = stream->spec.channels,
        .buffer_min = 2,
        .buffer_max = most,
        .period_min = 1,
        .period_max = most / 2,
    };

    return xa_stream_query(front, &ranges);
}

uint64_t xa_pulse_stream_wanted(const struct xa_pulse_stream *stream, uint64_t latency_us)
{
    return PA_MAX(xa_pulse_frames(stream, latency_us), stream->least_frames);
}

/* What the backend can do, as far as it said so, and the card's configuration allows. */
static struct xa_stream_ranges possible(const struct xa_pulse_stream *stream,
                                        const struct xa_stream *front)
{
    uint32_t most = xa_stream_config(front)->pcm_config.buffer_max / stream->frame;
    struct xa_stream_ranges ranges;

    if (xa_stream_queried(front, &ranges) < 0) {
        ranges.buffer_min = (uint32_t) xa_pulse_frames(stream, XA_PULSE_LATENCY_MIN);
        ranges.period_min = 1;
        ranges.buffer_max = most;
        ranges.period_max = most / 2;
    }
    ranges.buffer_min = PA_MIN(ranges.buffer_min, most);
    ranges.buffer_max = PA_MIN(ranges.buffer_max, most);
    ranges.period_min = PA_MAX(ranges.period_min, 1u);
    return ranges;
}

/* Captured samples wait for us: a large buffer costs no latency, and a small one frames. */
static void choose_geometry(struct xa_pulse_stream *stream, struct xa_stream *front,
                            uint64_t latency)
{
    struct xa_stream_ranges ranges = possible(stream, front);
    bool capture = stream->address.capture, at_once;
    uint64_t wanted, buffer, period;

    stream->least_frames =
        capture ? ranges.period_min : PA_MAX(ranges.buffer_min, 2 * ranges.period_min);
    wanted = PA_MIN(xa_pulse_stream_wanted(stream, latency), ranges.buffer_max);
    at_once = capture || ranges.buffer_min < xa_pulse_frames(stream, XA_PULSE_LATENCY_MIN);
    period = at_once ? (PA_MAX(wanted, 2u) - 2) / 2 : wanted * PERIOD_SHARE / 100;
    if (!capture)
        period = PA_MIN(period, xa_pulse_frames(stream, XA_PULSE_PERIOD_MOST));
    period = PA_MIN(PA_MAX(period, ranges.period_min), ranges.period_max);
    buffer = wanted;
    if (capture)
        buffer = PA_MAX(4 * period, xa_pulse_frames(stream, XA_PULSE_LATENCY_DEFAULT));
    else if (!at_once)
        buffer = PA_MAX(wanted, 6 * period);
    buffer = PA_MIN(PA_MAX(buffer, 2 * period), ranges.buffer_max);
    stream->opened_frames = (uint32_t) wanted;
    stream->buffer_frames = (uint32_t) buffer;
    stream->period_frames = (uint32_t) PA_MIN(period, PA_MAX(buffer / 2, 1u));
}

static int open_front(struct xa_pulse_stream *stream, struct xa_stream *front, uint64_t latency)
{
    struct xa_stream_params params;

    choose_geometry(stream, front, latency);
    params = (struct xa_stream_params){
        .rate = stream->spec.rate,
        .format = stream->wire_format,
        .channels = stream->spec.channels,
        .buffer_octets = stream->buffer_frames * stream->frame,
        .period_octets = stream->period_frames * stream->frame,
    };
    return xa_stream_open(front, &params);
}

/* A closed stream: the backend is asked what it can do, then it is opened. */
static enum xa_pulse_status begin(struct xa_pulse_stream *stream, struct xa_stream *front,
                                  uint64_t latency, uint64_t now, uint64_t *deadline)
{
    struct xa_stream_ranges ranges;
    int error;

    if (now < stream->retry_us) {
        schedule(deadline, stream->retry_us);
        return XA_PULSE_NEVER;
    }
    if (stream->asking)
        return XA_PULSE_SOON;
    if (!stream->refused && xa_stream_queried(front, &ranges) < 0) {
        error = query(stream, front);
        stream->asking = error == 0;
        stream->refused = error == -EOPNOTSUPP;
        if (error == 0)
            return XA_PULSE_SOON;
        if (error != -EOPNOTSUPP) {
            schedule(deadline, now + BUSY_US);
            return XA_PULSE_SOON;
        }
    }
    error = open_front(stream, front, latency);
    if (error == 0)
        return XA_PULSE_SOON;
    if (error == -EBUSY) {
        schedule(deadline, now + BUSY_US);
        return XA_PULSE_SOON;
    }
    put_off(stream, now, "the card cannot be opened so", error);
    schedule(deadline, stream->retry_us);
    return XA_PULSE_NEVER;
}

enum xa_pulse_status xa_pulse_stream_strive(struct xa_pulse_stream *stream, uint64_t latency_us,
                                            uint64_t now_us, uint64_t *deadline)
{
    struct xa_card *card = xa_pulse_card_frontend(stream->card);
    struct xa_stream *front;

    switch (xa_card_state(card)) {
    case XA_CARD_CONNECTED:
        break;
    case XA_CARD_STARTING:
    case XA_CARD_NEGOTIATING:
        return XA_PULSE_SOON;
    default:
        return XA_PULSE_NEVER;
    }
    front = xa_pulse_stream_front(stream);
    if (!front)
        return XA_PULSE_NEVER;
    switch (xa_stream_state(front)) {
    case XA_STREAM_CLOSED:
        return begin(stream, front, latency_us, now_us, deadline);
    case XA_STREAM_OPENING:
    case XA_STREAM_CLOSING:
        return XA_PULSE_SOON;
    case XA_STREAM_OPEN:
        return XA_PULSE_OPEN;
    case XA_STREAM_DEAD:
        xa_card_reconnect(card);
        return XA_PULSE_NEVER;
    default: /* XA_STREAM_OFFLINE: a new configuration lacks it */
        return XA_PULSE_NEVER;
    }
}

void xa_pulse_stream_close(struct xa_pulse_stream *stream, uint64_t now_us, uint64_t *deadline)
{
    struct xa_stream *front = xa_pulse_stream_front(stream);

    if (!front ||
        (xa_stream_state(front) != XA_STREAM_OPEN && xa_stream_state(front) != XA_STREAM_OPENING))
        return;
    if (xa_stream_close(front) == -EBUSY) /* no room on the ring */
        schedule(deadline, now_us + BUSY_US);
}

void xa_pulse_stream_event(struct xa_pulse_stream *stream, enum xa_stream_event event, int error)
{
    switch (event) {
    case XA_EVENT_QUERIED:
        stream->asking = false;
        stream->refused = error < 0;
        break;
    case XA_EVENT_OPENED:
        if (error == 0)
            stream->told = false;
        else if (error != -ECANCELED)
            put_off(stream, pa_rtclock_now(), "the backend refuses to open it", error);
        break;
    default:
        break;
    }
}

void xa_pulse_stream_card(struct xa_pulse_stream *stream)
{
    /* Whatever was asked of the backend before is not answered any more, or by another one. */
    stream->asking = false;
    stream->refused = false;
    stream->retry_us = 0;
}
