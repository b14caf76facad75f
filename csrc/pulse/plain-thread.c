/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Threads that may be left to themselves; see plain-thread.h. */
#include "config.h"

#include "plain-thread.h"

#include <signal.h>

#define PATIENCE_NS 100000000L

int xa_pulse_thread_begin(pthread_t *thread, const char *name, void *(*function)(void *),
                          void *user)
{
    const struct sched_param ordinary = {.sched_priority = 0};
    pthread_attr_t attributes;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);

    if (error != 0)
        return -error;
    (void) pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    (void) pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    (void) pthread_attr_setschedparam(&attributes, &ordinary);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(thread, &attributes, function, user);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error == 0)
        (void) pthread_setname_np(*thread, name);
    return -error;
}

struct timespec xa_pulse_thread_patience(void)
{
    struct timespec limit;

    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_nsec += PATIENCE_NS;
    if (limit.tv_nsec >= 1000000000L) {
        limit.tv_sec++;
        limit.tv_nsec -= 1000000000L;
    }
    return limit;
}
