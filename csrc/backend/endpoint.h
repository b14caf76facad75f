/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a stream's samples go to or come from: the interface of outputs and inputs, and the routes
 * that name them.
 *
 * An output (or input) has its own clock. The engine asks how many frames it wants (has) at a
 * moment and gives (takes) them; it never waits. Opening and closing may block and are done off the
 * engine's thread; every other function is called with the engine's mutex held and never blocks.
 * Times are CLOCK_MONOTONIC nanoseconds, amounts frames.
 */
#ifndef XA_BACKEND_ENDPOINT_H
#define XA_BACKEND_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/caps.h"

/* cffi: begin */
enum xa_route_kind {
    XA_ROUTE_NULL,  /* plays to nowhere, records silence; clocked */
    XA_ROUTE_FILE,  /* plays into a WAV file, records from a WAV or FLAC file; clocked */
    XA_ROUTE_PULSE, /* a stream on a PulseAudio server, or on PipeWire's */
};

enum { XA_ROUTE_PATH = 1024, XA_ROUTE_NAME = 256 };

struct xa_route {
    enum xa_route_kind kind;
    /* XA_ROUTE_FILE: the file. */
    char path[XA_ROUTE_PATH];
    /* Playback: false truncates `path`; true never overwrites, but inserts -2, -3, ... before
     * ".wav". */
    bool numbered;
    /* Capture: begin again at the file's end; else silence follows. */
    bool loop;
    /* XA_ROUTE_PULSE: the server, as in PULSE_SERVER; empty: the user's own. */
    char server[XA_ROUTE_PATH];
    /* Its sink or source; empty: its default one, which may change meanwhile. */
    char device[XA_ROUTE_NAME];
    /* What people are shown there: whose stream it is, and which. UTF-8. */
    char guest[XA_ROUTE_NAME];
    char stream[XA_ROUTE_NAME];
};

/* Whether this build can do it. */
bool xa_route_built(enum xa_route_kind kind);

/*
 * What a route allows of a stream: narrows *caps (an input file's rate and channels are what they
 * are; a WAV file cannot hold some formats). Reads the file's header: may block. 0 or a negative
 * errno value.
 */
int xa_route_narrow(const struct xa_route *route, bool capture, struct xa_caps *caps);
/* cffi: end */

/* What an output or input may store of its own: so many seconds of samples, at most so many octets
 * (rounded up to a power of two). */
#define XA_ENDPOINT_SECONDS 4u
#define XA_ENDPOINT_OCTETS (UINT32_C(1) << 26)

/* Eventfds to which an output or input writes from a thread of its own, for as long as it is open.
 */
struct xa_endpoint_wakes {
    int engine;  /* captured frames are there: the engine is to look */
    int control; /* `trouble` is another: the control plane is to look */
};

struct xa_output;
struct xa_output_ops {
    /* The clock runs from `now`: after opening, after stop. */
    void (*start)(struct xa_output *output, uint64_t now);
    /* The clock stands. What was written and is not heard yet is kept with `hold` (pause), and else
     * still heard. */
    void (*stop)(struct xa_output *output, uint64_t now, bool hold);
    /* How many frames it takes now: those that are due, and what it stores. */
    uint64_t (*wants)(struct xa_output *output, uint64_t now);
    /* How many of these are overdue: a gap is heard in their place. */
    uint64_t (*lacks)(struct xa_output *output, uint64_t now);
    /* Gives frames in the stream's own format: at most as many as it wants. */
    void (*write)(struct xa_output *output, const void *frames, uint32_t count);
    /* Gives silence in place of frames that the guest did not deliver in time: at most as many as
     * it lacks. */
    void (*silence)(struct xa_output *output, uint32_t count);
    /* Frames written and not heard yet. */
    uint32_t (*delay)(struct xa_output *output, uint64_t now);
    /* When `frames` more will have been heard than when it was last asked how many it wants; or
     * earlier, when it should be given more by then. */
    uint64_t (*when)(struct xa_output *output, uint64_t frames);
    /* Frames lost so far because the output could not take them. */
    uint64_t (*lost)(struct xa_output *output);
    /* What keeps it from being heard, in words for a log that are never freed; NULL: nothing that
     * is known. */
    const char *(*trouble)(struct xa_output *output);
    /* Finishes and frees it. May block. */
    void (*close)(struct xa_output *output);
};
struct xa_output {
    const struct xa_output_ops *ops;
};

struct xa_input;
struct xa_input_ops {
    void (*start)(struct xa_input *input, uint64_t now);
    void (*stop)(struct xa_input *input);
    /* How many frames were captured and not read yet. */
    uint64_t (*ready)(struct xa_input *input, uint64_t now);
    /* Takes at most as many frames as are ready. */
    void (*read)(struct xa_input *input, void *frames, uint32_t count);
    /* When `frames` frames will be ready; or when to ask again, at the latest. */
    uint64_t (*when)(struct xa_input *input, uint64_t frames);
    /* As an output's. */
    const char *(*trouble)(struct xa_input *input);
    void (*close)(struct xa_input *input);
};
struct xa_input {
    const struct xa_input_ops *ops;
};

/* Open by the route's kind. May block. 0 or a negative errno value, with *output or *input set. */
int xa_output_open(const struct xa_route *route, const struct xa_pcm_params *params,
                   const struct xa_endpoint_wakes *wakes, struct xa_output **output);
int xa_input_open(const struct xa_route *route, const struct xa_pcm_params *params,
                  const struct xa_endpoint_wakes *wakes, struct xa_input **input);

/* One for each kind. */
int xa_output_null_open(const struct xa_pcm_params *params, struct xa_output **output);
int xa_output_file_open(const struct xa_route *route, const struct xa_pcm_params *params,
                        struct xa_output **output);
int xa_output_pulse_open(const struct xa_route *route, const struct xa_pcm_params *params,
                         const struct xa_endpoint_wakes *wakes, struct xa_output **output);
int xa_input_null_open(const struct xa_pcm_params *params, struct xa_input **input);
int xa_input_file_open(const struct xa_route *route, const struct xa_pcm_params *params,
                       struct xa_input **input);
int xa_input_pulse_open(const struct xa_route *route, const struct xa_pcm_params *params,
                        const struct xa_endpoint_wakes *wakes, struct xa_input **input);

#endif
