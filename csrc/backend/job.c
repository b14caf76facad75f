/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work that may block: see job.h. */
#include "backend/job.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "sndif/pagedir.h"

void xa_pcm_free(struct xa_pcm *pcm)
{
    if (!pcm)
        return;
    if (pcm->output)
        pcm->output->ops->close(pcm->output);
    if (pcm->input)
        pcm->input->ops->close(pcm->input);
    if (pcm->buffer)
        xa_map_free(pcm->buffer);
    free(pcm->fifo_memory);
    free(pcm);
}

/* Reads the page directory, one mapped page at a time, and maps the buffer that it lists. */
static int map_buffer(struct xa_job *job, struct xa_pcm *pcm)
{
    uint32_t pages = xa_pages_for(job->params.buffer_octets);
    grant_ref_t *grefs = calloc(pages, sizeof(*grefs));
    struct xa_pagedir_walk walk;
    int more;

    if (!grefs)
        return -ENOMEM;
    more = xa_pagedir_walk_init(&walk, job->gref_directory, pages);
    if (more == 0)
        more = 1;
    while (more == 1) {
        struct xa_map *page;
        int error = xa_map_new(job->hv, job->domid, 1, &walk.next, false, &page);

        if (error) {
            more = error;
            break;
        }
        more = xa_pagedir_walk_page(&walk, xa_map_memory(page), grefs);
        xa_map_free(page);
    }
    /* Playback only reads the guest's pages, but volumes and captured samples are written there. */
    if (more == 0)
        more = xa_map_new(job->hv, job->domid, pages, grefs, job->capture, &pcm->buffer);
    free(grefs);
    if (more == 0)
        pcm->shared = xa_map_memory(pcm->buffer);
    return more;
}

static int open_pcm(struct xa_job *job, struct xa_pcm *pcm)
{
    int error;

    pcm->params = job->params;
    pcm->fifo_octets = job->params.buffer_octets + 2 * job->params.period_octets;
    job->failed = "no memory for its samples";
    pcm->fifo_memory = malloc(pcm->fifo_octets);
    if (!pcm->fifo_memory)
        return -ENOMEM;
    job->failed = "its shared buffer cannot be mapped";
    error = map_buffer(job, pcm);
    if (error)
        return error;
    job->failed = "its route cannot be opened";
    return job->capture ? xa_input_open(job->route, &job->params, &job->wakes, &pcm->input)
                        : xa_output_open(job->route, &job->params, &job->wakes, &pcm->output);
}

static void *run_job(void *user)
{
    struct xa_job *job = user;

    pthread_setname_np(pthread_self(), "xa-job"); /* else it has its maker's */
    xa_pcm_free(job->pcm);
    job->pcm = NULL;
    job->error = 0;
    if (job->open) {
        job->failed = "no memory";
        job->error = -ENOMEM;
        job->pcm = calloc(1, sizeof(*job->pcm));
        if (job->pcm)
            job->error = open_pcm(job, job->pcm);
        if (job->error) {
            xa_pcm_free(job->pcm);
            job->pcm = NULL;
        }
    }
    job->done(job->user, job);
    return NULL;
}

int xa_job_start(struct xa_job *job)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    error = -pthread_create(&thread, &attributes, run_job, job);
    pthread_attr_destroy(&attributes);
    return error;
}
