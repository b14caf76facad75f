/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How an open PCM moves: see transport.h. */
#include "backend/transport.h"

#include "backend/level.h"
#include "sndif/position.h"

#define OCTETS_AT_ONCE 65536u /* more than any frame */

/* A PCM without events is looked at, and runs on when dry, as if it had two periods. */
static uint32_t period_of(const struct xa_pcm_params *params)
{
    uint32_t half = params->buffer_octets / 2 / params->frame_octets * params->frame_octets;

    if (params->period_octets)
        return params->period_octets;
    return half ? half : params->frame_octets;
}

void xa_transport_init(struct xa_transport *transport, bool capture)
{
    *transport = (struct xa_transport){.capture = capture};
}

void xa_transport_open(struct xa_transport *t, struct xa_pcm *pcm)
{
    t->pcm = pcm;
    t->started = t->paused = t->dry_stop = t->sounded = t->overrun = t->unfinished = false;
    t->fifo = (struct xa_fifo){.memory = pcm->fifo_memory, .size = pcm->fifo_octets};
    t->moved = t->skipped = t->reached = t->position = t->told = 0;
    t->run_on = 0;
    t->event_at = xa_position_next_event(0, period_of(&pcm->params), pcm->params.frame_octets);
}

static void clock_start(struct xa_transport *t, uint64_t now)
{
    if (t->capture)
        t->pcm->input->ops->start(t->pcm->input, now);
    else
        t->pcm->output->ops->start(t->pcm->output, now);
}

static void clock_stop(struct xa_transport *t, uint64_t now, bool hold)
{
    if (t->capture)
        t->pcm->input->ops->stop(t->pcm->input);
    else
        t->pcm->output->ops->stop(t->pcm->output, now, hold);
}

/* Frames that are moved in one call: the rest is for the next one, other streams wait. */
static uint32_t most_at_once(const struct xa_pcm_params *params)
{
    return OCTETS_AT_ONCE / params->frame_octets;
}

static void play(struct xa_transport *t, uint64_t now)
{
    struct xa_output *output = t->pcm->output;
    const struct xa_pcm_params *params = &t->pcm->params;
    uint32_t frame = params->frame_octets;
    uint64_t wanted = output->ops->wants(output, now), most = most_at_once(params);

    t->unfinished = false;
    while (wanted && t->fifo.fill) {
        const uint8_t *samples;
        uint32_t frames = xa_fifo_peek(&t->fifo, &samples) / frame;
        float peak;

        if (frames > wanted)
            frames = (uint32_t) wanted;
        if (frames > most)
            frames = (uint32_t) most;
        if (t->run_on && t->sounded)
            t->xruns++;
        t->run_on = 0;
        t->sounded = true;
        output->ops->write(output, samples, frames);
        peak = xa_level_peak(params->format, samples, frames * params->channels);
        if (peak > t->peak)
            t->peak = peak;
        xa_fifo_drop(&t->fifo, frames * frame);
        t->moved += (uint64_t) frames * frame;
        t->frames_out += frames;
        wanted -= frames;
        most -= frames;
        if (!most) {
            t->unfinished = true;
            return;
        }
    }
}

/* Where samples ran out. In advance only: the position that it takes on is to be told. */
static void play_silence(struct xa_transport *t, uint64_t now)
{
    struct xa_output *output = t->pcm->output;
    uint32_t frame = t->pcm->params.frame_octets, period = period_of(&t->pcm->params);
    uint64_t frames = (period - t->run_on) / frame, lacking;

    if (t->unfinished || t->fifo.fill || !output->ops->wants(output, now))
        return;
    lacking = output->ops->lacks(output, now);
    if (lacking == 0)
        return;
    if (frames > lacking)
        frames = lacking;
    output->ops->silence(output, (uint32_t) frames);
    t->frames_silent += frames;
    t->run_on += (uint32_t) frames * frame;
    if (t->run_on >= period) {
        clock_stop(t, now, false);
        t->dry_stop = true;
    }
}

static void capture(struct xa_transport *t, uint64_t now)
{
    struct xa_input *input = t->pcm->input;
    const struct xa_pcm_params *params = &t->pcm->params;
    uint32_t frame = params->frame_octets;
    uint64_t ready = input->ops->ready(input, now);
    uint8_t samples[4096];

    if (ready > most_at_once(params))
        ready = most_at_once(params);
    while (ready) {
        uint32_t frames = sizeof(samples) / frame, octets;
        float peak;

        if (frames > ready)
            frames = (uint32_t) ready;
        octets = frames * frame;
        if (octets > t->fifo.size) {
            frames = t->fifo.size / frame;
            octets = frames * frame;
        }
        input->ops->read(input, samples, frames);
        peak = xa_level_peak(params->format, samples, frames * params->channels);
        if (peak > t->peak)
            t->peak = peak;
        if (xa_fifo_room(&t->fifo) < octets) {
            uint32_t drop = octets - xa_fifo_room(&t->fifo);

            xa_fifo_drop(&t->fifo, drop);
            t->frames_dropped += drop / frame;
            t->xruns += !t->overrun;
            t->overrun = true;
        }
        xa_fifo_put(&t->fifo, samples, octets);
        t->moved += octets;
        t->frames_in += frames;
        ready -= frames;
    }
}

static bool moves(const struct xa_transport *t)
{
    return t->pcm && t->started && !t->dry_stop;
}

bool xa_transport_advance(struct xa_transport *t, uint64_t now)
{
    const struct xa_pcm_params *params;
    uint64_t position;

    if (!moves(t))
        return false;
    params = &t->pcm->params;
    if (t->capture) {
        capture(t, now);
        position = t->moved + t->skipped;
    } else {
        struct xa_output *output = t->pcm->output;
        bool clamped;

        play(t, now);
        play_silence(t, now);
        position =
            xa_position_heard(t->moved + t->skipped,
                              (uint64_t) output->ops->delay(output, now) * params->frame_octets,
                              params->buffer_octets, period_of(params), &clamped) +
            t->run_on;
        t->clamps += clamped;
    }
    t->reached = position;
    if (position > t->position)
        t->position = position;
    if (t->position < t->event_at)
        return false;
    t->event_at = xa_position_next_event(t->position, period_of(params), params->frame_octets);
    t->told = t->position;
    return params->period_octets != 0;
}

/* A PCM that moves: after how many frames more something is due. */
static uint64_t frames_to_deadline(const struct xa_transport *t)
{
    uint64_t frames =
        t->event_at > t->reached ? (t->event_at - t->reached) / t->pcm->params.frame_octets : 1;
    /* Outputs and inputs do not buffer a period of any length. */
    uint64_t most = t->pcm->params.rate / 2;

    return frames > most && most ? most : frames;
}

bool xa_transport_is_ahead(const struct xa_transport *t)
{
    return moves(t) && !t->capture &&
           t->fifo.fill / t->pcm->params.frame_octets >= frames_to_deadline(t);
}

uint64_t xa_transport_deadline(const struct xa_transport *t)
{
    uint64_t frames;

    if (!moves(t))
        return UINT64_MAX;
    if (t->unfinished)
        return 0;
    frames = frames_to_deadline(t);
    if (t->capture)
        return t->pcm->input->ops->when(t->pcm->input, frames);
    return t->pcm->output->ops->when(t->pcm->output, frames);
}

/* Whether [offset, offset + length) lies in the shared buffer and is of whole frames. */
static bool in_buffer(const struct xa_pcm_params *params, uint32_t offset, uint32_t length)
{
    return offset < params->buffer_octets && length <= params->buffer_octets - offset &&
           length % params->frame_octets == 0;
}

int xa_transport_write(struct xa_transport *t, uint64_t now, uint32_t offset, uint32_t length)
{
    if (!t->pcm)
        return -XEN_EIO;
    if (t->capture || !in_buffer(&t->pcm->params, offset, length))
        return -XEN_EINVAL;
    if (length > xa_fifo_room(&t->fifo))
        return -XEN_ENOSPC;
    if (!length)
        return 0;
    xa_fifo_put(&t->fifo, t->pcm->shared + offset, length);
    t->frames_in += length / t->pcm->params.frame_octets;
    if (t->started && t->dry_stop) {
        clock_start(t, now);
        t->dry_stop = false;
    }
    if (t->started)
        play(t, now); /* what the output stores it is given as soon as it is there */
    return 0;
}

int xa_transport_read(struct xa_transport *t, uint64_t now, uint32_t offset, uint32_t length)
{
    (void) now;
    if (!t->pcm)
        return -XEN_EIO;
    if (!t->capture || !in_buffer(&t->pcm->params, offset, length))
        return -XEN_EINVAL;
    if (length > t->fifo.fill)
        return -XEN_EAGAIN;
    xa_fifo_get(&t->fifo, t->pcm->shared + offset, length);
    t->frames_out += length / t->pcm->params.frame_octets;
    t->overrun = false;
    return 0;
}

/* Forgets what is stored. Positions count on from the next multiple of the buffer. */
static void discard(struct xa_transport *t)
{
    const struct xa_pcm_params *params = &t->pcm->params;
    uint32_t past = (uint32_t) (t->told % params->buffer_octets);

    t->frames_dropped += t->fifo.fill / params->frame_octets;
    t->fifo.head = t->fifo.fill = 0;
    t->run_on = 0;
    if (past && params->period_octets)
        t->told += params->buffer_octets - past;
    t->skipped = t->told - t->moved;
    t->reached = t->position = t->told;
    t->event_at = xa_position_next_event(t->position, period_of(params), params->frame_octets);
}

int xa_transport_trigger(struct xa_transport *t, uint64_t now, unsigned type)
{
    if (!t->pcm)
        return -XEN_EIO;
    switch (type) {
    case XENSND_OP_TRIGGER_START:
        if (t->started)
            return 0;
        break;
    case XENSND_OP_TRIGGER_RESUME:
        if (!t->paused)
            return -XEN_EINVAL;
        break;
    case XENSND_OP_TRIGGER_PAUSE:
        if (!t->started)
            return -XEN_EINVAL;
        clock_stop(t, now, true);
        t->started = t->dry_stop = false;
        t->paused = true;
        return 0;
    case XENSND_OP_TRIGGER_STOP:
        clock_stop(t, now, false);
        t->started = t->dry_stop = t->paused = t->sounded = false;
        discard(t);
        return 0;
    default:
        return -XEN_EINVAL;
    }
    clock_start(t, now);
    t->started = true;
    t->paused = t->dry_stop = false;
    if (!t->capture)
        play(t, now);
    return 0;
}

struct xa_pcm *xa_transport_close(struct xa_transport *t, uint64_t now)
{
    struct xa_pcm *pcm = t->pcm;

    if (!pcm)
        return NULL;
    xa_transport_trigger(t, now, XENSND_OP_TRIGGER_STOP);
    if (pcm->output)
        t->frames_lost += pcm->output->ops->lost(pcm->output);
    t->pcm = NULL;
    return pcm;
}
