/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that may outlive who began them, because what they ask may be stuck. (A pa_thread must be
 * joined.) Signals are the main thread's, and no such thread has real-time priority unless it asks
 * for that itself. The library that has its code stays loaded (meson.build).
 */
#ifndef XA_PULSE_PLAIN_THREAD_H
#define XA_PULSE_PLAIN_THREAD_H

#include <pthread.h>
#include <time.h>

/* Begins `function(user)` on a thread of this name, 15 letters at most. The caller joins or
 * detaches it. 0 or a negative errno value. Any thread. */
int xa_pulse_thread_begin(pthread_t *thread, const char *name, void *(*function)(void *),
                          void *user);

/* Until when, by CLOCK_MONOTONIC, PulseAudio's main thread waits for such a thread that is to end,
 * before it leaves it to itself. Any thread. */
struct timespec xa_pulse_thread_patience(void);

#endif
