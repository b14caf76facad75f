/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stream on a PulseAudio server (or on PipeWire's, which speaks the same), kept there by a thread
 * of its own: what the pulse output and input have in common.
 *
 * libpulse's main loop runs in that thread, one for each open PCM. Not in the engine's: libpulse
 * reads files, resolves names and maps memory when it connects, and the engine waits for none of
 * that. And not in one thread for all: a server that does not answer one guest's stream holds up
 * no other's. It is a connection of its own too, so that a person sees each guest as a client. No
 * Python runs in it. Samples pass between it and the engine through a spool.
 *
 * When the server goes away, or refuses, it is tried again twice a second for as long as the guest
 * plays (or records).
 *
 * Compiled in where libpulse is found (XA_HAVE_PULSE).
 */
#ifndef XA_BACKEND_PULSE_LINK_H
#define XA_BACKEND_PULSE_LINK_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include <pulse/pulseaudio.h>

#include "backend/endpoint.h"

/* The least latency that suits a server, as the smallest buffer: with less, everyone on the path
 * would have to wake up three hundred times a second and more. Microseconds. */
#define XA_PULSE_BUFFER_US 9600u

/* Whether PulseAudio has the format. */
bool xa_pulse_holds(const struct xa_format *format);

/* What the engine wants of the stream. */
enum xa_pulse_want {
    XA_PULSE_STOPPED, /* what it was given is heard, then it stands */
    XA_PULSE_HELD,    /* it stands */
    XA_PULSE_RUNNING,
};

struct xa_pulse_link;

/* The stream's own part, called by the link's thread. */
struct xa_pulse_link_ops {
    /* Connects the stream, corked, to `device` (NULL: the default one). 0 or a negative value. */
    int (*connect)(struct xa_pulse_link *link, const char *device, pa_stream_flags_t flags);
    /* NULL, or: makes a stream ready for use while the guest still waits for it; called ever again,
     * until it says that it is. Not `in_time`: the guest waits no longer. */
    bool (*prepare)(struct xa_pulse_link *link, bool in_time);
    /* Does what is to be done on a stream that is ready; when to be called again at the latest. */
    uint64_t (*run)(struct xa_pulse_link *link, uint64_t now);
    /* The stream was made anew, or is gone. */
    void (*changed)(struct xa_pulse_link *link, bool up);
    /* Whether all was heard that is to be heard before it is closed. */
    bool (*finished)(struct xa_pulse_link *link, uint64_t now);
};

struct xa_pulse_link {
    const struct xa_pulse_link_ops *ops;
    struct xa_route route;
    struct xa_endpoint_wakes wakes;
    pa_sample_spec spec;
    pa_channel_map map;
    uint32_t frame_octets;
    pthread_t thread;
    int wake_fd;   /* eventfd: the thread is to look */
    sem_t settled; /* posted when the first attempt to connect came to an end */

    /* Stored by the engine with release before it wakes the thread, which loads with acquire. */
    _Atomic enum xa_pulse_want want;
    _Atomic bool quit;
    /* Stored by the thread with release, loaded by the engine with acquire: the stream is ready,
     * and what `changed` did comes before. */
    _Atomic bool up;
    /* Stored by the thread, loaded by any: a text of libpulse's, which keeps them. */
    _Atomic(const char *) trouble;

    /* The thread's alone. */
    pa_mainloop *loop;
    pa_context *context;
    pa_stream *stream;
    bool corked;
    bool settled_once;
    bool patient;        /* set by `run`: what the server says may wait until the engine wakes it */
    uint64_t open_until; /* the guest waits for it */
    uint64_t retry_at;
    uint64_t quit_at;
};

/*
 * Starts the thread and gives it 0.4 s to connect. 0, also when there is no server, or a
 * negative errno value. `link` is zeroed but for `ops`.
 */
int xa_pulse_link_open(struct xa_pulse_link *link, const struct xa_route *route,
                       const struct xa_pcm_params *params, const struct xa_endpoint_wakes *wakes);

/* Ends the thread, when `finished` or after a second. */
void xa_pulse_link_close(struct xa_pulse_link *link);

/* Engine: sets what is wanted, and wakes the thread. */
void xa_pulse_link_want(struct xa_pulse_link *link, enum xa_pulse_want want);

/* Engine: has the thread look. */
void xa_pulse_link_wake(struct xa_pulse_link *link);

/* Thread: corks or uncorks. */
void xa_pulse_link_cork(struct xa_pulse_link *link, bool cork);

#endif
