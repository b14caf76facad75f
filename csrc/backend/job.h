/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Work that may block (mapping a guest's pages, opening and closing outputs), done on a thread of
 * its own so that neither the engine nor another guest's work waits for it.
 */
#ifndef XA_BACKEND_JOB_H
#define XA_BACKEND_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/endpoint.h"
#include "hv/hv.h"

/* An open PCM: what lives between OPEN and CLOSE. */
struct xa_pcm {
    struct xa_pcm_params params;
    struct xa_map *buffer;    /* the guest's pages */
    uint8_t *shared;          /* their memory: the guest may change it at any time */
    struct xa_output *output; /* playback */
    struct xa_input *input;   /* capture */
    uint8_t *fifo_memory;     /* private samples, params.buffer_octets + 2 periods */
    uint32_t fifo_octets;
};

/* Closes and frees what is there. May block. NULL is allowed. */
void xa_pcm_free(struct xa_pcm *pcm);

struct xa_job {
    /* What to do, set before xa_job_start: close `pcm` if there is one, then open if `open`. */
    bool open;
    struct xa_pcm_params params;
    uint32_t gref_directory;
    struct xa_hv *hv;
    uint16_t domid;
    bool capture;
    const struct xa_route *route;
    struct xa_endpoint_wakes wakes;

    /* The PCM: in, the one to close; out, the one opened, or NULL. */
    struct xa_pcm *pcm;
    int error;          /* of opening: 0 or a negative errno value */
    const char *failed; /* what failed, for a log */

    /* Called on the job's thread when all is done; the job is the callee's again. */
    void (*done)(void *user, struct xa_job *job);
    void *user;
};

/* Starts a thread for the job. 0 or a negative errno value; then nothing was done. */
int xa_job_start(struct xa_job *job);

#endif
