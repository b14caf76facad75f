/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks for the C tests. A test is a program of plain functions, each named after what it shows;
 * it goes on after a failed check and exits with check_result(): 0 all held, 1 one or more failed.
 * (77 is Meson's "skipped".)
 */
#ifndef XA_TESTS_CHECK_H
#define XA_TESTS_CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

static int check_failures;
static int check_count;

/* The condition holds. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        check_count++;                                                                             \
        if (!(condition)) {                                                                        \
            check_failures++;                                                                      \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);  \
        }                                                                                          \
    } while (0)

/* Two integers are equal; prints both when they are not. */
#define CHECK_EQ(actual, expected)                                                                 \
    do {                                                                                           \
        int64_t actual_ = (int64_t) (actual);                                                      \
        int64_t expected_ = (int64_t) (expected);                                                  \
        check_count++;                                                                             \
        if (actual_ != expected_) {                                                                \
            check_failures++;                                                                      \
            fprintf(stderr, "%s:%d: %s: %s is %" PRId64 ", expected %s = %" PRId64 "\n", __FILE__, \
                    __LINE__, __func__, #actual, actual_, #expected, expected_);                   \
        }                                                                                          \
    } while (0)

/* The program's exit status. */
static inline int check_result(void)
{
    printf("%d checks, %d failed\n", check_count, check_failures);
    return check_failures > 0;
}

#endif
