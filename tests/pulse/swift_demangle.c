/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For AddressSanitizer's run-time library in a process that was not linked with it. When it starts
 * it looks for this function; were there none, it would have libc word an error. One of
 * PulseAudio's libraries has it start from within libc's message catalogues, which would wait for
 * themselves.
 */
#include <stddef.h>

char *swift_demangle(const char *name, size_t length, char *out, size_t *size, unsigned flags);

char *swift_demangle(const char *name, size_t length, char *out, size_t *size, unsigned flags)
{
    (void) name;
    (void) length;
    (void) out;
    (void) size;
    (void) flags;
    return NULL;
}
