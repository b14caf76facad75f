/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz data taken apart piece by piece, and the check that ends a run of a fuzz target.
 */
#ifndef XA_TESTS_FUZZ_INPUT_H
#define XA_TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the input is; libFuzzer keeps the input when it does not. */
#define INVARIANT(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

/* The next octets into `out`; zeros once the input is used up. */
static inline void fuzz_take(struct fuzz_input *input, void *out, size_t octets)
{
    size_t there = octets < input->left ? octets : input->left;

    memset(out, 0, octets);
    if (there > 0)
        memcpy(out, input->data, there);
    input->data += there;
    input->left -= there;
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
    uint8_t value;

    fuzz_take(input, &value, sizeof(value));
    return value;
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
    uint32_t value;

    fuzz_take(input, &value, sizeof(value));
    return value;
}

#endif
